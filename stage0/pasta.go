// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/hint"
	netspec "github.com/gantryrun/gantry/netns/network"
	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

// pastaName is how podman spells the network of an ordinary user.
const pastaName = "pasta"

// pastaTime is more than pasta takes to be ready.
const pastaTime = 10 * time.Second

// findPasta finds the program that carries an ordinary user's packets.
func findPasta() (string, error) {
	path, err := exec.LookPath(pastaName)
	if err != nil {
		return "", hint.With(errors.New("pasta is not installed, which an ordinary user's network takes"), "install the package passt, or use --net=none or --net=host")
	}
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return "", hint.With(fmt.Errorf("an ordinary user's network takes /dev/net/tun: %w", err), "'chmod 666 /dev/net/tun' as root lets every user have interfaces of their own, as udev does; or use --net=none or --net=host")
	}
	return path, tun.Close()
}

// pastaNetwork is the one network an ordinary user's pods can be on.
func (e Env) pastaNetwork() (Network, error) {
	n := Network{Name: netspec.DefaultName, Driver: pastaName, Subnets: []NetworkSubnet{}, Isolate: true, Pods: []NetworkMember{}}
	pods, err := List(e, ListOptions{})
	for _, r := range pods {
		if r.Network == netspec.DefaultName || r.Network == pastaName {
			n.Pods = append(n.Pods, NetworkMember{UUID: r.UUID, Name: r.Name})
		}
	}
	return n, err
}

func (e Env) inspectPasta(names []string) ([]Network, error) {
	for _, name := range names {
		if name != netspec.DefaultName && name != pastaName {
			return nil, hint.With(fmt.Errorf("network %s: there is none", name), "an ordinary user's pod is on --net=pasta (the default), none or host")
		}
	}
	n, err := e.pastaNetwork()
	return slices.Repeat([]Network{n}, len(names)), err
}

// checkPasta refuses what pasta cannot give, before anything is fetched.
func checkPasta(c netspec.Choice, ports []netspec.Port) error {
	for _, j := range c.Joins {
		plain := netspec.Join{Network: j.Network, Interface: j.Interface}
		switch {
		case j.Network != netspec.DefaultName && j.Network != pastaName, len(c.Joins) > 1:
			return hint.With(fmt.Errorf("--net: network %s: bridges take the host's root", j.Network), "an ordinary user's pod is on --net=pasta (the default), none or host")
		case fmt.Sprint(j) != fmt.Sprint(plain):
			return hint.With(errors.New("--net: addresses and names on a network are not an ordinary user's to choose"), "pasta gives the pod the address of the host")
		}
	}
	for _, p := range ports {
		if p.HostPort == 0 {
			return hint.With(fmt.Errorf("--publish %s: pasta takes no port of the kernel's choice", p), "name the host's port: --publish HOSTPORT:"+strconv.Itoa(int(p.Container)))
		}
	}
	_, err := findPasta()
	return err
}

// pasta starts the one helper of a pod's network. It is a child of ours, and
// so of the supervisor that takes our place, with which it ends whatever
// happens. It has the network namespace as its standard input: what it may
// still open by then it could not find by a path, and every other descriptor it
// closes.
//
// A death signal ends it with us, unless executing it changes its label, as
// Debian's profile for pasta does: then gantry-init stays with it.
func (e Env) pasta(ports []netspec.Port) func(context.Context, *os.File) (*launch.Attached, error) {
	return func(ctx context.Context, ns *os.File) (*launch.Attached, error) {
		path, err := findPasta()
		if err != nil {
			return nil, err
		}
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("make pipe: %w", err)
		}
		defer r.Close()
		defer w.Close()
		said, err := memory()
		if err != nil {
			return nil, err
		}
		defer said.Close()
		args := pastaArgs(ports)
		attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
		if relabels() {
			args = append([]string{stage1.KeepArg, path}, args...)
			path, attr.Cloneflags = filepath.Join(e.Libexec, "gantry-init"), unix.CLONE_NEWPID
		}
		cmd := exec.Command(path, args...)
		cmd.SysProcAttr = attr
		cmd.Stdin, cmd.Stdout, cmd.Stderr = ns, w, said
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("start pasta: %w", err)
		}
		end := func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
		_ = w.Close()
		if err := working(ctx, r); err != nil {
			end()
			return nil, pastaError(err, tailOf(said), ports)
		}
		pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			end()
			return nil, fmt.Errorf("open pasta's pidfd: %w", err)
		}
		helper := os.NewFile(uintptr(pidfd), "pasta")
		return &launch.Attached{Helper: helper, Undo: func() { end(); _ = helper.Close() }}, nil
	}
}

// pastaError adds what pasta said, and what to do about a port it was not given.
func pastaError(err error, said string, ports []netspec.Port) error {
	err = fmt.Errorf("pasta: %w: %s", err, said)
	if !strings.Contains(said, "bind") {
		return err
	}
	b, rerr := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	first, perr := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16)
	if rerr == nil && perr == nil && slices.ContainsFunc(ports, func(p netspec.Port) bool { return uint64(p.HostPort) < first }) {
		return hint.With(err, fmt.Sprintf("ports below %d are root's: publish another, or lower net.ipv4.ip_unprivileged_port_start (sysctl)", first))
	}
	return hint.With(err, "'ss -tulnp' shows who has a port: publish another")
}

// pastaArgs: nothing is forwarded that was not asked for, in neither direction,
// and the host is not to be reached by its gateway's address.
func pastaArgs(ports []netspec.Port) []string {
	args := []string{
		"--config-net", "--netns-only", "--foreground", "--quiet", "--no-map-gw", "--no-netns-quit",
		"--netns", "/proc/self/fd/0", "--pid", "/proc/self/fd/1",
		"--tcp-ns", "none", "--udp-ns", "none", "--ns-ifname", "eth0",
	}
	for _, proto := range []struct{ name, flag string }{{"tcp", "--tcp-ports"}, {"udp", "--udp-ports"}} {
		none := true
		for _, p := range ports {
			if p.Protocol == proto.name {
				args, none = append(args, proto.flag, pastaPort(p)), false
			}
		}
		if none {
			args = append(args, proto.flag, "none")
		}
	}
	return args
}

// pastaPort writes a published port as pasta(1) reads it.
func pastaPort(p netspec.Port) string {
	at := ""
	if p.Host.IsValid() {
		at = p.Host.String() + "/"
	}
	text := func(first uint16) string {
		if p.Len() == 1 {
			return strconv.Itoa(int(first))
		}
		return fmt.Sprintf("%d-%d", first, int(first)+p.Len()-1)
	}
	return at + text(p.HostPort) + ":" + text(p.Container)
}

// working waits for the number that pasta writes when it works.
func working(ctx context.Context, r *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, pastaTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Now()) })
	defer stop()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || strings.TrimSpace(line) == "" {
		return errors.New("it did not start")
	}
	return nil
}

// memory is a file that is in nobody's way: a pipe would end with us, and its
// writer with it.
func memory() (*os.File, error) {
	fd, err := unix.MemfdCreate("pasta", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	return os.NewFile(uintptr(fd), "pasta"), nil
}

func tailOf(f *os.File) string {
	b := make([]byte, 2<<10)
	n, _ := f.ReadAt(b, 0)
	var lines []string
	for line := range strings.Lines(string(b[:n])) {
		if !strings.Contains(line, "syslog") && strings.TrimSpace(line) != "" {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "; ")
}
