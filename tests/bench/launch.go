// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Launches: the app is busybox's true, for everybody from the same files, so
// that what is timed is the runtime.
const app = "/bin/true"

// atOnce launches run side by side in a burst.
const atOnce = 8

// launches times from the start of the command to the end of it, with the
// app's exit and all cleaning up.
func (b *bench) launches() error {
	if err := b.bundles(); err != nil {
		return err
	}
	host := func() (time.Duration, error) { return b.gantry("run", "--rm", "--net=host", b.box(), app) }
	own := func() (time.Duration, error) { return b.gantry("run", "--rm", "--net=none", b.box(), app) }
	const runHost, runOwn = "gantry run --rm --net=host", "gantry run --rm --net=none"
	launch := func(program, bundle, budget string) {
		r := row{Name: "launch, verified", Ours: runHost, Theirs: program + " run, " + bundle, Budget: budget}
		ours := host
		if bundle == bareNet {
			r.Ours, ours = runOwn, own
		}
		b.compare(r, b.pairs, ours, b.peer(program, bundle))
	}
	launch("crun", trivial, "≤ 2")
	launch("crun", bare, "≤ 2")
	b.add(row{Name: "launch, verified, each in a loop of its own", Ours: runHost, Theirs: "crun run, " + trivial},
		b.pairs, loops, host, b.peer("crun", trivial))
	launch("crun", bareNet, "")
	launch("crun", full, "")
	launch("runc", trivial, "")
	launch("runc", bare, "")
	launch("runc", bareNet, "")
	launch("runc", full, "")
	b.compare(row{Name: "launch, prepared before", Ours: "gantry run-prepared", Theirs: "crun run, " + bare, Budget: "≤ 1.2"},
		b.pairs, b.prepared, b.peer("crun", bare))
	burst := func(one func() (time.Duration, error)) func() (time.Duration, error) {
		return func() (time.Duration, error) { return together(b.burst, one) }
	}
	b.compare(row{
		Name: fmt.Sprintf("%d launches, %d at a time", b.burst, atOnce), Ours: runHost,
		Theirs: "crun run, " + bare,
	}, max(2, b.pairs/10), burst(host), burst(b.peer("crun", bare)))
	b.podmanLaunch(runHost, host)
	return nil
}

// prepared times the second half of a run.
func (b *bench) prepared() (time.Duration, error) {
	uuid, err := b.output(filepath.Join(b.bin, "gantry"), "prepare", "--rm", "--net=host", b.box(), app)
	if err != nil {
		return 0, fmt.Errorf("gantry prepare: %w", err)
	}
	return b.gantry("run-prepared", uuid)
}

// peer launches a bundle of its own with an OCI runtime.
func (b *bench) peer(program, bundle string) func() (time.Duration, error) {
	dir, state := filepath.Join(b.work, program+" "+bundle), filepath.Join(b.work, "state-"+program)
	return func() (time.Duration, error) {
		if _, err := os.Stat(dir); err != nil {
			return 0, fmt.Errorf("there is no such bundle: %w", err)
		}
		return b.timed(program, "--root", state, "run", "--bundle", dir, fmt.Sprintf("bench-%d-%d", os.Getpid(), b.containers.Add(1)))
	}
}

// together launches n, some at a time, and tells how long all took.
func together(n int, one func() (time.Duration, error)) (time.Duration, error) {
	begin := time.Now()
	var g errgroup.Group
	g.SetLimit(atOnce)
	for range n {
		g.Go(func() error {
			_, err := one()
			return err
		})
	}
	err := g.Wait()
	return time.Since(begin), err
}

func (b *bench) podmanLaunch(command string, ours func() (time.Duration, error)) {
	r := row{Name: "launch, verified", Ours: command, Theirs: "podman run --rm --net=host"}
	theirs, err := b.podmanRun("--net=host")
	if err != nil {
		b.leave(r, err)
		return
	}
	b.compare(r, b.pairs, ours, theirs)
}

// podmanRun has podman store the image and returns what runs it with flags.
func (b *bench) podmanRun(flags ...string) (func() (time.Duration, error), error) {
	podman := b.podman()
	if _, err := b.timed(podman[0], append(podman[1:], "pull", "-q", b.box())...); err != nil {
		return nil, err
	}
	id, err := b.output(podman[0], append(podman[1:], "images", "-q")...)
	if err != nil || id == "" {
		return nil, fmt.Errorf("podman images: %q, %w", id, err)
	}
	limits, err := hardLimits()
	if err != nil {
		return nil, err
	}
	args := slices.Concat(podman[1:], []string{"run", "--rm"}, flags, limits, []string{strings.Fields(id)[0], app})
	return func() (time.Duration, error) { return b.timed(podman[0], args...) }, nil
}

// hardLimits keep podman from asking for more than a root without
// CAP_SYS_RESOURCE may have, which it does unless told otherwise. It lowers its
// own number of processes to 32,768 first.
func hardLimits() ([]string, error) {
	const processes = 32 << 10
	var out []string
	for name, resource := range map[string]int{"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC} {
		var l unix.Rlimit
		if err := unix.Getrlimit(resource, &l); err != nil {
			return nil, err
		}
		if resource == unix.RLIMIT_NPROC {
			l.Max = min(l.Max, processes)
		}
		if l.Max != math.MaxUint64 {
			out = append(out, fmt.Sprintf("--ulimit=%s=%d:%d", name, l.Max, l.Max))
		}
	}
	return out, nil
}

// podman is a podman of its own, without a systemd.
func (b *bench) podman() []string {
	return []string{
		"podman", "--root", filepath.Join(b.work, "podman"), "--runroot", filepath.Join(b.work, "podman-run"),
		"--cgroup-manager=cgroupfs", "--runtime=crun", "--storage-driver=overlay", "--events-backend=none",
	}
}
