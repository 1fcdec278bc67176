// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets this binary also be the other processes of a test: locks and
// races between goroutines of one process would prove nothing.
func TestMain(m *testing.M) {
	if role := os.Getenv("GANTRY_POD_TEST"); role != "" {
		os.Exit(other(role, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// other plays a role in another process. It says "ok" or what went wrong on
// standard output, and then holds what it has until its input ends.
func other(role string, args []string) int {
	s := Open(args[0], args[1])
	err := act(s, role, args[2:])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

func act(s *Pods, role string, args []string) error {
	switch role {
	case "create": // create, and stand in the given phase
		p, err := s.Create()
		if err != nil {
			return err
		}
		if err := enrol(p, "", Phase(args[0])); err != nil {
			return err
		}
		fmt.Println(p.UUID)
		return nil
	case "start": // what run-prepared does
		p, err := s.Find(args[0])
		if err != nil {
			return err
		}
		fmt.Println("set")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		if err := p.TryLock(); err != nil {
			return err
		}
		if err := p.Move(Run); err != nil {
			return err
		}
	case "name": // what run --name does
		p, err := s.Create()
		if err != nil {
			return err
		}
		fmt.Println("set")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		if err := p.TakeName(args[0]); err != nil {
			return err
		}
	default:
		return fmt.Errorf("no role %q", role)
	}
	fmt.Println("ok")
	return nil
}

// enrol writes a manifest and moves a fresh pod to a phase, the legal way.
func enrol(p *Pod, name string, to Phase) error {
	m := Manifest{Version: Version, UUID: p.UUID, Name: name, Created: time.Now().UTC(), Network: "none", Apps: []App{{Name: "app", Image: "docker.io/library/busybox:latest", Command: []string{"sleep", "1000"}}}}
	b, err := marshal(m)
	if err != nil {
		return err
	}
	if err := p.WriteFile(ManifestFile, b, 0o600, false); err != nil {
		return err
	}
	for _, phase := range map[Phase][]Phase{
		Prepare: nil, Prepared: {Prepared}, Run: {Run}, Exited: {Run, Exited}, Garbage: {Garbage},
	}[to] {
		if err := p.Move(phase); err != nil {
			return err
		}
	}
	return nil
}

// player is another process of a test.
type player struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func play(t *testing.T, role string, args ...string) *player {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &player{t: t, cmd: exec.Command(exe, args...)}
	p.cmd.Env = append(os.Environ(), "GANTRY_POD_TEST="+role)
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _, _ = p.cmd.Process.Wait() })
	return p
}

func (p *player) line() string {
	p.t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil && s == "" {
		p.t.Fatalf("%v: %v", p.cmd.Args, err)
	}
	return strings.TrimSuffix(s, "\n")
}

func (p *player) say(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, s+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

// kill is kill -9, and waits until the kernel took everything back.
func (p *player) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	_, _ = p.cmd.Process.Wait()
}

func mkfifo(name string) error { return syscall.Mkfifo(name, 0o600) }
