// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/signature"
)

// maxQuestion bounds what the parent asks: a policy and 16 MiB of signatures
// in base64.
const maxQuestion = 64 << 20

// serveVerify judges one image and ends.
func serveVerify(_ context.Context, c *wire.Conn) error {
	verdict, err := judge(os.NewFile(fdIn, "question"))
	if err != nil {
		return answer(c, nil, err)
	}
	out := os.NewFile(fdData, "answer")
	if err := json.NewEncoder(out).Encode(verdict); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return answer(c, nil, nil)
}

func judge(in io.ReadCloser) (signature.Verdict, error) {
	defer in.Close()
	var q wire.Question
	if err := json.NewDecoder(io.LimitReader(in, maxQuestion)).Decode(&q); err != nil {
		return signature.Verdict{}, fmt.Errorf("read question: %w", err)
	}
	var policy signature.Policy
	var subject signature.Subject
	var sigs []signature.Signature
	for _, part := range []struct {
		from json.RawMessage
		to   any
	}{{q.Policy, &policy}, {q.Subject, &subject}, {q.Signatures, &sigs}} {
		if err := json.Unmarshal(part.from, part.to); err != nil {
			return signature.Verdict{}, fmt.Errorf("read question: %w", err)
		}
	}
	return policy.Judge(subject, sigs), nil
}
