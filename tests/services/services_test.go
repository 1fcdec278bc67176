// SPDX-License-Identifier: Apache-2.0

// Package services runs servers of Debian's packages as people run them: signed
// images from a registry, on networks, with volumes, under load, stopped, killed
// and started again. tests/setup/services.sh makes the images.
package services

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1/launch"
	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/gantry"
)

// apart is what a process in the tests' own network namespace has in its
// environment.
const apart = "GANTRY_SERVICES_APART"

// TestMain has the tests run in a network namespace of their own: bridges and
// published ports are nobody else's.
func TestMain(m *testing.M) {
	if os.Getenv(apart) == "" && os.Geteuid() == 0 {
		os.Exit(again())
	}
	os.Exit(m.Run())
}

func again() int {
	const prelude = `ip link set lo up &&
		ip link add outer type veth peer name inner && ip address add 192.0.2.1/24 dev outer && ip link set outer up && ip link set inner up &&
		exec "$0" "$@"`
	cmd := exec.Command("sh", append([]string{"-c", prelude, os.Args[0]}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), apart+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return cmd.ProcessState.ExitCode()
}

// address is one of the host's that is not its loopback: connections to it are
// redirected by the kernel.
const address = "192.0.2.1"

// site is an installation with the images of all servers, fetched and verified.
type site struct {
	*gantry.Host
	t          *testing.T
	repository string
}

// open starts a registry, pushes and signs the images, and fetches those named.
func open(t *testing.T, images ...string) *site {
	t.Helper()
	ability.Require(t, ability.Root, ability.Tool("ip"))
	layout := os.Getenv("GANTRY_TEST_SERVICES")
	if _, err := os.Stat(filepath.Join(layout, "index.json")); err != nil {
		t.Skipf("ability missing: images of servers, made by tests/setup/services.sh: %v", err)
	}
	s := &site{Host: gantry.New(t), t: t}
	s.Networked()
	s.repository = s.registry() + "/debian"
	for _, name := range images {
		out, err := exec.Command(s.Program("mkimage"), "--push", "oci:"+layout+":"+name, s.image(name)).CombinedOutput()
		if err != nil {
			t.Fatalf("push %s: %v: %s", name, err, out)
		}
		s.Must("sign", "--key", s.Key()+".key", s.image(name))
	}
	s.Must("trust", "add", "--prefix", s.repository, s.Key()+".pub")
	for _, name := range images {
		s.Must("fetch", s.image(name))
	}
	return s
}

func (s *site) image(name string) string { return s.repository + "/" + name + ":1" }

// registry serves an empty registry on loopback until the test ends.
func (s *site) registry() string {
	s.t.Helper()
	portfile := filepath.Join(s.Dir, "port")
	cmd := exec.Command(s.Program("registry"), "--addr", "127.0.0.1:0", "--portfile", portfile, "--referrers")
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var port []byte
	s.eventually("the registry listens", func() bool {
		b, err := os.ReadFile(portfile)
		port = b
		return err == nil && len(b) > 0
	})
	return "127.0.0.1:" + strings.TrimSpace(string(port))
}

// eventually waits for what another program does and announces to nobody.
func (s *site) eventually(what string, done func() bool) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not within a minute: %s", what)
		}
	}
}

// start runs a server in the background: flags of run, then the image, then the
// app's arguments. It returns the pod's UUID.
func (s *site) start(name string, args ...string) string {
	s.t.Helper()
	uuid := s.Must(append([]string{"run", "-d", "--name", name}, args...)...)
	s.t.Cleanup(func() { s.told(name) })
	return uuid
}

type status struct {
	State      string
	PID        int
	Supervisor int
	Exit       *struct {
		Known  bool
		Code   int
		Signal int
	}
}

func (s *site) status(pod string) status {
	s.t.Helper()
	var st status
	if err := json.Unmarshal([]byte(s.Must("inspect", pod)), &st); err != nil {
		s.t.Fatal(err)
	}
	return st
}

// stop ends a pod by its own will, and removes it.
func (s *site) stop(pod string) {
	s.t.Helper()
	s.Must("stop", pod)
	if e := s.status(pod).Exit; e == nil || !e.Known || e.Code != 0 {
		s.t.Errorf("the end of %s is recorded as %+v\n%s", pod, e, s.Run("logs", pod).Stdout)
	}
	s.Must("rm", pod)
}

// crash kills the supervisor and with it the app, waits for both to be gone, and
// removes the pod.
func (s *site) crash(pod string) {
	s.t.Helper()
	st := s.status(pod)
	fd, err := unix.PidfdOpen(st.PID, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	app := os.NewFile(uintptr(fd), "app")
	defer app.Close()
	if err := syscall.Kill(st.Supervisor, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	if ended, err := launch.EndsWithin(app, time.Minute); !ended {
		s.t.Fatalf("%s does not follow its supervisor within a minute: %v", pod, err)
	}
	s.Must("rm", pod)
}

// told is what a pod that does not do what it should says of it.
func (s *site) told(pod string) {
	if !s.t.Failed() {
		return
	}
	if log := s.Run("logs", pod); log.Status == 0 {
		s.t.Logf("%s\n%s%s", s.Run("list", "--all").Stdout, log.Stdout, log.Stderr)
	}
}

// get fetches a page from the host, on a connection of its own.
func get(url string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, r.Status)
	}
	return b.String(), err
}

// answers waits until a page comes.
func (s *site) answers(url string) {
	s.t.Helper()
	s.eventually(url+" answers", func() bool { _, err := get(url); return err == nil })
}
