// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// Hooks are for a launch that runs those of its bundle.
type Hooks struct {
	ID      string              // of the container, in the state they get
	Runtime func(pid int) error // runs prestart and createRuntime, when the process waits before its pivot_root
	Started func(pid int) error // runs poststart, when the app runs; for Start. Those of poststop are the supervisor's
	Root    string              // directory that the root is attached at, for the hooks alone: its path in the bundle
}

// list is the hooks of one kind.
type list struct {
	kind  string
	hooks []specs.Hook
}

func hookLists(h *specs.Hooks) []list {
	if h == nil {
		return nil
	}
	return []list{
		//nolint:staticcheck // deprecated, but bundles have it
		{"prestart", h.Prestart},
		{"createRuntime", h.CreateRuntime},
		{"createContainer", h.CreateContainer},
		{"startContainer", h.StartContainer},
		{"poststart", h.Poststart},
		{"poststop", h.Poststop},
	}
}

// checkHooks refuses what config.md, POSIX-platform Hooks, does.
func checkHooks(h *specs.Hooks) error {
	for _, l := range hookLists(h) {
		for i, hook := range l.hooks {
			field := fmt.Sprintf("hooks.%s[%d]", l.kind, i)
			switch {
			case !path.IsAbs(hook.Path):
				return fmt.Errorf("%s.path: %q is not absolute", field, hook.Path)
			case hook.Timeout != nil && *hook.Timeout <= 0:
				return fmt.Errorf("%s.timeout: %d is not greater than zero", field, *hook.Timeout)
			case strings.ContainsRune(hook.Path, 0):
				return fmt.Errorf("%s.path: contains a NUL byte", field)
			}
			if err := noNULs(map[string][]string{field + ".args": hook.Args, field + ".env": hook.Env}); err != nil {
				return err
			}
		}
	}
	return nil
}

// hooksBeforePivot tells whether hooks run that look for the root at its path
// on the host.
func hooksBeforePivot(h *specs.Hooks) bool {
	return runtimeHooks(h) || h != nil && len(h.CreateContainer) > 0
}

func runtimeHooks(h *specs.Hooks) bool {
	//nolint:staticcheck // deprecated, but bundles have it
	return h != nil && len(h.Prestart)+len(h.CreateRuntime) > 0
}

// createHooks come when everything is mounted and nothing is read-only yet,
// and before the sysctls: a hook may bring the interface that one is about.
func (p *planner) createHooks() error {
	if runtimeHooks(p.spec.Hooks) {
		p.add(stage1.Step{Wait: &stage1.Wait{Name: stage1.WaitHooks, Ask: true}})
	}
	if p.spec.Hooks == nil || len(p.spec.Hooks.CreateContainer) == 0 {
		return nil
	}
	step, err := p.hooks("createContainer", specs.StateCreating, p.spec.Hooks.CreateContainer)
	p.add(stage1.Step{Hooks: step})
	return err
}

// startHooks run with what the app is allowed and no more, its filter
// included: they are the image's programs. Those that wait for them here are
// not, and load the filter later if they can.
func (p *planner) startHooks(filter *stage1.Step) error {
	if p.apart != nil || p.spec.Hooks == nil || len(p.spec.Hooks.StartContainer) == 0 {
		return nil
	}
	step, err := p.hooks("startContainer", specs.StateCreated, p.spec.Hooks.StartContainer)
	if err != nil {
		return err
	}
	step.Inside = true
	if filter != nil {
		step.Seccomp = filter.Seccomp
	}
	p.add(stage1.Step{Hooks: step})
	return nil
}

func (p *planner) hooks(kind string, status specs.ContainerState, hooks []specs.Hook) (*stage1.Hooks, error) {
	state, err := json.Marshal(specs.State{
		Version: specs.Version, ID: p.o.Container, Status: status, Bundle: p.o.Bundle, Annotations: p.spec.Annotations,
	})
	if err != nil {
		return nil, fmt.Errorf("hooks.%s: %w", kind, err)
	}
	step := &stage1.Hooks{Kind: kind, State: string(state)}
	step.List = contractHooks(hooks)
	return step, nil
}

