// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// Bounds of a discovery stream. They are those of the signature package, kept
// here as well because a worker is not believed to have kept to them.
const (
	MaxSignatures     = 64
	MaxSignatureBytes = 4 << 20
	MaxSignatureTotal = 16 << 20
	maxHead           = 32 << 10
)

// WriteSignature appends one frame: length of head, head, manifest, payload.
func WriteSignature(w io.Writer, h SignatureHead, manifest, payload []byte) error {
	h.Manifest, h.Payload = int64(len(manifest)), int64(len(payload))
	head, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode signature head: %w", err)
	}
	if len(head) > maxHead {
		return fmt.Errorf("signature with %d bytes of annotations", len(head))
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(head)))
	for _, b := range [][]byte{append(frame, head...), manifest, payload} {
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("hand over signature: %w", err)
		}
	}
	return nil
}

// ReadSignatures reads frames until the end, within the bounds above.
func ReadSignatures(r io.Reader, each func(h SignatureHead, manifest, payload []byte)) error {
	var total int64
	for n := 0; ; n++ {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read signature stream: %w", err)
		}
		if n == MaxSignatures {
			return fmt.Errorf("more than %d signatures: %w", MaxSignatures, ErrProtocol)
		}
		h, err := readHead(r, binary.BigEndian.Uint32(size[:]))
		if err != nil {
			return err
		}
		if total += h.Manifest + h.Payload; total > MaxSignatureTotal {
			return fmt.Errorf("more than %d bytes of signatures: %w", MaxSignatureTotal, ErrProtocol)
		}
		body := make([]byte, h.Manifest+h.Payload)
		if _, err := io.ReadFull(r, body); err != nil {
			return fmt.Errorf("read signature: %w", err)
		}
		each(h, body[:h.Manifest:h.Manifest], body[h.Manifest:])
	}
}

func readHead(r io.Reader, size uint32) (SignatureHead, error) {
	var h SignatureHead
	if size > maxHead {
		return h, fmt.Errorf("signature head of %d bytes: %w", size, ErrProtocol)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return h, fmt.Errorf("read signature head: %w", err)
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return h, fmt.Errorf("signature head: %w", ErrProtocol)
	}
	if h.Manifest < 0 || h.Payload < 0 || h.Manifest > MaxSignatureBytes || h.Payload > MaxSignatureBytes {
		return h, fmt.Errorf("signature of %d and %d bytes: %w", h.Manifest, h.Payload, ErrProtocol)
	}
	return h, nil
}
