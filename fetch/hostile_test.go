// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/fetch/worker"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/signature"
)

// A villain stands in for a worker that was taken over. Each plays its part
// only in the kinds it is about and is a good worker otherwise, so that a
// fetch gets as far as the attack.
func villains() map[string]func([]string) error {
	return map[string]func([]string) error{
		"garbage":      in(wire.Net, garbage),
		"huge-message": in(wire.Net, hugeMessage),
		"extra-fds":    in(wire.Net, extraFiles),
		"wrong-id":     in(wire.Net, wrongID),
		"old-version":  in(wire.Net, oldVersion),
		"unconfined":   in(wire.Net, unconfined),
		"dies":         in(wire.Net, func(*wire.Conn) error { os.Exit(3); return nil }),
		"shouts":       in(wire.Net, shout),
		"deep-json":    in(wire.Net, deepJSON),
		"endless":      in(wire.Net, endless),
		"wrong-bytes":  in(wire.Net, wrongBytes),
		"escapes":      in(wire.Net, escapes),
		"chatty":       in(wire.Net, chatty),
		"annotator":    in(wire.Layout, annotator),
		"yes-man":      in(wire.Verify, yesMan),
		"novelist":     in(wire.Verify, novelist),
		"forger":       in(wire.Convert, forger),
		"holds-on":     in(wire.Convert, holdsOn),
		"mergeless":    in(wire.Merge, forger),
		"beggar":       in(wire.Layout, beggar),
		"liar":         in(wire.Layout, liar),
	}
}

func in(kind string, play func(*wire.Conn) error) func([]string) error {
	return func(args []string) error {
		if args[0] != kind {
			return worker.Main(args)
		}
		c, err := wire.New(wire.Socket)
		if err != nil {
			return err
		}
		return play(c)
	}
}

func pretend(c *wire.Conn) error {
	return c.Send(wire.Message{Op: wire.OpReady, Body: wire.Body(wire.Ready{UID: 1, Seccomp: true, NoNewPrivs: true})})
}

func garbage(*wire.Conn) error {
	_, err := unix.Write(wire.Socket, []byte("\x00\xff{not json"))
	time.Sleep(time.Minute) // never says anything else
	return err
}

func hugeMessage(*wire.Conn) error {
	_, err := unix.Write(wire.Socket, bytes.Repeat([]byte("x"), wire.MaxMessage+1000))
	time.Sleep(time.Minute)
	return err
}

func extraFiles(c *wire.Conn) error {
	null, err := os.Open("/dev/null")
	if err != nil {
		return err
	}
	ready := wire.Message{Op: wire.OpReady, Body: wire.Body(wire.Ready{UID: 1, Seccomp: true, NoNewPrivs: true})}
	if err := c.Send(ready, null, null, null); err != nil {
		return err
	}
	for range 200 {
		if err := c.Send(wire.Message{Op: wire.OpDone, ID: 1}, null, null, null, null); err != nil {
			return err
		}
	}
	time.Sleep(time.Minute)
	return nil
}

func wrongID(c *wire.Conn) error {
	if err := pretend(c); err != nil {
		return err
	}
	return c.Send(wire.Message{Op: wire.OpDone, ID: 4711})
}

func oldVersion(*wire.Conn) error {
	_, err := unix.Write(wire.Socket, []byte(`{"v":0,"op":"ready"}`))
	return err
}

func unconfined(c *wire.Conn) error {
	return c.Send(wire.Message{Op: wire.OpReady, Body: wire.Body(wire.Ready{UID: 0})})
}

func shout(*wire.Conn) error {
	for range 10_000 {
		fmt.Fprintln(os.Stderr, "\x1b]0;owned\x07\x1b[2J", strings.Repeat("A", 4000))
	}
	os.Exit(1)
	return nil
}

func deepJSON(*wire.Conn) error {
	_, err := unix.Write(wire.Socket, []byte(strings.Repeat("[", wire.MaxMessage)))
	return err
}

// each answers every request with bytes.
func each(c *wire.Conn, answer func(m wire.Message, f *os.File)) error {
	if err := pretend(c); err != nil {
		return err
	}
	for {
		m, files, err := c.Recv(true)
		if err != nil {
			return err
		}
		if m.Op == wire.OpStart {
			continue
		}
		var f *os.File
		if len(files) > 0 {
			f = files[0]
		}
		answer(m, f)
		f.Close()
		if err := c.Send(wire.Message{ID: m.ID, Op: wire.OpDone, Body: wire.Body(wire.Content{})}); err != nil {
			return err
		}
	}
}

func endless(c *wire.Conn) error {
	block := bytes.Repeat([]byte("x"), 1<<16)
	return each(c, func(_ wire.Message, f *os.File) {
		for {
			if _, err := f.Write(block); err != nil {
				return
			}
		}
	})
}

func wrongBytes(c *wire.Conn) error {
	return each(c, func(_ wire.Message, f *os.File) { fmt.Fprint(f, `{"schemaVersion":2}`) })
}

