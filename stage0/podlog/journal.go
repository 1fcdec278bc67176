// SPDX-License-Identifier: Apache-2.0

package podlog

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/stage0/pod"
)

// entry is what journalctl prints of one, as JSON.
type entry struct {
	Cursor  string          `json:"__CURSOR"`
	Time    string          `json:"__REALTIME_TIMESTAMP"` // µs since 1970
	Stream  string          `json:"GANTRY_STREAM"`
	Partial string          `json:"CONTAINER_PARTIAL_MESSAGE"`
	Message json.RawMessage `json:"MESSAGE"` // a string, bytes where it is no UTF-8, null where it is too large
}

// text is the message's bytes.
func (e entry) text() ([]byte, error) {
	var s string
	if json.Unmarshal(e.Message, &s) == nil {
		return []byte(s), nil
	}
	var numbers []uint8ish
	if err := json.Unmarshal(e.Message, &numbers); err != nil {
		return nil, fmt.Errorf("read journal: a message is neither text nor bytes: %w", err)
	}
	b := make([]byte, len(numbers))
	for i, n := range numbers {
		b[i] = byte(n)
	}
	return b, nil
}

// uint8ish is a byte that encoding/json does not take for base64.
type uint8ish uint16

// journal prints a pod's entries of the journal. Its files have a format of
// their own, with compression and hashes, which journalctl reads.
func (s Source) journal(ctx context.Context, pr *printer) error {
	if _, err := exec.LookPath("journalctl"); err != nil {
		return hint.With(fmt.Errorf("the log of pod %s is in the journal, and journalctl is not installed", pod.Short(s.Pod.UUID)), "install systemd, or read the journal where it is")
	}
	args := []string{"--output=json", "--all", "--no-pager", "--quiet", "GANTRY_POD=" + s.Pod.UUID}
	if !pr.o.Since.IsZero() {
		args = append(args, "--since=@"+strconv.FormatFloat(float64(pr.o.Since.UnixMicro())/1e6, 'f', 6, 64))
	}
	lines := "all"
	if pr.o.Tail >= 0 {
		lines = strconv.Itoa(pr.o.Tail)
	}
	_ = exec.CommandContext(ctx, "journalctl", "--sync").Run() // best effort: what was sent a moment ago
	if !pr.o.Follow {
		_, err := pr.journal(ctx, append(args, "--lines="+lines)...)
		return err
	}
	following, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- s.Ended(ctx)
		cancel()
	}()
	last, err := pr.journal(following, append(args, "--follow", "--lines="+lines)...)
	if following.Err() == nil {
		return err // journalctl ended by itself
	}
	if err := <-ended; err != nil {
		return ignoreCanceled(err)
	}
	_ = exec.CommandContext(ctx, "journalctl", "--sync").Run()
	if last != "" {
		args = append(args, "--after-cursor="+last)
	}
	_, err = pr.journal(ctx, args...)
	return err
}

// journal prints what one run of journalctl finds and returns the last cursor.
func (p *printer) journal(ctx context.Context, args ...string) (last string, err error) {
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("read journal: %w", err)
	}
	last, err = p.entries(out)
	if err != nil {
		_ = cmd.Process.Kill()
	}
	if werr := cmd.Wait(); err == nil && ctx.Err() == nil && werr != nil {
		err = fmt.Errorf("read journal: journalctl: %w", werr)
	}
	return last, err
}

func (p *printer) entries(r io.Reader) (last string, err error) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
			return last, nil // one that was cut short is read again after the cursor
		}
		if err != nil {
			return last, fmt.Errorf("read journal: %w", err)
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return last, fmt.Errorf("read journal: %w", err)
		}
		if err := p.entry(e); err != nil {
			return last, err
		}
		last = e.Cursor
	}
}

// entry prints one as if it had been in a log file.
func (p *printer) entry(e entry) error {
	us, err := strconv.ParseInt(e.Time, 10, 64)
	if err != nil {
		return fmt.Errorf("read journal: time %q: %w", e.Time, err)
	}
	text, err := e.text()
	if err != nil {
		return err
	}
	tag := "F"
	if e.Partial == "true" {
		tag = "P"
	}
	stamp := time.UnixMicro(us).UTC().Format(time.RFC3339Nano)
	return p.print([]byte(stamp + " " + e.Stream + " " + tag + " " + string(text)))
}
