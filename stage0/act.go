// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/network"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

// process is a handle on an app's first process that cannot come to mean
// another one: the number was checked against its start time after the handle
// was taken.
type process struct {
	pid   int
	pidfd int
}

func (p process) close() { _ = unix.Close(p.pidfd) }

func (p process) signal(n int) error {
	err := unix.PidfdSendSignal(p.pidfd, unix.Signal(n), nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil // it ended first, which is what signals are for
	}
	return err
}

// over tells whether it has ended, and only waits to be collected.
func (p process) over() bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}, 0)
	return err == nil && n == 1
}

// openProcess opens the app of a running pod. An app that has ended is not an
// error of the caller's: ok is false.
func openProcess(p *pod.Pod) (proc process, ok bool, err error) {
	st, err := appStatus(p)
	if err != nil {
		return process{}, false, fmt.Errorf("pod %s: %w", pod.Short(p.UUID), err)
	}
	if st.Pid <= 0 || st.Finished != 0 {
		return process{}, false, nil
	}
	fd, err := unix.PidfdOpen(st.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return process{}, false, nil
	}
	if err != nil {
		return process{}, false, fmt.Errorf("open process %d of pod %s: %w", st.Pid, pod.Short(p.UUID), err)
	}
	proc = process{st.Pid, fd}
	if start, err := startTime(st.Pid); err != nil || start != st.Start {
		proc.close()
		return process{}, false, nil
	}
	return proc, true, nil
}

// appStatus is the status of a running app; one that is damaged is asked of the
// supervisor: a pod must always be stoppable.
func appStatus(p *pod.Pod) (stage1.Status, error) {
	st, err := readStatus(p)
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, pod.ErrVersion) {
		return st, err
	}
	c, dialErr := launch.Dial(p.File())
	if dialErr != nil {
		return st, err
	}
	defer c.Close()
	reply, askErr := c.Ask(stage1.Request{Version: stage1.ControlVersion, Op: stage1.OpStatus})
	if told, ok := reply.Apps[appName]; ok && askErr == nil {
		return told, nil
	}
	return st, err
}

// startTime is field 22 of /proc/PID/stat, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(path.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	s, err := parseStat(string(b))
	return s.start, err
}

func stop(ctx context.Context, e Env, id string, o StopOptions) error {
	p, err := e.find(id)
	if err != nil {
		return err
	}
	defer p.Close()
	return e.stopPod(ctx, p, o)
}

// stopPod ends a running pod and waits until its lock is free, which is when
// everything is released.
func (e Env) stopPod(ctx context.Context, p *pod.Pod, o StopOptions) error {
	state, err := p.State()
	if errors.Is(err, pod.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	switch state {
	case pod.Running:
	case pod.Creating, pod.Preparing, pod.Starting:
		// It would run after all, and who stopped it think that it does not.
		return hint.With(fmt.Errorf("stop pod %s: it is being started: %w", pod.Short(p.UUID), ErrBusy), "try again when it runs, or end who starts it")
	default:
		return nil
	}
	signal, timeout := stopSettings(p)
	if o.Timeout != nil {
		timeout = *o.Timeout
	}
	over := freed(p)
	if timeout > 0 {
		if err := signalApp(p, signal); err != nil {
			return err
		}
		soft, cancel := context.WithTimeout(ctx, timeout)
		err := over.wait(soft)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	if err := signalApp(p, int(unix.SIGKILL)); err != nil {
		return err
	}
	return e.waitKilled(ctx, p, over)
}

// killPatience is how long a killed app may take to be reaped and recorded
// before its whole group is killed and its supervisor is given up.
const killPatience = 5 * time.Second

// waitKilled waits for the end after SIGKILL. Where processes of the app
// outside its pid namespace, or a supervisor that hangs, delay it, the group
// is killed, then the supervisor.
func (e Env) waitKilled(ctx context.Context, p *pod.Pod, over end) error {
	for _, harder := range []func(stage1.Runtime) error{
		func(rt stage1.Runtime) error { return cgroups.KillAll(rt.Cgroups) },
		func(rt stage1.Runtime) error { return killSupervisor(p, rt.Supervisor) },
	} {
		soft, cancel := context.WithTimeout(ctx, killPatience)
		err := over.wait(soft)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if rt, err := readRuntime(p); err == nil {
			if err := harder(rt); err != nil {
				return err
			}
		}
	}
	if err := over.wait(ctx); err != nil {
		return err
	}
	_, err := e.sweepCrashed(p)
	return ignoreGone(err)
}

// killSupervisor kills the process that holds the pod: as long as the lock is
// held, and the process has the pod's directory open, the number is its.
func killSupervisor(p *pod.Pod, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return ignoreGone(err)
	}
	defer unix.Close(fd)
	if !holds(pid, p.UUID) {
		return nil
	}
	return ignoreGone(unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
}

// holds says whether a process has the pod's directory open.
func holds(pid int, uuid string) bool {
	dir := path.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if target, err := os.Readlink(path.Join(dir, fd.Name())); err == nil && strings.HasSuffix(target, "/"+uuid) {
			return true
		}
	}
	return false
}

// ignoreGone drops errors that say that it is over already.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, pod.ErrNotFound) {
		return nil
	}
	return err
}