func escapes(c *wire.Conn) error {
	if err := pretend(c); err != nil {
		return err
	}
	for {
		m, files, err := c.Recv(true)
		if err != nil {
			return err
		}
		for _, f := range files {
			f.Close()
		}
		if m.Op == wire.OpStart {
			continue
		}
		if err := c.Send(wire.Message{ID: m.ID, Op: wire.OpDone, Error: &wire.Error{Code: wire.Server, Text: "\x1b[2J\x1b]0;owned\x07 hello"}}); err != nil {
			return err
		}
	}
}

// chatty tells people more than they can read, and not what it should.
func chatty(c *wire.Conn) error {
	if err := pretend(c); err != nil {
		return err
	}
	for {
		note := wire.Note{Text: "\x1b[2J\ngantry: all is well " + strings.Repeat("x", 1000)}
		if err := c.Send(wire.Message{Op: wire.OpNote, Body: wire.Body(note)}); err != nil {
			return err
		}
	}
}

// annotator finds nothing and says so at length.
func annotator(c *wire.Conn) error {
	if err := pretend(c); err != nil {
		return err
	}
	var order wire.LayoutStart
	for {
		m, files, err := c.Recv(true)
		if err != nil {
			return err
		}
		var body any
		switch m.Op {
		case wire.OpStart:
			if err := m.Decode(&order); err != nil {
				return err
			}
			continue
		case wire.OpSignatures:
			note := "\x1b[2J\ngantry: all is well " + strings.Repeat("x", 1000)
			body = wire.Discovered{Notes: slices.Repeat([]string{note}, 40)}
		case wire.OpResolve:
			body = wire.Content{Digest: order.Digest, MediaType: ispec.MediaTypeImageManifest}
		}
		for _, f := range files {
			f.Close()
		}
		if err := c.Send(wire.Message{Op: wire.OpDone, Body: wire.Body(body)}); err != nil {
			return err
		}
	}
}

// yesMan accepts everything.
func yesMan(c *wire.Conn) error {
	if err := pretend(c); err != nil {
		return err
	}
	v := signature.Verdict{
		Accepted: true, Reason: signature.ReasonSigned,
		Findings: []signature.Finding{{Counts: true}}, By: []signature.Signer{{KeyID: "SHA256:whatever"}},
	}
	if err := json.NewEncoder(os.NewFile(5, "answer")).Encode(v); err != nil {
		return err
	}
	return c.Send(wire.Message{Op: wire.OpDone})
}

// novelist never comes to the end of its verdict.
func novelist(c *wire.Conn) error {
	if err := pretend(c); err != nil {
		return err
	}
	for {
		if _, err := os.NewFile(5, "answer").WriteString(`{"accepted":true,"detail":"` + strings.Repeat("x", 1<<16)); err != nil {
			return c.Send(wire.Message{Op: wire.OpDone})
		}
	}
}

// forger makes something out of nothing at once.
func forger(c *wire.Conn) error {
	if err := pretend(c); err != nil {
		return err
	}
	for _, fd := range []int{4, 5, 6} {
		_, _ = unix.Pwrite(fd, []byte("forged"), 0)
	}
	return c.Send(wire.Message{Op: wire.OpDone, Body: wire.Body(tree.Summary{})})
}

// holdsOn converts nothing and keeps its descriptors in a child.
func holdsOn(c *wire.Conn) error {
	if err := pretend(c); err != nil {
		return err
	}
	if err := c.Send(wire.Message{Op: wire.OpDone, Body: wire.Body(tree.Summary{})}); err != nil {
		return err
	}
	time.Sleep(time.Minute)
	return nil
}

// beggar asks for blobs without end, and for what is no blob.
func beggar(c *wire.Conn) error {
	if err := pretend(c); err != nil {
		return err
	}
	for {
		m, _, err := c.Recv(true)
		if err != nil {
			return err
		}
		if m.Op != wire.OpResolve {
			continue
		}
		for {
			if err := c.Send(wire.Message{Op: wire.OpNeed, Body: wire.Body(wire.Content{Digest: "sha256:../../../../etc/shadow"})}); err != nil {
				return err
			}
			m, files, err := c.Recv(true)
			if err != nil || len(files) > 0 || m.Error == nil {
				fmt.Fprintln(os.Stderr, "GOT IT", m, err)
				return err
			}
		}
	}
}

// liar names places outside of the archive.
func liar(c *wire.Conn) error {
	if err := pretend(c); err != nil {
		return err
	}
	for {
		m, _, err := c.Recv(true)
		if err != nil {
			return err
		}
		at := wire.Content{Digest: "sha256:" + strings.Repeat("0", 64), Offset: 1 << 60, Size: 1 << 62}
		if m.Op == wire.OpStart {
			continue
		}
		if err := c.Send(wire.Message{Op: wire.OpDone, Body: wire.Body(at)}); err != nil {
			return err
		}
	}
}

