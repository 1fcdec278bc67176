// SPDX-License-Identifier: Apache-2.0

package child

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// InitArg is the first argument of gantry-init when it stays as process 1.
const InitArg = "stay"

// stayInit executes gantry-init again through its own descriptor: process 1
// then has nothing but the app's sandbox, on all of its threads.
func stayInit(path string, e *stage1.Exec) *stage1.StepError {
	for _, fd := range []int{stage1.InitSync, stage1.InitSelf} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return failed("stay as init", "", err)
		}
	}
	args := append([]string{"gantry-init", InitArg, path}, e.Args...)
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return failed("stay as init", "", err)
	}
	envv, err := syscall.SlicePtrFromStrings(e.Env)
	if err != nil {
		return failed("stay as init", "", err)
	}
	empty := [1]byte{}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, stage1.InitSelf, uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	runtime.KeepAlive(argv)
	runtime.KeepAlive(envv)
	return failed("stay as init", "", errno)
}

// Stay is process 1 of a pod run with --init: it starts the app, forwards
// signals to it, reaps whatever it inherits, and returns the app's exit
// status, 128+n if it died by a signal.
func Stay(path string, args []string) int {
	rename()
	unix.CloseOnExec(stage1.InitSync)
	_ = unix.Close(stage1.InitSelf)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	unblockSignals()
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		e := execError(path, err)
		send(stage1.Message{Error: e}, -1)
		return e.Code
	}
	// From here on the parent takes the app for started.
	_ = unix.Close(stage1.InitSync)
	return serve(pid, signals)
}

// Keep is process 1 of a pid namespace with one program in it, which ends with
// us: the kernel kills what is left of a namespace when its first process is
// gone. The program's own death signal would not do, since a label that an
// execve changes clears it (AppArmor, SELinux).
func Keep(path string, args []string) int {
	rename()
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	unblockSignals()
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		return execError(path, err).Code
	}
	return serve(pid, signals)
}

func serve(app int, signals <-chan os.Signal) int {
	for s := range signals {
		n, ok := s.(syscall.Signal)
		switch {
		case !ok || n == unix.SIGURG: // the Go runtime's own
		case n == unix.SIGCHLD:
			if code, ended := reap(app); ended {
				return code
			}
		default:
			// It may have ended this moment; SIGCHLD tells.
			_ = unix.Kill(app, n)
		}
	}
	return 0
}

// reap collects all ended children and tells how the app ended, if it did.
func reap(app int) (code int, ended bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid == app {
			code, ended = status.ExitStatus(), true
			if status.Signaled() {
				code = 128 + int(status.Signal())
			}
		}
	}
}
