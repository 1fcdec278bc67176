// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// Holder is a process that does nothing: the first one of a group that exists
// only with a process in it, until the app is born there.
type Holder struct {
	Pid int
	end *os.File // it lives until this is closed, also by our end
}

// StartHolder starts one.
func StartHolder(libexec string) (*Holder, error) {
	init, err := openInit(libexec)
	if err != nil {
		return nil, err
	}
	defer init.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer unix.Close(pipe[0])
	h := &Holder{end: os.NewFile(uintptr(pipe[1]), "holder")}
	h.Pid, err = syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", init.Fd()), []string{"gantry-init", stage1.HoldArg}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1", "GOGC=off", "GOTRACEBACK=none"},
		Files: []uintptr{uintptr(pipe[0]), null.Fd(), null.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		_ = h.end.Close()
		return nil, fmt.Errorf("start gantry-init: %w", err)
	}
	return h, nil
}

// Release ends it, and returns when it has left its group. It may be called
// more than once.
func (h *Holder) Release() {
	if h.Pid == 0 {
		return
	}
	_ = h.end.Close()
	reap(h.Pid)
	h.Pid = 0
}
