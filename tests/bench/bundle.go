// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The bundles peers are given. All have the same root, which umoci unpacked
// from the very image gantry launches, and the same app.
const (
	trivial = "trivial bundle"                     // a root, /proc, namespaces
	bare    = "bare bundle"                        // what its "spec" command writes, in the host's network
	bareNet = "bare bundle, own network namespace" // exactly what it writes
	full    = "full bundle"                        // the one gantry itself launches
)

// bundles writes every bundle for every runtime. One that cannot be had is
// missing later, in its row.
func (b *bench) bundles() error {
	if b.bundled {
		return nil
	}
	b.bundled = true
	rootfs := filepath.Join(b.work, "bundle")
	if out, err := b.output("umoci", "unpack", "--image", strings.TrimPrefix(b.box(), "oci:"), rootfs); err != nil {
		return fmt.Errorf("umoci unpack: %w: %s", err, out)
	}
	ours, fullErr := b.full()
	for _, program := range []string{"crun", "runc"} {
		err := errors.Join(fullErr, b.writeBundle(program, trivial, least()))
		if fullErr == nil {
			err = errors.Join(err, b.writeBundle(program, full, ours))
		}
		spec, specErr := b.spec(program)
		if specErr == nil {
			err = errors.Join(err, b.writeBundle(program, bareNet, spec))
			spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
				return n.Type == specs.NetworkNamespace
			})
			specErr = b.writeBundle(program, bare, spec)
		}
		if err = errors.Join(err, specErr); err != nil {
			fmt.Fprintf(os.Stderr, "bench: bundles for %s: %v\n", program, err)
		}
	}
	return nil
}

// least is the least a container can be.
func least() *specs.Spec {
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace},
			{Type: specs.MountNamespace},
			{Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace},
			{Type: specs.CgroupNamespace},
		}},
		Root: &specs.Root{},
	}
}

// writeBundle gives a configuration the common root and app.
func (b *bench) writeBundle(program, name string, spec *specs.Spec) error {
	dir := filepath.Join(b.work, program+" "+name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	spec.Root.Path = filepath.Join(b.work, "bundle", "rootfs")
	spec.Process.Args, spec.Process.Terminal = []string{app}, false
	j, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), j, 0o644)
}

// spec is what a runtime suggests itself, without limits that a root without
// CAP_SYS_RESOURCE may not raise to.
func (b *bench) spec(program string) (*specs.Spec, error) {
	dir := filepath.Join(b.work, "spec-"+program)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "spec")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s spec: %w: %s", program, err, out)
	}
	j, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(j, &spec); err != nil {
		return nil, fmt.Errorf("%s spec: %w", program, err)
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	spec.Process.Rlimits = slices.DeleteFunc(spec.Process.Rlimits, func(r specs.POSIXRlimit) bool {
		return r.Type == "RLIMIT_NOFILE" && r.Hard > files.Max
	})
	return &spec, nil
}

// full asks gantry for the bundle it would launch.
func (b *bench) full() (*specs.Spec, error) {
	out, err := b.output(filepath.Join(b.bin, "gantry"), "run", "--dry-run", "--net=host", b.box(), app)
	if err != nil {
		return nil, fmt.Errorf("gantry run --dry-run: %w", err)
	}
	var plan map[string]json.RawMessage
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		return nil, fmt.Errorf("gantry run --dry-run: %w", err)
	}
	var spec specs.Spec
	for _, v := range plan {
		var s specs.Spec
		if json.Unmarshal(v, &s) == nil && s.Version != "" && s.Process != nil {
			spec = s
		}
	}
	if spec.Process == nil {
		return nil, errors.New("gantry run --dry-run shows no bundle")
	}
	// The pod's own files went with the dry run.
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Source, b.work) })
	spec.Root = &specs.Root{}
	return &spec, nil
}
