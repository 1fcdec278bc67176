// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1/launch"
)

// enter runs a command inside a pod. This process becomes the command's
// supervisor, so it returns only on failure; detached it starts another that
// does, and returns when the command runs.
func enter(ctx context.Context, e Env, id string, o ExecOptions) (int, error) {
	if o.Detach {
		return 0, e.detachExec(id, o)
	}
	report, err := reporter(o.ReadyFD)
	if err != nil {
		return 0, err
	}
	if err = e.enter(ctx, id, o, report); err != nil && report != nil {
		report.fail(err)
	}
	return 0, err
}

// detachExec starts a gantry in a session of its own for the command.
func (e Env) detachExec(id string, o ExecOptions) error {
	if o.TTY || o.Interactive {
		return fmt.Errorf("exec: --detach cannot be combined with --tty or --interactive")
	}
	args := append(e.Args(), "exec", fmt.Sprintf("--ready-fd=%d", readyFD))
	for _, f := range []struct {
		flag   string
		values []string
	}{{"--env", o.Env}, {"--env-file", o.EnvFiles}, {"--user", some(o.User)}, {"--workdir", some(o.Workdir)}, {"--pidfile", some(o.PidFile)}} {
		for _, v := range f.values {
			args = append(args, f.flag+"="+v)
		}
	}
	args = append(append(args, id, "--"), o.Command...)
	return spawn(args, nil, nil, LaunchOptions{})
}

// some is a list of s, or of nothing when it is empty.
func some(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func (e Env) enter(ctx context.Context, id string, o ExecOptions, report *readiness) error {
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
	r, err := e.reread(p)
	if err != nil {
		return err
	}
	st, err := appStatus(p)
	if err != nil {
		return err
	}
	rt, err := readRuntime(p)
	if err != nil {
		return err
	}
	what, err := execProcess(r.spec, proc.pid, o)
	if err != nil {
		return err
	}
	q := launch.ExecRequest{
		Userns: e.user,
		ID:     p.UUID, Spec: r.spec, Process: what, Status: st, Cgroups: rt.Cgroups,
		Libexec: e.Libexec, RunDir: e.RunDir,
		Detached: report != nil, Terminal: o.TTY, Stdin: o.Interactive, PidFile: o.PidFile,
	}
	if report != nil {
		q.Ready = report.ready
	}
	s, err := launch.Exec(ctx, q)
	if errors.Is(err, launch.ErrNotRunning) {
		return fmt.Errorf("pod %s %w", pod.Short(p.UUID), ErrNotRunning) // it ended meanwhile
	}
	if err != nil {
		return err
	}
	return s.Supervise()
}

// execProcess is what runs inside: the app's process but for what was asked.
// Privileges are no part of it: they are the app's, by stage1's word.
func execProcess(spec *specs.Spec, pid int, o ExecOptions) (*specs.Process, error) {
	if len(o.Command) > 0 && o.Command[0] == "" {
		return nil, bundle.EmptyCommand()
	}
	what := *spec.Process
	what.Args, what.Terminal = o.Command, o.TTY
	base := what.Env
	if o.User != "" {
		u, err := execUser(pid, o.User)
		if err != nil {
			return nil, err
		}
		what.User = specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups, Umask: what.User.Umask}
		base = append(append([]string{}, base...), "HOME="+u.Home)
	}
	if o.TTY && !hasVariable(base, "TERM") {
		base = append(append([]string{}, base...), "TERM=xterm")
	}
	var files [][]byte
	for _, name := range o.EnvFiles {
		b, err := readHostFile(name)
		if err != nil {
			return nil, fmt.Errorf("--env-file: %w", err)
		}
		files = append(files, b)
	}
	var err error
	if what.Env, err = bundle.MergeEnv(base, o.Env, os.Environ(), files); err != nil {
		return nil, err
	}
	if o.Workdir != "" {
		if !path.IsAbs(o.Workdir) {
			return nil, fmt.Errorf("--workdir %q: it must be an absolute path", o.Workdir)
		}
		what.Cwd = path.Clean(o.Workdir)
	}
	return &what, nil
}

func hasVariable(env []string, name string) bool {
	for _, kv := range env {
		if strings.HasPrefix(kv, name+"=") {
			return true
		}
	}
	return false
}

// execUser resolves a user by the files the app has now. They are the app's
// word: read inside its root, regular, of bounded size.
func execUser(pid int, user string) (bundle.User, error) {
	root, err := os.Open(path.Join("/proc", strconv.Itoa(pid), "root"))
	if err != nil {
		return bundle.User{}, fmt.Errorf("open the app's root: %w", err)
	}
	defer root.Close()
	files, err := imageFiles(root)
	if err != nil {
		return bundle.User{}, err
	}
	u, err := bundle.ParseUser(user, nil, files)
	if err != nil {
		return bundle.User{}, fmt.Errorf("--user: %w", err)
	}
	return u, nil
}
