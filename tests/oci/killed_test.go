// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// killings is how often each command is killed; on an emulated machine each
// takes seconds.
const killings = 4

// Whenever a command is killed, state tells the truth or says that there is no
// container, and delete --force leaves no process, no group and no directory.
func TestKilledAtAnyMomentIsDeletedByForce(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	limit := int64(64 << 20)
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	b.save()
	hooked := *b
	hooked.bundle = filepath.Join(t.TempDir(), "hooked")
	check(t, os.Mkdir(hooked.bundle, 0o755))
	spec := *b.spec
	spec.Root = &specs.Root{Path: b.rootfs}
	spec.Hooks = &specs.Hooks{
		CreateRuntime:   []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "0.02"}}},
		CreateContainer: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "0.02"}}},
		StartContainer:  []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "0.02"}}},
		Poststart:       []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "0.02"}}},
		Poststop:        []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "0.02"}}},
	}
	hooked.spec = &spec
	hooked.save()
	create, running := []string{"create", "--bundle", b.bundle, "ID"}, []string{"run", "--detach", "--bundle", b.bundle, "ID"}
	for name, c := range map[string]struct {
		before [][]string
		killed []string
		may    []specs.ContainerState
	}{
		"create":         {nil, create, []specs.ContainerState{"", "creating", "created", "stopped"}},
		"create, hooks":  {nil, []string{"create", "--bundle", hooked.bundle, "ID"}, []specs.ContainerState{"", "creating", "created", "stopped"}},
		"run":            {nil, running[:1:1], nil}, // completed below
		"start":          {[][]string{create}, []string{"start", "ID"}, []specs.ContainerState{"created", "running", "stopped"}},
		"start, hooks":   {[][]string{{"create", "--bundle", hooked.bundle, "ID"}}, []string{"start", "ID"}, []specs.ContainerState{"created", "running", "stopped"}},
		"exec":           {[][]string{running}, []string{"exec", "ID", "sleep", "1000"}, []specs.ContainerState{"running"}},
		"exec --detach":  {[][]string{running}, []string{"exec", "--detach", "ID", "sleep", "1000"}, []specs.ContainerState{"running"}},
		"pause":          {[][]string{running}, []string{"pause", "ID"}, []specs.ContainerState{"running", "paused"}},
		"resume":         {[][]string{running, {"pause", "ID"}}, []string{"resume", "ID"}, []specs.ContainerState{"running", "paused"}},
		"update":         {[][]string{running}, []string{"update", "--memory", "32m", "--pids-limit", "50", "ID"}, []specs.ContainerState{"running"}},
		"kill":           {[][]string{running}, []string{"kill", "ID", "KILL"}, []specs.ContainerState{"running", "stopped"}},
		"delete --force": {[][]string{running}, []string{"delete", "--force", "ID"}, []specs.ContainerState{"", "running", "stopped", "creating"}},
		"delete, paused": {[][]string{running, {"pause", "ID"}}, []string{"delete", "--force", "ID"}, []specs.ContainerState{"", "running", "paused", "stopped", "creating"}},
	} {
		if name == "run" {
			c.killed, c.may = running, []specs.ContainerState{"", "creating", "created", "running", "stopped"}
		}
		t.Run(name, func(t *testing.T) {
			var took time.Duration
			for i := range killings + 1 {
				id := fmt.Sprintf("killed%d", i)
				one := func(args []string) []string {
					args = slices.Clone(args)
					args[slices.Index(args, "ID")] = id
					return args
				}
				for _, args := range c.before {
					if r := b.oci(one(args)...); r.code != 0 {
						t.Fatalf("gantry-oci %q: %+v", args, r)
					}
				}
				at := time.Minute // the first is not killed but timed
				if i > 0 {
					at = time.Duration(rand.Int64N(int64(took) + 1))
				} else if name == "exec" {
					at = 300 * time.Millisecond
				}
				began := time.Now()
				ctx, cancel := context.WithTimeout(context.Background(), at)
				cmd, end := b.command(ctx, one(c.killed)...)
				_ = cmd.Run() // SIGKILL when the time is over
				cancel()
				end()
				if i == 0 {
					took = time.Since(began)
				}
				b.deletedByForce(t, id, fmt.Sprintf("killed after %v of %v", at, took), c.may)
			}
		})
	}
}

// deletedByForce looks at what a killed command left, and deletes it.
func (b *box) deletedByForce(t *testing.T, id, when string, may []specs.ContainerState) {
	t.Helper()
	var s specs.State
	if r := b.oci("state", id); r.code == 0 {
		check(t, json.Unmarshal([]byte(r.out), &s))
	} else if !strings.Contains(r.stderr, "does not exist") {
		t.Errorf("%s: state: %+v", when, r)
	}
	if !slices.Contains(may, s.Status) {
		t.Errorf("%s: the container is %q, not one of %q", when, s.Status, may)
	}
	if r := b.oci("delete", "--force", id); r.code != 0 {
		t.Errorf("%s: delete --force: %+v", when, r)
	}
	if _, err := os.Lstat(filepath.Join(b.root, id)); err == nil {
		t.Errorf("%s: its directory is left", when)
	}
	for _, top := range []string{"/sys/fs/cgroup/*/gantry-oci-*-", "/sys/fs/cgroup/gantry-oci-*-", "/sys/fs/cgroup/*/*/gantry-oci-*-", "/sys/fs/cgroup/*/*/*/gantry-oci-*-"} {
		if left, _ := filepath.Glob(top + id); len(left) > 0 {
			t.Errorf("%s: groups are left: %v", when, left)
		}
	}
	eventually(t, when+": its processes end", func() bool { return len(b.processes()) == 0 })
}

// processes are all that were started for this test: their output is a file of
// its directory.
func (b *box) processes() (out []string) {
	for _, fd := range []string{"1", "2"} {
		links, _ := filepath.Glob("/proc/[0-9]*/fd/" + fd)
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, b.said) && !strings.HasPrefix(link, fmt.Sprintf("/proc/%d/", os.Getpid())) {
				out = append(out, link)
			}
		}
	}
	return out
}

// Two commands at once on one id, one of them killed: what is left is one
// container or none, and delete --force has all of it.
func TestTwoCommandsAndOneIsKilled(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	b.save()
	for i := range 2 * killings {
		id := fmt.Sprintf("pair%d", i)
		pairs := [][2][]string{
			{{"create", "--bundle", b.bundle, id}, {"delete", "--force", id}},
			{{"run", "--detach", "--bundle", b.bundle, id}, {"create", "--bundle", b.bundle, id}},
			{{"start", id}, {"delete", "--force", id}},
			{{"delete", "--force", id}, {"delete", "--force", id}},
			{{"exec", id, "true"}, {"delete", "--force", id}},
		}
		pair := pairs[i%len(pairs)]
		if i%len(pairs) >= 2 {
			b.oci("create", "--bundle", b.bundle, id)
			if i%len(pairs) == 4 {
				b.oci("start", id)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.Int64N(int64(40*time.Millisecond))))
		first, endFirst := b.command(ctx, pair[0]...)
		second, endSecond := b.command(context.Background(), pair[1]...)
		check(t, second.Start())
		_ = first.Run()
		cancel()
		_ = second.Wait()
		endFirst()
		if r := endSecond(); strings.Contains(r.stderr, "panic") || r.code > 1 {
			t.Errorf("gantry-oci %q beside %q: %+v", pair[1], pair[0], r)
		}
		b.deletedByForce(t, id, fmt.Sprintf("%q and %q", pair[0], pair[1]),
			[]specs.ContainerState{"", "creating", "created", "running", "stopped"})
	}
}
