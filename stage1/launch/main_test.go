// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/stage1/launch"
	"github.com/gantryrun/gantry/tests/built"
)

// helperEnv makes the test binary a small gantry: it launches the request in
// the file named, on its main thread, and becomes the supervisor.
const helperEnv = "GANTRY_TEST_LAUNCH"

func init() { //nolint:gochecknoinits // only here is the main thread sure to be the caller
	if os.Getenv(helperEnv) != "" {
		runtime.LockOSThread()
	}
}

// libexec holds gantry-init and gantry-stage1, built once: those two only, and
// not by package built, so that a test of this package takes seconds.
var libexec string

func TestMain(m *testing.M) {
	if file := os.Getenv(helperEnv); file != "" {
		os.Exit(helper(file))
	}
	if libexec = os.Getenv(built.Env); libexec != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "gantry-launch-")
	if err == nil {
		libexec = dir
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func build(dir string) error {
	for _, name := range []string{"gantry-init", "gantry-stage1"} {
		cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, name), "../../cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
		if err := syncFile(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// syncFile writes a program out: its pages would count as dirty memory of the
// process that runs it.
func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// helperRequest is what a test asks the helper to do.
type helperRequest struct {
	Launch launch.Request
	Exec   *launch.ExecRequest
	Parts  map[string]part // by destination
}

// part is what of a directory is to be attached.
type part struct{ Dir, Sub string }

// given opens the directories of parts as an engine does.
func given(parts map[string]part) (map[string]launch.Given, error) {
	out := map[string]launch.Given{}
	for dest, p := range parts {
		fd, err := unix.OpenTree(unix.AT_FDCWD, p.Dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return nil, err
		}
		out[dest] = launch.Given{Mount: os.NewFile(uintptr(fd), p.Dir), Sub: p.Sub}
	}
	return out, nil
}

func helper(file string) int {
	if err := launchFile(file); err != nil {
		fmt.Fprintln(os.Stderr, "launch:", err)
		var e *launch.Error
		if errors.As(err, &e) {
			return e.ExitCode()
		}
		return 125
	}
	return 0
}

func launchFile(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var r helperRequest
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	if r.Exec != nil {
		s, err := launch.Exec(context.Background(), *r.Exec)
		if err != nil {
			return err
		}
		return s.Supervise()
	}
	if r.Launch.PodDir != "" {
		if r.Launch.Lock, err = flock.OpenDir(r.Launch.PodDir); err != nil {
			return err
		}
		if err := flock.TryExclusive(r.Launch.Lock); err != nil {
			return err
		}
	}
	if r.Launch.Given, err = given(r.Parts); err != nil {
		return err
	}
	s, err := launch.Start(context.Background(), r.Launch)
	if err != nil {
		return err
	}
	return s.Supervise()
}
