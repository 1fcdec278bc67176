// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (ours, theirs *Conn) {
	t.Helper()
	ours, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err = New(dup(t, f)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func dup(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// Guards: messages and descriptors go to the worker; from it, only messages.
func TestDescriptorsGoOneWay(t *testing.T) {
	ours, theirs := pair(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		from, to *Conn
		want     bool
		files    int
	}{{ours, theirs, true, 1}, {theirs, ours, false, 0}} {
		if err := c.from.Send(Message{Op: OpDone, Body: Body(Named{Reference: "x"})}, null); err != nil {
			t.Fatal(err)
		}
		m, files, err := c.to.Recv(c.want)
		if err != nil || len(files) != c.files {
			t.Fatalf("%d files, %v", len(files), err)
		}
		closeAll(files)
		var n Named
		if err := m.Decode(&n); err != nil || n.Reference != "x" {
			t.Errorf("got %+v, %v", n, err)
		}
	}
}

func TestEndAndSize(t *testing.T) {
	ours, theirs := pair(t)
	if err := ours.Send(Message{Op: OpDone, Body: Body(strings.Repeat("x", MaxMessage))}); !errors.Is(err, ErrProtocol) {
		t.Errorf("a message too long: %v", err)
	}
	theirs.Close()
	if _, _, err := ours.Recv(false); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// Guards: what a worker says cannot steer a terminal, and is bounded.
func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain: ä\n":       "plain: ä\n",
		"\x1b[2Jx":         "\uFFFD[2Jx",
		"a\x00b\x07":       "a\uFFFDb\uFFFD",
		"\xff\xfe":         "\uFFFD",
		"right\u202Eleft":  "right\uFFFDleft",
		"0123456789abcdef": "0123456789…",
	} {
		limit := 100
		if strings.HasPrefix(in, "0123") {
			limit = 10
		}
		if got := Clean(in, limit); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSignatureFrames(t *testing.T) {
	var b bytes.Buffer
	for i := range 3 {
		h := SignatureHead{Format: "f", Annotations: map[string]string{"k": "v"}}
		if err := WriteSignature(&b, h, []byte("manifest"), bytes.Repeat([]byte("p"), i)); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	err := ReadSignatures(&b, func(h SignatureHead, manifest, payload []byte) {
		if string(manifest) != "manifest" || len(payload) != n || h.Annotations["k"] != "v" {
			t.Errorf("frame %d: %q %q", n, manifest, payload)
		}
		n++
	})
	if err != nil || n != 3 {
		t.Errorf("%d frames, %v", n, err)
	}
	for name, stream := range map[string]string{
		"head too long": "\xff\xff\xff\xff", "cut": "\x00\x00\x00\x05{",
		"negative": "\x00\x00\x00\x0f{\"manifest\":-1}",
		"huge":     "\x00\x00\x00\x1a{\"manifest\":9000000000000}",
	} {
		if err := ReadSignatures(strings.NewReader(stream), func(SignatureHead, []byte, []byte) {}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzReadSignatures(f *testing.F) {
	var b bytes.Buffer
	if err := WriteSignature(&b, SignatureHead{Format: "f"}, []byte("m"), []byte("p")); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_ = ReadSignatures(bytes.NewReader(b), func(h SignatureHead, m, p []byte) {
			n++
			if int64(len(m)) != h.Manifest || int64(len(p)) != h.Payload || n > MaxSignatures {
				t.Errorf("frame %d: %d and %d bytes", n, len(m), len(p))
			}
		})
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"v":1,"op":"done","error":{"code":"tls","text":"x"}}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b, 0)
		if err == nil && m.Error != nil && strings.ContainsAny(m.Error.Text, "\x00\x07\x1b") {
			t.Errorf("text %q", m.Error.Text)
		}
	})
}
