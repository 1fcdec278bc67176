// SPDX-License-Identifier: Apache-2.0

// Package gantry drives one throw-away installation of the real executables
// from Go tests: a store and a policy of its own.
package gantry

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantryrun/gantry/tests/built"
	"github.com/gantryrun/gantry/tests/imagetest"
	"github.com/gantryrun/gantry/tests/testkey"
)

// Host is an installation under a temporary directory.
type Host struct {
	t         testing.TB
	bin       string
	Dir       string   // of everything
	Env       []string // besides the process's own
	layout    string
	networked bool // it has its default network
}

// Result is how a command ended.
type Result struct {
	Status         int
	Stdout, Stderr string
	Killed         bool // at the time limit
}

// New makes an installation whose key is trusted for its layout, and removes
// its pods at the end of the test.
func New(t testing.TB) *Host {
	t.Helper()
	dir := t.TempDir()
	h := &Host{t: t, bin: built.Dir(t), Dir: dir, layout: filepath.Join(dir, "oci")}
	h.Env = []string{
		"GANTRY_DIR=" + filepath.Join(dir, "lib"), "GANTRY_RUN_DIR=" + filepath.Join(dir, "run"),
		"GANTRY_CONFIG_PATH=" + filepath.Join(dir, "etc"), "COSIGN_PASSWORD=",
	}
	if err := os.MkdirAll(filepath.Join(dir, "etc", "trust.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(h.mask()), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.mask(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := testkey.Write(h.Key()); err != nil {
		t.Fatal(err)
	}
	h.Must("trust", "add", "--prefix", "oci:"+h.layout, h.Key()+".pub")
	t.Cleanup(h.clean)
	return h
}

// mask takes the default network away: it would change the host's network.
func (h *Host) mask() string { return filepath.Join(h.Dir, "etc", "net.d", "default.conflist") }

// Networked gives the installation its default network, whose bridge is taken
// away at the end.
func (h *Host) Networked() {
	h.t.Helper()
	if err := os.Remove(h.mask()); err != nil {
		h.t.Fatal(err)
	}
	h.networked = true
}

// Key is the path of the key pair without its ending.
func (h *Host) Key() string { return filepath.Join(h.Dir, "key") }

// Ref names an image of the layout.
func (h *Host) Ref(name string) string { return "oci:" + h.layout + ":" + name }

// Add writes an image into the layout and signs it, in whatever state it is.
func (h *Host) Add(name string, image imagetest.Image) string {
	h.t.Helper()
	if _, err := image.Write(h.layout, name); err != nil {
		h.t.Fatal(err)
	}
	return h.Ref(name)
}

// Signed also signs it.
func (h *Host) Signed(name string, image imagetest.Image) string {
	h.t.Helper()
	ref := h.Add(name, image)
	h.Must("sign", "--key", h.Key()+".key", ref)
	return ref
}

// Program is the path of a test program.
func (h *Host) Program(name string) string { return filepath.Join(h.bin, "tests", name) }

// Run runs gantry, at most for two minutes.
func (h *Host) Run(args ...string) Result {
	h.t.Helper()
	return h.Within(2*time.Minute, args...)
}

// Within runs gantry, at most for that long.
func (h *Host) Within(limit time.Duration, args ...string) Result {
	h.t.Helper()
	return h.Wrapped(nil, nil, limit, args...)
}

// Wrapped runs gantry by way of another command and with more variables.
func (h *Host) Wrapped(before, env []string, limit time.Duration, args ...string) Result {
	h.t.Helper()
	argv := append(append(append([]string{}, before...), filepath.Join(h.bin, "gantry")), args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(append(os.Environ(), h.Env...), env...)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	timer := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	r := Result{Status: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String(), Killed: !timer.Stop()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		h.t.Fatal(err)
	}
	return r
}

// Must runs gantry and returns its standard output, trimmed.
func (h *Host) Must(args ...string) string {
	h.t.Helper()
	r := h.Run(args...)
	if r.Status != 0 {
		h.t.Fatalf("gantry %s: exit status %d\n%s%s", strings.Join(args, " "), r.Status, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

func (h *Host) clean() {
	for pod := range strings.FieldsSeq(h.Run("list", "--all", "--quiet", "--no-trunc").Stdout) {
		if r := h.Run("rm", "--force", pod); r.Status != 0 {
			h.t.Logf("clean up pod %s: %s", pod, r.Stderr)
		}
	}
	if !h.networked {
		return
	}
	if r := h.Run("gc"); r.Status != 0 {
		h.t.Errorf("clean up networks: %s", r.Stderr)
	}
}
