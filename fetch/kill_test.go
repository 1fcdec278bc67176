// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/signature"
)

// parentName makes the test executable a gantry that can be killed.
const parentName = "gantry-parent"

// parentMain fetches args: state directory, policy directory, libexec,
// reference.
func parentMain(args []string) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := func() error {
		r := Request{Libexec: args[2], Platform: ispec.Platform{OS: "linux", Architecture: "amd64"}}
		key, err := signature.HostKey(filepath.Join(args[0], "host.key"))
		if err != nil {
			return err
		}
		if r.Ref, err = image.Parse(args[3]); err != nil {
			return err
		}
		if r.Policy, err = signature.LoadPolicy([]string{args[1]}); err != nil {
			return err
		}
		if r.Store, err = store.Open(filepath.Join(args[0], "store")); err != nil {
			return err
		}
		defer r.Store.Close()
		if r.Trees, err = tree.Open(filepath.Join(args[0], "trees"), key); err != nil {
			return err
		}
		if r.Receipts, err = signature.OpenReceiptsWithKey(filepath.Join(args[0], "receipts"), key); err != nil {
			return err
		}
		_, err = Fetch(ctx, r)
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// parent starts a gantry of its own process.
func (h *house) parent(ref string) *exec.Cmd {
	h.t.Helper()
	self, err := os.Executable()
	check(h.t, err)
	name := filepath.Join(h.t.TempDir(), parentName)
	check(h.t, os.Symlink(self, name))
	cmd := exec.Command(name, h.dir, h.conf, h.libexec, ref)
	cmd.Stderr = os.Stderr
	check(h.t, cmd.Start())
	return cmd
}

// children are pidfds of a process's children.
func children(t *testing.T, pid int) []int {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	check(t, err)
	var fds []int
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(b)) {
			child, err := strconv.Atoi(f)
			check(t, err)
			if fd, err := unix.PidfdOpen(child, 0); err == nil {
				t.Cleanup(func() { unix.Close(fd) })
				fds = append(fds, fd)
			}
		}
	}
	return fds
}

// gone waits until every process has ended.
func gone(t *testing.T, fds []int) {
	t.Helper()
	for _, fd := range fds {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(p, 60_000)
			if err == unix.EINTR {
				continue
			}
			if n != 1 {
				t.Fatalf("a worker outlived its parent by a minute (%v)", err)
			}
			break
		}
	}
}

// Guards: killed or interrupted in the middle of a layer, gantry takes its
// workers along, leaves nothing named, and the next fetch simply works.
func TestKilledInTheMiddle(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			if withCgo && sig == syscall.SIGINT {
				t.Skip("ability missing: executables: needs CGO_ENABLED=0")
			}
			p := bigSample(t)
			s := newShop(t, true)
			h, ref := trusting(t, s), s.put(t, "a/b:v1", p)
			half, hang := make(chan struct{}), make(chan struct{})
			s.spoiled(func(w http.ResponseWriter, r *http.Request) bool {
				if path.Base(r.URL.Path) != p.Blobs[0].Descriptor.Digest.String() || r.Method != http.MethodGet {
					return false
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(p.Blobs[0].Bytes)))
				_, _ = w.Write(p.Blobs[0].Bytes[:len(p.Blobs[0].Bytes)/2])
				w.(http.Flusher).Flush()
				close(half)
				select {
				case <-hang:
				case <-r.Context().Done():
				}
				return true
			})
			cmd := h.parent(ref)
			select {
			case <-half:
			case <-time.After(2 * time.Minute):
				t.Fatal("never got half-way")
			}
			workers := children(t, cmd.Process.Pid)
			if len(workers) == 0 {
				t.Error("no workers")
			}
			check(t, cmd.Process.Signal(sig))
			if err := cmd.Wait(); err == nil {
				t.Error("it ended well")
			}
			gone(t, workers)
			close(hang)
			s.spoiled(nil)
			h.nothingNamed(ref)
			_, err := h.fetch(ref)
			check(t, err)
			for _, f := range filesBelow(t, h.dir) {
				if strings.Contains(f, ".tmp") || strings.Contains(f, "ingest/sha256") {
					t.Errorf("left over: %s", f)
				}
			}
		})
	}
}
