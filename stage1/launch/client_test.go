// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// A pod whose launch hangs has a control socket that nobody serves. A client
// is told so, both when its request is not answered and when so many others
// wait that it cannot even connect.
func TestNobodyServesTheControlSocket(t *testing.T) {
	path := t.TempDir()
	socket, err := listen(path, stage1.ControlFile, unix.SOCK_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for i := range 100 {
		c, err := dial(dir, 20*time.Millisecond)
		if err != nil {
			if !errors.Is(err, ErrSilent) {
				t.Fatal(err)
			}
			if i == 0 {
				t.Fatal("nobody could connect")
			}
			return
		}
		defer c.Close()
		if i > 0 {
			continue
		}
		if _, err := c.Ask(stage1.Request{Version: 1, Op: stage1.OpHello}); !errors.Is(err, ErrSilent) {
			t.Fatal(err)
		}
	}
	t.Error("a hundred clients wait and the next was not refused")
}

// End has no such bound, and takes what was sent before the supervisor ended.
func TestEndWaits(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{fd: fds[0]}
	defer c.Close()
	if err := waitFor(c.fd, 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(50 * time.Millisecond) // longer than the bound
		for _, s := range []string{`{"version":1,"apps":{"app":{"pid":7}}}`, `{"version":1,"apps":{"app":{"pid":7,"finished":1,"exit":{"code":3}}}}`} {
			_, _ = unix.Write(fds[1], []byte(s))
		}
		_ = unix.Close(fds[1])
	}()
	st, err := c.End("app")
	if err != nil || st.Exit == nil || st.Exit.Code != 3 {
		t.Fatalf("%+v, %v", st, err)
	}
	if _, err := c.End("app"); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("after the supervisor's end: %v", err)
	}
}
