// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/internal/uidmap"
)

// executable is the worker's name below the libexec directory.
const executable = "gantry-fetch"

// Time a worker may take for what needs no network and no bulk.
const (
	readyTime  = 30 * time.Second
	verifyTime = 2 * time.Minute
	mergeTime  = 15 * time.Minute
	// settleTime is for the last word after the last byte.
	settleTime = time.Minute
)

// process is one confined worker. Nothing it says is believed beyond what the
// parent can check; nothing it does can hold the parent longer than a time
// limit; it ends with its parent.
type process struct {
	kind   string
	conn   *wire.Conn
	proc   *os.Process
	said   *tail
	ended  chan struct{} // closed when it was reaped
	status error         // of Wait; valid after ended
	cancel func() bool

	mu    sync.Mutex
	until time.Time // what patience left it; zero for no limit
}

// launch starts a worker. files become descriptors 4, 5, …; the caller still
// closes its own.
func launch(ctx context.Context, libexec, kind string, files ...*os.File) (*process, error) {
	conn, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	p := &process{kind: kind, conn: conn, said: &tail{}, ended: make(chan struct{})}
	cmd := exec.Command(filepath.Join(libexec, executable), kind, strconv.Itoa(os.Getpid()), strconv.Itoa(len(files)))
	cmd.ExtraFiles = append([]*os.File{theirs}, files...)
	cmd.Env = environment(kind)
	cmd.Dir = "/"
	cmd.Stderr = p.said
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// Ctrl-C reaches gantry, which then decides; not its workers.
		Setpgid:   true,
		Pdeathsig: syscall.SIGKILL,
	}
	if kind != wire.Net {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC
	}
	if err := p.run(cmd); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start %s worker: %w", kind, err)
	}
	p.cancel = context.AfterFunc(ctx, p.kill)
	return p, nil
}

// run starts cmd and reaps it on one thread of its own: the kernel sends
// PDEATHSIG when the thread that forked ends, not when the process does.
func (p *process) run(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.proc = cmd.Process
		started <- nil
		p.status = cmd.Wait()
	}()
	return <-started
}

// environment is all a worker gets to know of ours. The runtime must not keep
// a descriptor open to watch cgroups: the worker closes what it did not get.
func environment(kind string) []string {
	env := []string{"GODEBUG=containermaxprocs=0,updatemaxprocs=0", "GOTRACEBACK=none"}
	if kind != wire.Net {
		return append(env, "GOMAXPROCS="+strconv.Itoa(min(2, runtime.NumCPU())))
	}
	for _, name := range []string{
		"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy",
		"SSL_CERT_FILE", "SSL_CERT_DIR",
	} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func (p *process) kill() { _ = p.proc.Kill() }

// stop ends the worker, whatever it does, and reaps it. It may be called again.
func (p *process) stop() {
	p.cancel()
	p.kill()
	<-p.ended
	p.conn.Close()
}

// begin gives a worker what it is to do, nothing where it knows, and waits until
// it is confined. One that has ended may have said why before: that is read
// first, and tells more than that it is gone.
func (p *process) begin(start any, files ...*os.File) error {
	if start != nil {
		err := p.conn.Send(wire.Message{Op: wire.OpStart, Body: wire.Body(start)}, files...)
		if err != nil && !hungUp(err) {
			return p.failure(err)
		}
	}
	return p.ready()
}

// ready waits until the worker says that it is confined, as the kernel
// confirmed to it.
func (p *process) ready() error {
	if err := p.conn.SetDeadline(time.Now().Add(readyTime)); err != nil {
		return err
	}
	m, _, err := p.conn.Recv(false)
	if err != nil {
		return p.failure(err)
	}
	var r wire.Ready
	if err := m.Decode(&r); err != nil || m.Op != wire.OpReady {
		return p.failure(wire.ErrProtocol)
	}
	if r.UID == 0 && !uidmap.Own().Sole() || !r.Seccomp || !r.NoNewPrivs {
		return p.failure(fmt.Errorf("it is not confined: %+v", r))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn.SetDeadline(p.until)
}

// order gives a worker its one order and waits for its one answer.
func (p *process) order(start any, within time.Duration, done any) error {
	if err := p.begin(start); err != nil {
		return err
	}
	if within > 0 {
		if err := p.conn.SetDeadline(time.Now().Add(within)); err != nil {
			return err
		}
	}
	m, _, err := p.conn.Recv(false)
	switch {
	case err != nil:
		return p.failure(err)
	case m.Op != wire.OpDone:
		return p.failure(wire.ErrProtocol)
	case m.Error != nil:
		return m.Error
	case done != nil:
		return m.Decode(done)
	}
	return nil
}

// failure explains why a conversation ended: what the worker died of, if it
// did, and the first of what it said.
func (p *process) failure(err error) error {
	if hungUp(err) {
		select {
		case <-p.ended:
			err = p.died()
		case <-time.After(settleTime):
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errors.New("it did not answer in time")
	}
	text := fmt.Sprintf("%s worker", p.kind)
	if said := p.said.String(); said != "" {
		return fmt.Errorf("%s: %w (it said: %s)", text, err, said)
	}
	return fmt.Errorf("%s: %w", text, err)
}

// hungUp tells whether an error of the conversation is that the other end left.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

func (p *process) died() error {
	var exit *exec.ExitError
	if !errors.As(p.status, &exit) {
		return errors.New("it ended without an answer")
	}
	ws, ok := exit.Sys().(syscall.WaitStatus)
	switch {
	case ok && ws.Signaled() && ws.Signal() == syscall.SIGSYS:
		return errors.New("it was killed for a system call it must not make: do not trust what it was reading")
	case ok && ws.Signaled() && ws.Signal() == syscall.SIGXCPU:
		return errors.New("it used up the processor time it may use")
	case strings.Contains(p.said.String(), "out of memory"):
		return errors.New("it used up the memory it may use")
	}
	return fmt.Errorf("it ended without an answer: %w", p.status)
}

// tail keeps the beginning of what a worker writes to its standard error and
// drops the rest, so that an endless one costs nothing.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 2 << 10
	t.b.Write(b[:min(len(b), most-min(most, t.b.Len()))])
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(wire.Clean(t.b.String(), 2<<10))
}

// patience gives a worker that is working on its order so long for the rest.
// A small layer is handed over before its worker says that it is ready, which
// must not lift the limit.
func (p *process) patience(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Now().Add(d)
	_ = p.conn.SetDeadline(p.until) // a closed socket has no need of it
}