// Guards: whatever a worker does, the parent ends with an error that names it,
// soon, with bounded memory, with nothing trusted and no descriptor kept.
func TestHostileWorkers(t *testing.T) {
	s := newShop(t, true)
	ref := s.put(t, "a/b:v1", sample(t, 2))
	verifyOn := map[string]bool{"yes-man": true, "novelist": true, "forger": true, "holds-on": true, "mergeless": true}
	for role, want := range map[string]string{
		"garbage": "protocol violation", "huge-message": "protocol violation", "wrong-id": "protocol violation",
		"extra-fds": "protocol violation", "deep-json": "protocol violation",
		"old-version": "different releases", "unconfined": "not confined", "dies": "exit status 3",
		"shouts": "exit status 1", "endless": "more than", "wrong-bytes": "", "escapes": "hello",
		"chatty":  "more than 100 notes",
		"yes-man": "accepted what does not hold", "novelist": "protocol violation",
		"forger": "", "holds-on": "", "mergeless": "",
	} {
		t.Run(role, func(t *testing.T) {
			if withCgo && verifyOn[role] {
				t.Skip("ability missing: executables: its good workers cannot confine themselves with cgo")
			}
			h := newHouse(t)
			h.libexec = libexec(t, role)
			h.trust(s.host(), "sigstore-key")
			insecure := func(r *Request) {
				r.Insecure.Image = role != "yes-man" && role != "novelist"
			}
			if role == "yes-man" {
				// A signature is there, by somebody else.
				newHouse(t).sign(ref, false)
			}
			open := descriptors(t)
			begin := time.Now()
			_, err := h.fetch(ref, insecure)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("got %v, want %q in it", err, want)
			}
			if strings.ContainsAny(err.Error(), "\x1b\x07") || len(err.Error()) > 8<<10 {
				t.Errorf("what a worker says reaches the terminal: %q", err)
			}
			if took := time.Since(begin); took > 50*time.Second {
				t.Errorf("took %s", took)
			}
			if now := descriptors(t); now > open+8 {
				t.Errorf("%d descriptors before, %d after", open, now)
			}
			h.nothingNamed(ref)
			if said := h.lines.String(); strings.Count(said, "\n") > wire.MaxNotes || strings.ContainsRune(said, 0x1b) || strings.Contains(said, "\ngantry:") {
				t.Errorf("people are told %.2000q", said)
			}
		})
	}
}

// Guards: what a worker notes reaches a refusal as few short lines of ours.
func TestHostileNotes(t *testing.T) {
	if withCgo {
		t.Skip("ability missing: executables: its good workers cannot confine themselves with cgo")
	}
	p := sample(t, 1)
	dir := layoutOf(t, p, "v1")
	h := newHouse(t)
	h.libexec = libexec(t, "annotator")
	h.trust("oci:"+dir, "sigstore-key")
	_, err := h.fetch("oci:" + dir + "@" + p.Manifest.Descriptor.Digest.String())
	if err == nil || !strings.Contains(err.Error(), "passed over") {
		t.Fatalf("got %v", err)
	}
	if text := err.Error(); strings.ContainsRune(text, 0x1b) || strings.Contains(text, "\ngantry:") || len(text) > 8<<10 {
		t.Errorf("what a worker says reaches the terminal: %q", text)
	}
}

// Guards: a worker whose input was handed over before it said that it is
// ready still has to answer in time.
func TestPatienceOutlivesReady(t *testing.T) {
	ours, theirs, err := wire.Pair()
	check(t, err)
	defer ours.Close()
	fd, err := unix.Dup(int(theirs.Fd()))
	check(t, err)
	theirs.Close()
	worker, err := wire.New(fd)
	check(t, err)
	defer worker.Close()
	p := &process{kind: wire.Convert, conn: ours, said: &tail{}, ended: make(chan struct{})}
	p.patience(300 * time.Millisecond)
	check(t, pretend(worker))
	answer := make(chan error, 1)
	go func() { answer <- p.order(nil, 0, nil) }()
	select {
	case err := <-answer:
		if err == nil || !strings.Contains(err.Error(), "did not answer in time") {
			t.Errorf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it may take for ever")
	}
}

func descriptors(t *testing.T) int {
	names, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(names)
}

// Guards: the layout worker gets blobs of the layout and nothing else.
func TestHostileLayoutWorkers(t *testing.T) {
	dir := layoutOf(t, sample(t, 1), "v1")
	for role, ref := range map[string]string{"beggar": "oci:" + dir + ":v1", "liar": "oci-archive:" + archiveOf(t, dir) + ":v1"} {
		t.Run(role, func(t *testing.T) {
			h := newHouse(t)
			h.libexec = libexec(t, role)
			_, err := h.fetch(ref, func(r *Request) { r.Insecure.Image = true })
			if !errors.Is(err, wire.ErrProtocol) || strings.Contains(err.Error(), "GOT IT") {
				t.Fatalf("got %v", err)
			}
			h.nothingNamed(ref)
		})
	}
}

// TestWorkerThatEndedBeforeItsOrder: what it said is read all the same.
func TestWorkerThatEndedBeforeItsOrder(t *testing.T) {
	p, err := launch(t.Context(), libexec(t, "deep-json"), wire.Net)
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	<-p.ended
	if err := p.begin(wire.NetStart{}); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("got %v, want that it broke the protocol", err)
	}
}