// stopSettings are the pod's stop signal and time-out, or the defaults when
// its record cannot be read: a pod must always be stoppable.
func stopSettings(p *pod.Pod) (int, time.Duration) {
	var l launchFile
	if err := readJSON(p, path.Join(stage1.AppsDir, appName, launchName), maxConfig, launchVersion, &l); err != nil {
		return int(unix.SIGTERM), 10 * time.Second
	}
	n, err := bundle.SignalNumber(l.StopSignal)
	if err != nil {
		n = int(unix.SIGTERM)
	}
	return n, time.Duration(l.StopTimeout) * time.Second
}

func signalApp(p *pod.Pod, n int) error {
	proc, ok, err := openProcess(p)
	if errors.Is(err, os.ErrNotExist) {
		return nil // its end was recorded and it left meanwhile
	}
	if err != nil || !ok {
		return err
	}
	defer proc.close()
	return signalProcess(p, proc, n)
}

// signalProcess signals a pod's app. Where an ordinary user is root of the user
// namespace of another pod, the app's user is out of reach, but not of the app's
// own supervisor.
func signalProcess(p *pod.Pod, proc process, n int) error {
	err := proc.signal(n)
	if errors.Is(err, unix.EPERM) {
		if err = askSignal(p, n); err != nil && proc.over() {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("signal pod %s: %w", pod.Short(p.UUID), err)
	}
	return nil
}

// askSignal has a pod's supervisor signal its app.
func askSignal(p *pod.Pod, n int) error {
	c, err := launch.Dial(p.File())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Ask(stage1.Request{Version: stage1.ControlVersion, Op: stage1.OpSignal, Signal: n})
	return err
}

func kill(e Env, id, signal string) error {
	n, err := bundle.SignalNumber(signal)
	if err != nil {
		return err
	}
	p, err := e.find(id)
	if err != nil {
		return err
	}
	defer p.Close()
	proc, err := running(p)
	if err != nil {
		return err
	}
	defer proc.close()
	return signalProcess(p, proc, n)
}

// running opens the process of an app that runs; one that does not is an
// error: ErrNotRunning.
func running(p *pod.Pod) (process, error) {
	state, err := p.State()
	if err != nil {
		return process{}, err
	}
	if state == pod.Running {
		if proc, ok, err := openProcess(p); ok || err != nil {
			return proc, err
		}
	}
	return process{}, fmt.Errorf("pod %s %w", pod.Short(p.UUID), ErrNotRunning)
}

func remove(ctx context.Context, e Env, id string, o RemoveOptions) error {
	p, err := e.find(id)
	if err != nil {
		return err
	}
	defer p.Close()
	return e.removePod(ctx, p, o)
}

// removePod deletes a pod that does not run, or with force one that does.
func (e Env) removePod(ctx context.Context, p *pod.Pod, o RemoveOptions) error {
	state, err := p.State()
	if err != nil {
		return ignoreGone(err)
	}
	if state == pod.Running && !ending(p) {
		if !o.Force {
			return hint.With(fmt.Errorf("pod %s is running", pod.Short(p.UUID)), "stop it first, or use --force")
		}
		if err := e.stopPod(ctx, p, o.StopOptions); err != nil {
			return err
		}
	}
	if err := lockSoon(ctx, p); err != nil {
		if errors.Is(err, pod.ErrBusy) {
			return fmt.Errorf("remove pod %s: %w", pod.Short(p.UUID), ErrBusy)
		}
		return ignoreGone(err)
	}
	err = e.destroy(p)
	var stuck *network.Stuck
	if o.Force && errors.As(err, &stuck) {
		if err := network.Forget(p.Path()); err != nil {
			return err
		}
		err = e.destroy(p)
	}
	return err
}

// ending tells whether the app of a pod that somebody has is over: its supervisor
// is at work on its last things, or was killed and is being taken down.
func ending(p *pod.Pod) bool {
	proc, ok, err := openProcess(p)
	if ok {
		ok = !proc.over()
		proc.close()
	}
	return err == nil && !ok
}

// busyPatience is how long a removal waits for who has the pod: longer than
// sweeping it takes, shorter than an app runs.
const busyPatience = time.Second

// lockSoon makes the caller the pod's owner, as soon as one who has it only
// for a moment gives it up.
func lockSoon(ctx context.Context, p *pod.Pod) error {
	soft, cancel := context.WithTimeout(ctx, busyPatience)
	defer cancel()
	err := p.TryLock()
	for errors.Is(err, pod.ErrBusy) {
		if waitFree(soft, p) != nil {
			return err
		}
		err = p.TryLock()
	}
	return err
}
