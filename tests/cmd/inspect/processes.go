// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/mainthread"
)

func exit(args []string) (int, error) {
	return number(args, 0)
}

// die ends this process by a signal, past any handler of the Go runtime.
func die(args []string) (int, error) {
	n, err := number(args, int(unix.SIGKILL))
	if err != nil {
		return 2, err
	}
	sig := syscall.Signal(n)
	signal.Reset(sig)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return 1, err
	}
	if err := unix.Kill(os.Getpid(), sig); err != nil {
		return 1, err
	}
	forever()
	return 1, nil
}

// wait says that it is there, prints each signal it gets, and leaves with
// status 0 at SIGTERM and with N, if given, at SIGUSR2.
func wait(args []string) (int, error) {
	status, err := number(args, 0)
	if err != nil {
		return 2, err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals)
	fmt.Println("ready")
	for s := range signals {
		sig, ok := s.(syscall.Signal)
		if !ok || sig == unix.SIGURG || sig == unix.SIGCHLD {
			continue
		}
		fmt.Println(unix.SignalName(sig))
		switch sig {
		case unix.SIGTERM, unix.SIGINT, unix.SIGQUIT:
			return 0, nil
		case unix.SIGUSR2:
			return status, nil
		}
	}
	return 1, nil
}

// stubborn ignores every signal that can be ignored and clears the signal its
// parent's death would send.
func stubborn([]string) (int, error) {
	signal.Ignore()
	var err error
	// It is the first thread's: the scheduler may have moved us to another.
	mainthread.Run(func() { err = unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) })
	if err != nil {
		return 1, err
	}
	fmt.Println("ready")
	forever()
	return 0, nil
}

// headless ends its first thread and lives on in the others, and then says
// which process it is.
func headless([]string) (int, error) {
	signal.Ignore()
	go mainthread.Run(func() { _, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0) })
	for {
		b, err := os.ReadFile("/proc/self/stat")
		if err != nil {
			return 1, err
		}
		if bytes.Contains(b, []byte(") Z ")) {
			break
		}
		runtime.Gosched()
	}
	fmt.Println(os.Getpid())
	forever()
	return 0, nil
}

// fork starts N children that exit at once and tells how many ended well.
func fork(args []string) (int, error) {
	n, err := number(args, 1)
	if err != nil {
		return 2, err
	}
	started, refused := 0, ""
	var children []*exec.Cmd
	for range n {
		cmd := exec.Command("/proc/self/exe", "cat")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			refused = err.Error()
			break
		}
		if err := cmd.Start(); err != nil {
			refused = errnoName(err)
			break
		}
		defer stdin.Close()
		started++
		children = append(children, cmd)
	}
	for _, c := range children {
		c.Process.Kill()
		c.Wait()
	}
	return printJSON(map[string]any{"started": started, "refused": refused})
}

// orphan leaves a grandchild behind that outlives its parent, says its number,
// and then waits as wait does.
func orphan(args []string) (int, error) {
	if len(args) > 0 && args[0] == "middle" {
		cmd := exec.Command("/proc/self/exe", "stubborn")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return 1, err
		}
		fmt.Println("orphan", cmd.Process.Pid)
		return 0, nil
	}
	middle := exec.Command("/proc/self/exe", "orphan", "middle")
	middle.Stdout = os.Stdout
	if err := middle.Run(); err != nil {
		return 1, err
	}
	return wait(args)
}

// zombies makes N orphans that end at once and waits until somebody has reaped
// them all: as PID 1 nobody does, under an init it returns.
func zombies(args []string) (int, error) {
	n, err := number(args, 10)
	if err != nil {
		return 2, err
	}
	for range n {
		out, err := exec.Command("/bin/sh", "-c", "(sh -c 'exit 0' & echo $!)").Output()
		if err != nil {
			return 1, err
		}
		pid, err := strconv.Atoi(string(out[:len(out)-1]))
		if err != nil {
			return 1, err
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // gone and reaped already
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, 5000); err != nil {
			return 1, err
		}
		unix.Close(fd)
	}
	count := 0
	for _, pid := range processes() {
		if status, err := readStatus("/proc/" + pid + "/status"); err == nil && status["State"] == "Z (zombie)" {
			count++
		}
	}
	return printJSON(map[string]int{"zombies": count})
}

// hog touches N megabytes and says so.
func hog(args []string) (int, error) {
	n, err := number(args, 64)
	if err != nil {
		return 2, err
	}
	b, err := unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 1, err
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	fmt.Println("held", n)
	return 0, nil
}

// spin burns one CPU until it is killed.
func spin([]string) (int, error) {
	fmt.Println("ready")
	for n := 0; ; n++ {
		runtime.KeepAlive(n)
	}
}

// notify waits for N bytes on stdin, which lets a test order two containers.
func notify(args []string) (int, error) {
	n, err := number(args, 1)
	if err != nil {
		return 2, err
	}
	b := make([]byte, n)
	if _, err := os.Stdin.Read(b); err != nil {
		return 1, err
	}
	fmt.Printf("got %q\n", b)
	return 0, nil
}

func setHostname(args []string) (int, error) {
	if err := want(args, 1, "hostname NAME"); err != nil {
		return 2, err
	}
	return 0, unix.Sethostname([]byte(args[0]))
}

func setLimit(args []string) (int, error) {
	n, err := number(args, 1<<20)
	if err != nil {
		return 2, err
	}
	l := unix.Rlimit{Cur: uint64(n), Max: uint64(n)}
	return 0, unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
}

func tty([]string) (int, error) {
	out := map[string]any{}
	for fd, name := range []string{"stdin", "stdout", "stderr"} {
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		out[name] = err == nil
	}
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		out["rows"], out["cols"] = size.Row, size.Col
	}
	if fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		out["controlling"] = true
		unix.Close(fd)
	}
	if name, err := os.Readlink("/proc/self/fd/0"); err == nil {
		out["name"] = name
	}
	return printJSON(out)
}

// forever sleeps in the kernel: an empty select would be a deadlock to the Go
// runtime once signals are ignored.
func forever() {
	for {
		var set unix.Timespec
		set.Sec = 1 << 30
		_, _, _ = unix.Syscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&set)), 0, 0)
	}
}
