// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1/launch"
)

// hookState is the document that hooks get on their standard input.
func (c *Container) hookState(spec *specs.Spec, status specs.ContainerState, pid int) specs.State {
	return specs.State{
		Version: specs.Version, ID: c.ID, Status: status, Pid: pid, Bundle: c.Bundle, Annotations: spec.Annotations,
	}
}

// createRuntime runs the hooks that come while the container is created, in
// our own namespaces.
func (c *Container) createRuntime(spec *specs.Spec, pid int) error {
	if spec.Hooks == nil {
		return nil
	}
	state := c.hookState(spec, specs.StateCreating, pid)
	//nolint:staticcheck // deprecated, but bundles have it
	if err := runHooks("prestart", spec.Hooks.Prestart, state); err != nil {
		return err
	}
	return runHooks("createRuntime", spec.Hooks.CreateRuntime, state)
}

// poststartError is of a container that runs although it may not.
type poststartError struct{ error }

func (e poststartError) Unwrap() error { return e.error }

// poststart runs the hooks that come when the app runs.
func (c *Container) poststart() error {
	spec, err := c.Spec()
	if err != nil || spec.Hooks == nil {
		return err
	}
	if err := runHooks("poststart", spec.Hooks.Poststart, c.hookState(spec, specs.StateRunning, c.Pid)); err != nil {
		return poststartError{fmt.Errorf("%w; the container is stopped and deleted", err)}
	}
	return nil
}

// poststop runs the hooks that come when nothing of the container is left.
func (c *Container) poststop(spec *specs.Spec) {
	if spec == nil || spec.Hooks == nil {
		return
	}
	// All of them run, whichever fails.
	for i, h := range spec.Hooks.Poststop {
		if err := runHook(h, c.hookState(spec, specs.StateStopped, 0)); err != nil && c.root.Warn != nil {
			c.root.Warn(fmt.Sprintf("warning: hooks.poststop[%d]: %v", i, err))
		}
	}
}

// runHooks runs them in their order, to the first that fails.
func runHooks(kind string, hooks []specs.Hook, state specs.State) error {
	for i, h := range hooks {
		if err := runHook(h, state); err != nil {
			return fmt.Errorf("hooks.%s[%d]: %w", kind, i, err)
		}
	}
	return nil
}

// runHook runs one, with its environment and no other. It reads from and
// prints to memory files: nothing that it leaves behind keeps us waiting.
func runHook(h specs.Hook, state specs.State) error {
	doc, err := json.Marshal(state)
	if err != nil {
		return err
	}
	in, err := memory("state")
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := in.WriteAt(doc, 0); err != nil {
		return err
	}
	out, err := memory("output")
	if err != nil {
		return err
	}
	defer out.Close()
	dir := ""
	if state.Status == specs.StateCreating {
		dir = state.Bundle // as runc has it; later it may be gone
	}
	fd := -1
	p, err := os.StartProcess(h.Path, launch.HookArgs(h), &os.ProcAttr{
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
			over, err := endsWithin(pidfd, time.Duration(min(*h.Timeout, longest))*time.Second)
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

func memory(name string) (*os.File, error) {
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
