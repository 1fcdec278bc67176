// SPDX-License-Identifier: Apache-2.0

package child

import (
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// Exit codes of an app that could not be executed, as shells use them.
const (
	notExecutable = 126
	notFound      = 127
)

// exec becomes the app.
func (w *walk) exec(e *stage1.Exec) *stage1.StepError {
	if err := w.letGo(); err != nil {
		return failed("close descriptors", "", err)
	}
	path, serr := find(e.Args[0], e.Env)
	if serr != nil {
		return serr
	}
	if e.Apart != nil {
		return w.execApart(path, e)
	}
	if e.Init {
		return stayInit(path, e)
	}
	sync, err := w.place()
	if err != nil {
		return displaced(sync, failed("preserve descriptors", "", err))
	}
	unblockSignals()
	serr = execError(path, syscall.Exec(path, e.Args, e.Env))
	return displaced(sync, serr)
}

// letGo closes whatever is or may lead to a file. Close-on-exec comes too late:
// execve looks up the command, the interpreter of a script and the loader
// before, and an image may name them /proc/self/fd/N/../.. (CVE-2024-21626).
// The socket stays to report on, what has no place in a tree stays for the
// runtime, which dies without its poller, and what the caller wants preserved
// is its own responsibility. It happens before a filter is loaded: filters
// older than close_range(2) answer it with ENOSYS.
func (w *walk) letGo() error {
	if w.alone {
		return nil
	}
	w.alone = true
	// Covers what a library may have opened.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return err
	}
	const spare = 32 // opened since the start, lowest numbers first
	last := w.plan.Steps[len(w.plan.Steps)-1]
	keepSelf := last.Exec != nil && last.Exec.Init
	end := stage1.InitSources + len(w.plan.Sources) + spare
	for fd := 3; fd < end; fd++ {
		if fd == stage1.InitSync || keepSelf && fd == stage1.InitSelf || w.isPreserved(fd) {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == unix.EBADF || err == nil && st.Mode&unix.S_IFMT == 0 {
			continue
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return unix.CloseRange(uint(end), ^uint(0), 0)
}

// unblockSignals undoes what gantry did around the clone. Handlers of the
// runtime become default dispositions at execve; what the caller of gantry
// ignored (SIGHUP, SIGINT under nohup) stays ignored.
func unblockSignals() {
	var none unix.Sigset_t
	const size = 8 // of the kernel's sigset_t
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&none)), 0, size, 0, 0)
}

// find looks a command up as execvp does: in PATH of the app's environment,
// with the app's credentials, in the app's root.
func find(name string, env []string) (string, *stage1.StepError) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	denied := false
	for dir := range strings.SplitSeq(lookup(env, "PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + name
		err := executable(path)
		if err == nil {
			return path, nil
		}
		denied = denied || err == unix.EACCES
	}
	if denied {
		return "", &stage1.StepError{Step: "execute", Path: name, Errno: int(unix.EACCES), Code: notExecutable}
	}
	return "", &stage1.StepError{Step: "execute", Path: name, Text: "executable file not found in $PATH", Code: notFound}
}

func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil { //nolint:forbidigo // after pivot_root, / is the app's own
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EACCES
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// lookup is the last value of a variable, as getenv of the app would see it.
func lookup(env []string, key string) string {
	value := ""
	for _, entry := range env {
		if k, v, _ := strings.Cut(entry, "="); k == key {
			value = v
		}
	}
	return value
}

// execError tells a missing command from a missing interpreter and maps both
// to exit codes.
func execError(path string, err error) *stage1.StepError {
	e := failed("execute", path, err)
	e.Code = notExecutable
	if err == unix.ENOENT || err == unix.ENOTDIR {
		e.Code = notFound
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil { //nolint:forbidigo // after pivot_root, / is the app's own
			e.Code = notExecutable
			e.Text = "its interpreter or loader is missing in the image"
		}
	}
	return e
}
