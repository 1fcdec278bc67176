// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// RunHooks runs hooks of a kind in their order, to the first that fails, in
// our own namespaces.
func RunHooks(kind string, hooks []specs.Hook, state specs.State) error {
	for i, h := range hooks {
		if err := RunHook(h, state); err != nil {
			return fmt.Errorf("hooks.%s[%d]: %w", kind, i, err)
		}
	}
	return nil
}

// RunHook runs one, with its environment and no other. It reads from and
// prints to memory files: nothing that it leaves behind keeps us waiting.
func RunHook(h specs.Hook, state specs.State) error {
	doc, err := json.Marshal(state)
	if err != nil {
		return err
	}
	in, err := hookMemory("state")
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := in.WriteAt(doc, 0); err != nil {
		return err
	}
	out, err := hookMemory("output")
	if err != nil {
		return err
	}
	defer out.Close()
	dir := ""
	if state.Status == specs.StateCreating {
		dir = state.Bundle // as runc has it; later it may be gone
	}
	fd := -1
	p, err := os.StartProcess(h.Path, HookArgs(h), &os.ProcAttr{
		Dir: dir, Env: append([]string{}, h.Env...), Files: []*os.File{in, out, out},
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &fd},
	})
	if err != nil {
		return fmt.Errorf("execute %w", err)
	}
	expired := false
	if fd >= 0 {
		pidfd := os.NewFile(uintptr(fd), "pidfd")
		defer pidfd.Close()
		if h.Timeout != nil {
			over, err := EndsWithin(pidfd, time.Duration(min(*h.Timeout, longest))*time.Second)
			if expired = !over || err != nil; expired {
				_ = unix.Kill(-p.Pid, unix.SIGKILL) // its session; it is not reaped yet
			}
		}
	}
	status, err := p.Wait()
	switch {
	case err != nil:
	case expired:
		err = fmt.Errorf("killed: it took longer than its timeout of %d s", *h.Timeout)
	case !status.Success():
		err = errors.New("ended: " + status.String())
	default:
		return nil
	}
	return fmt.Errorf("run %s: %w%s", h.Path, err, said(out))
}

// longest is the most seconds a time-out is taken for: a year.
const longest = 366 * 24 * 60 * 60

func hookMemory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// said is the end of what a hook printed.
func said(out *os.File) string {
	fi, err := out.Stat()
	if err != nil {
		return ""
	}
	b := make([]byte, 1024)
	n, _ := out.ReadAt(b, max(0, fi.Size()-int64(len(b))))
	if text := bytes.TrimSpace(b[:n]); len(text) > 0 {
		return ": " + string(text)
	}
	return ""
}

// EndsWithin waits for the end of a process, for so long.
func EndsWithin(pidfd *os.File, d time.Duration) (bool, error) {
	polls := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	for until := time.Now().Add(d); ; {
		left := time.Until(until)
		if left <= 0 {
			return false, nil
		}
		n, err := unix.Poll(polls, int(min(left.Milliseconds()+1, math.MaxInt32)))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, err
		}
		if err == nil && n > 0 {
			return true, nil
		}
	}
}