func contractHooks(hooks []specs.Hook) []stage1.Hook {
	var out []stage1.Hook
	for _, h := range hooks {
		hook := stage1.Hook{Path: h.Path, Args: HookArgs(h), Env: h.Env}
		if h.Timeout != nil {
			hook.Timeout = *h.Timeout
		}
		out = append(out, hook)
	}
	return out
}

// HookArgs is the argv of a hook; without any there is still its name.
func HookArgs(h specs.Hook) []string {
	if len(h.Args) == 0 {
		return []string{h.Path}
	}
	return h.Args
}

// created waits until the app holds. When gantry-init asks, interfaces move and
// hooks run; it asks for interfaces first.
func (s syncSocket) created(pid int, hooks *Hooks, devices func(pid int) error) (received, error) {
	got, err := s.wait(nil, nil)
	if err == nil && got.waits && devices != nil {
		err = s.answer(&got, stage1.WaitNetwork, pid, devices)
	}
	if err != nil || !got.waits || hooks == nil {
		return got, err
	}
	if got.child != nil {
		if pid, err = childOf(got.child); err != nil {
			return got, err
		}
	}
	err = s.runtimeHooks(nil, nil, hooks, pid, &got)
	return got, err
}

// runtimeHooks runs those that gantry-init waits for, if it does.
func (s syncSocket) runtimeHooks(signals *signals, h *handover, hooks *Hooks, pid int, got *received) error {
	if hooks == nil || !got.waits {
		return nil
	}
	if err := hooks.Runtime(pid); err != nil {
		return err
	}
	got.waits = false
	if _, err := unix.SendmsgN(s.fd, []byte(stage1.WaitHooks), nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("go on after the hooks: %w", err)
	}
	return s.waitMore(signals, h, got) // a terminal is made after the hooks
}

// StartHooks are those of a bundle for Start, which runs them itself.
func StartHooks(spec *specs.Spec, id, bundle string) *Hooks {
	if spec.Hooks == nil || !hasHooks(spec.Hooks) {
		return nil
	}
	state := specs.State{Version: specs.Version, ID: id, Status: specs.StateCreating, Bundle: bundle, Annotations: spec.Annotations}
	return &Hooks{
		ID: id, Root: path.Join(bundle, spec.Root.Path),
		Runtime: func(pid int) error {
			state.Pid = pid
			//nolint:staticcheck // deprecated, but bundles have it
			if err := RunHooks("prestart", spec.Hooks.Prestart, state); err != nil {
				return err
			}
			return RunHooks("createRuntime", spec.Hooks.CreateRuntime, state)
		},
		Started: func(pid int) error {
			state.Pid, state.Status = pid, specs.StateRunning
			return RunHooks("poststart", spec.Hooks.Poststart, state)
		},
	}
}

// leavePoststop has the supervisor run what comes when nothing is left.
func (s *Started) leavePoststop(r *Request) error {
	if r.Hooks == nil || r.Spec.Hooks == nil || len(r.Spec.Hooks.Poststop) == 0 {
		return nil
	}
	state, err := json.Marshal(specs.State{
		Version: specs.Version, ID: r.Hooks.ID, Status: specs.StateStopped, Bundle: r.Bundle, Annotations: r.Spec.Annotations,
	})
	s.contract.Poststop, s.contract.HookState = contractHooks(r.Spec.Hooks.Poststop), string(state)
	return err
}

// answer does what gantry-init waits for, given the pid of who becomes the app,
// lets it go on, and hears more.
func (s syncSocket) answer(got *received, name string, pid int, do func(pid int) error) error {
	var err error
	if got.child != nil {
		if pid, err = childOf(got.child); err != nil {
			return err
		}
	}
	if err := do(pid); err != nil {
		return err
	}
	got.waits = false
	if _, err := unix.SendmsgN(s.fd, []byte(name), nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("go on with the %s: %w", name, err)
	}
	return s.waitMore(nil, nil, got)
}
