// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// networks times launches on the default network, and bytes through it.
func (b *bench) networks() error {
	const published = "gantry run --rm -p 18080:80"
	port := func() (time.Duration, error) { return b.gantry("run", "--rm", "-p", "18080:80", b.box(), app) }
	bridge := func() (time.Duration, error) { return b.gantry("run", "--rm", "--net=default", b.box(), app) }
	none := func() (time.Duration, error) { return b.gantry("run", "--rm", "--net=none", b.box(), app) }
	// The bridge is the network's and stays.
	if _, err := bridge(); err != nil {
		return err
	}
	b.compare(row{
		Name: "launch on the default network", Ours: "gantry run --rm --net=default",
		Theirs: "gantry run --rm --net=none", Budget: "+ 5 ms",
	}, b.pairs, bridge, none)
	r := row{Name: "launch, verified, a published port", Ours: published, Theirs: "podman run --rm --net=bridge -p 18081:80", Budget: "≤ 0.15"}
	if podman, err := b.podmanRun("--net=bridge", "-p", "18081:80"); err != nil {
		b.leave(r, err)
	} else {
		b.compare(r, b.pairs, port, podman)
	}
	burst := func(one func() (time.Duration, error)) func() (time.Duration, error) {
		return func() (time.Duration, error) { return together(b.burst, one) }
	}
	b.compare(row{
		Name: fmt.Sprintf("%d launches, %d at a time", b.burst, atOnce), Ours: "gantry run --rm --net=default",
		Theirs: "gantry run --rm --net=none",
	}, 2, burst(bridge), burst(none))
	return b.throughput()
}

// throughput compares a transfer to somebody outside from a pod with one from
// the host, through one link of the speed of a network card.
func (b *bench) throughput() error {
	const outside, host = "198.51.100.2", "198.51.100.1"
	if err := sh(`ip netns add bench-outside &&
		ip link add outer type veth peer name eth0 netns bench-outside &&
		ip address add ` + host + `/24 dev outer && ip link set outer up &&
		tc qdisc add dev outer root tbf rate 5gbit burst 2mb latency 20ms &&
		ip -n bench-outside address add ` + outside + `/24 dev eth0 && ip -n bench-outside link set eth0 up && ip -n bench-outside link set lo up`); err != nil {
		return err
	}
	defer func() { _ = sh("ip netns pids bench-outside | xargs -r kill; ip netns delete bench-outside") }()
	server := exec.Command("ip", "netns", "exec", "bench-outside", "iperf3", "--server")
	if err := server.Start(); err != nil {
		return err
	}
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	time.Sleep(time.Second) // it says nothing when it listens

	speed := func(name string, args ...string) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			out, err := b.output(name, append(args, "--client", outside, "--json", "--bytes", "1G")...)
			if err != nil {
				return 0, fmt.Errorf("%s: %w: %s", name, err, out)
			}
			var r struct {
				End struct{ Sum_sent struct{ Seconds float64 } }
			} // iperf3's spelling
			if err := json.Unmarshal([]byte(out), &r); err != nil || r.End.Sum_sent.Seconds == 0 {
				return 0, errors.Join(err, fmt.Errorf("iperf3: %s", out))
			}
			return time.Duration(r.End.Sum_sent.Seconds * float64(time.Second)), nil
		}
	}
	inside := speed(filepath.Join(b.bin, "gantry"), "run", "--rm", "--read-only", "-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro", b.box(), "/usr/bin/iperf3")
	b.compare(row{
		Name: "1 GiB to another host, 5 Gbit/s", Ours: "from a pod on the default network",
		Theirs: "from the host", Budget: "≤ 1.03",
	}, max(3, b.pairs/8), inside, speed("iperf3"))
	return nil
}

func sh(script string) error {
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
