// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/internal/atomicfile"
	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

// Bounds of what is kept of probes, as podman has them.
const (
	healthName    = "health.json" // below apps/<app>
	healthVersion = 1
	maxProbes     = 5
	maxProbeText  = 500
)

// States of health.
const (
	HealthStarting  = "starting" // no probe has decided yet
	HealthHealthy   = "healthy"
	HealthUnhealthy = "unhealthy"
)

// Health is what probes found of an app.
type Health struct {
	Version int     `json:"version"`
	Status  string  `json:"status"`
	Failing int     `json:"failing"` // in a row
	Log     []Probe `json:"log"`     // the last five
}

// Probe is one.
type Probe struct {
	Start  time.Time `json:"start"`
	End    time.Time `json:"end"`
	Exit   int       `json:"exit"`
	Output string    `json:"output"` // its beginning
}

// ErrUnhealthy is of a probe that failed.
var ErrUnhealthy = errors.New("unhealthy")

// CheckHealth probes a running pod once, in its app's sandbox, and keeps the
// result. A probe that fails is ErrUnhealthy, whatever the pod's state is
// then.
func CheckHealth(ctx context.Context, e Env, id string) (Health, error) {
	p, err := e.find(id)
	if err != nil {
		return Health{}, err
	}
	defer p.Close()
	proc, err := running(p)
	if err != nil {
		return Health{}, err
	}
	proc.close()
	r, err := e.reread(p)
	if err != nil {
		return Health{}, err
	}
	c := r.launch.Health
	if c == nil {
		return Health{}, hint.With(fmt.Errorf("pod %s has no health check", pod.Short(p.UUID)), "give one to run: --health-cmd")
	}
	app, err := os.OpenRoot(path.Join(p.Path(), stage1.AppsDir, appName))
	if err != nil {
		return Health{}, fmt.Errorf("pod %s: %w", pod.Short(p.UUID), err)
	}
	defer app.Close()
	return e.checkHealth(ctx, p, app, *c)
}

// checkHealth probes while it has the lock: two probes come one after the
// other, and none is lost.
func (e Env) checkHealth(ctx context.Context, p *pod.Pod, app *os.Root, c bundle.Health) (Health, error) {
	lock, err := app.OpenFile("health.lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return Health{}, fmt.Errorf("keep health: %w", err)
	}
	defer lock.Close()
	if err := flock.Exclusive(lock); err != nil {
		return Health{}, fmt.Errorf("keep health: %w", err)
	}
	st, err := readStatus(p)
	if err != nil {
		return Health{}, err
	}
	h, err := readHealth(p)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Health{}, err
	}
	old, was := age(st), h.Status
	probe := e.probe(ctx, p.UUID, c)
	h.add(probe, c, old)
	b, err := encode(h)
	if err != nil {
		return h, err
	}
	if err := atomicfile.Write(app, healthName, b, 0o600); err != nil {
		return h, fmt.Errorf("keep health: %w", err)
	}
	if h.Status == HealthUnhealthy && was != HealthUnhealthy {
		if err := onFailure(p, c.OnFailure); err != nil {
			return h, err
		}
	}
	if probe.Exit != 0 {
		return h, ErrUnhealthy
	}
	return h, nil
}

// age is how long ago an app was started, whatever the clock was set to since.
func age(st stage1.Status) time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano()) - time.Duration(st.Start)*time.Second/userHZ
}

// add takes a probe into account that began when the app was so old: one that
// succeeds makes it healthy; so many that fail in a row make it unhealthy, where
// those of the time it may take to start do not count.
func (h *Health) add(p Probe, c bundle.Health, old time.Duration) {
	h.Version = healthVersion
	if h.Log = append(h.Log, p); len(h.Log) > maxProbes {
		h.Log = h.Log[len(h.Log)-maxProbes:]
	}
	switch {
	case p.Exit == 0:
		h.Status, h.Failing = HealthHealthy, 0
		return
	case h.Status == "":
		h.Status = HealthStarting
	}
	if h.Status == HealthStarting && old < c.StartPeriod {
		return
	}
	if h.Failing++; h.Failing >= c.Retries {
		h.Status = HealthUnhealthy
	}
}

// probe runs the command as exec does, in a process group of its own, which is
// killed when its time is over: what runs inside dies with who started it.
func (e Env) probe(ctx context.Context, uuid string, c bundle.Health) Probe {
	p := Probe{Start: time.Now().UTC()}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	exe, err := os.Executable()
	if err != nil {
		p.Exit, p.Output = 125, err.Error()
		return p
	}
	cmd := exec.Command(exe, append(append(e.Args(), "exec", uuid, "--"), c.Command...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	text := &head{}
	r, w, err := os.Pipe()
	if err != nil {
		p.Exit, p.Output = 125, err.Error()
		return p
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		_ = r.Close()
		p.Exit, p.Output = 125, err.Error()
		return p
	}
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })
	read := make(chan struct{})
	go func() { defer close(read); _, _ = io.Copy(text, r) }()
	err = cmd.Wait()
	stop()
	// What the command left running may hold the pipe: it is not waited for.
	_ = r.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	<-read
	_ = r.Close()
	p.End = time.Now().UTC()
	p.Output = strings.ToValidUTF8(string(text.b), "�")
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		p.Exit, p.Output = 1, strings.TrimSpace(p.Output+"\nkilled: it took longer than "+c.Timeout.String())
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		p.Exit = exit.ExitCode()
	case err != nil:
		p.Exit = 1
	}
	return p
}

// head keeps the beginning of what is written to it.
type head struct{ b []byte }

func (h *head) Write(b []byte) (int, error) {
	h.b = append(h.b, b[:min(len(b), maxProbeText-len(h.b))]...)
	return len(b), nil
}

// onFailure does what was asked for when an app became unhealthy.
func onFailure(p *pod.Pod, action string) error {
	op := stage1.Request{Op: stage1.OpSignal, Signal: int(unix.SIGKILL)}
	switch action {
	case "kill":
	case "stop":
		op = stage1.Request{Op: stage1.OpStop}
	default:
		return nil
	}
	client, err := launch.Dial(p.File())
	if err != nil {
		return fmt.Errorf("--health-on-failure %s: %w", action, err)
	}
	defer client.Close()
	op.Version = stage1.ControlVersion
	_, err = client.Ask(op)
	return err
}

// readHealth reads what probes found.
func readHealth(p *pod.Pod) (Health, error) {
	var h Health
	err := readJSON(p, path.Join(stage1.AppsDir, appName, healthName), maxStatus, healthVersion, &h)
	return h, err
}

// probeCommand is how the supervisor has the health probed.
func (e Env) probeCommand(r *ready) ([]string, time.Duration, error) {
	if r.launch.Health == nil || r.launch.Health.Interval == 0 {
		return nil, 0, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, 0, fmt.Errorf("find our own executable: %w", err)
	}
	return append(append([]string{exe}, e.Args()...), "healthcheck", "run", r.pod.UUID), r.launch.Health.Interval, nil
}

func imageHealth(h *image.Healthcheck) *bundle.ImageHealth {
	if h == nil {
		return nil
	}
	return &bundle.ImageHealth{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries}
}
