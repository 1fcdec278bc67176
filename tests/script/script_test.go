// SPDX-License-Identifier: Apache-2.0

// Package script drives the real executables by the scripts of testdata, one
// for each user story. README.md beside them lists the commands they have
// besides those of testscript.
package script

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/built"
	"github.com/gantryrun/gantry/tests/testkey"
)

func TestScripts(t *testing.T) {
	ability.Require(t, ability.Root)
	bin := built.Dir(t)
	testscript.RunT(shim{t}, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               func(e *testscript.Env) error { return setup(e, bin) },
		Condition:           condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"image":    image,
			"bundle":   bundle,
			"amend":    amend,
			"console":  console,
			"signed":   signed,
			"registry": registryCommand,
			"waitfor":  waitfor,
			"waitlogs": waitlogs,
			"same":     same,
			"setfile":  setfile,
			"gone":     gone,
			"world":    world,
		},
	})
}

// shim is a test of testscript's.
type shim struct{ *testing.T }

func (s shim) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { f(shim{t}) })
}

func (shim) Verbose() bool { return testing.Verbose() }

// Parallel lets a script wait for its turn, and leaves it out when there is no
// time left then. Where time is short those come first that not every machine can
// run, whatever it takes.
func (s shim) Parallel() {
	if os.Getenv("GANTRY_TEST_UNTIL") != "" {
		b, err := os.ReadFile(filepath.Join("testdata", filepath.Base(s.Name())+".txtar"))
		if err != nil {
			s.Fatal(err)
		}
		if rare.Match(b) {
			return
		}
	}
	s.T.Parallel()
	ability.Require(s.T, ability.Time)
}

var rare = regexp.MustCompile(`(?m)^\[!(systemd|cgroup2|apparmor|verity|project-quota|unconfined)\] (skip|stop)`)

// bundle DIR busybox [ARG…] makes a bundle for an OCI runtime by gantry-oci
// spec: without a terminal, its root writable and with nothing but busybox.
func bundle(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || args[1] != "busybox" {
		ts.Fatalf("usage: bundle DIR busybox [ARG…]")
	}
	dir := ts.MkAbs(args[0])
	bin := filepath.Join(dir, "rootfs/bin")
	ts.Check(os.MkdirAll(bin, 0o755))
	busybox, err := exec.LookPath("busybox")
	ts.Check(err)
	b, err := os.ReadFile(busybox)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(bin, "busybox"), b, 0o755))
	for _, applet := range []string{"sh", "sleep", "true", "id", "cat", "echo", "mount", "ls", "kill", "stty", "readlink"} {
		ts.Check(os.Symlink("busybox", filepath.Join(bin, applet)))
	}
	ts.Check(ts.Exec("gantry-oci", "spec", "--bundle", dir))
	name := filepath.Join(dir, "config.json")
	config, err := os.ReadFile(name)
	ts.Check(err)
	var spec map[string]any
	ts.Check(json.Unmarshal(config, &spec))
	process, _ := spec["process"].(map[string]any)
	command := args[2:]
	if len(command) == 0 {
		command = []string{"sleep", "1000"}
	}
	process["args"], process["terminal"] = command, false
	spec["root"] = map[string]any{"path": "rootfs"}
	config, err = json.Marshal(spec)
	ts.Check(err)
	ts.Check(os.WriteFile(name, config, 0o644))
	ts.Defer(func() { sweep(ts) })
}

// amend DIR FILE merges the JSON of FILE into a bundle's configuration: objects
// member by member, null removes one, and anything else replaces what is there.
// $VARIABLES of the script are expanded in it.
func amend(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: amend DIR FILE")
	}
	name := filepath.Join(ts.MkAbs(args[0]), "config.json")
	config, err := os.ReadFile(name)
	ts.Check(err)
	var spec, change map[string]any
	ts.Check(json.Unmarshal(config, &spec))
	ts.Check(json.Unmarshal([]byte(os.Expand(ts.ReadFile(args[1]), ts.Getenv)), &change))
	merge(spec, change)
	config, err = json.Marshal(spec)
	ts.Check(err)
	ts.Check(os.WriteFile(name, config, 0o644))
}

func merge(into, change map[string]any) {
	for key, value := range change {
		below, object := value.(map[string]any)
		old, same := into[key].(map[string]any)
		switch {
		case value == nil:
			delete(into, key)
		case object && same:
			merge(old, below)
		default:
			into[key] = value
		}
	}
}

// sweep deletes what a script that failed half-way has left in $ROOT.
func sweep(ts *testscript.TestScript) {
	root := ts.Getenv("ROOT")
	containers, _ := os.ReadDir(root)
	for _, c := range containers {
		_ = ts.Exec("gantry-oci", "--root", root, "delete", "--force", c.Name())
	}
}

// setup gives each script a gantry of its own: nothing is shared with other
// scripts or with the machine.
func setup(e *testscript.Env, bin string) error {
	work := e.WorkDir
	e.Setenv("PATH", bin+":"+filepath.Join(bin, "tests")+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	e.Setenv("GANTRY_DIR", filepath.Join(work, "lib"))
	e.Setenv("GANTRY_RUN_DIR", filepath.Join(work, "run"))
	e.Setenv("GANTRY_CONFIG_PATH", filepath.Join(work, "etc"))
	e.Setenv("COSIGN_PASSWORD", "")
	e.Setenv("HOME", work)
	e.Setenv("OCI", "oci:"+filepath.Join(work, "oci"))
	e.Setenv("BIN", bin)
	e.Values["registry"] = &server{}
	e.Defer(func() { clean(e, bin) })
	for _, dir := range []string{"etc/trust.d", "etc/trust/keys", "etc/net.d"} {
		if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
			return err
		}
	}
	// No story gets the host's network changed by a run that says nothing of one:
	// those about networks take this away, in a network namespace of their own.
	return os.WriteFile(filepath.Join(work, "etc/net.d/default.conflist"), nil, 0o644)
}

// clean removes what a failed script left running.
func clean(e *testscript.Env, bin string) {
	if s, ok := e.Values["registry"].(*server); ok && s.http != nil {
		s.http.Close()
	}
	list := exec.Command(filepath.Join(bin, "gantry"), "list", "--all", "--quiet", "--no-trunc")
	list.Env = e.Vars
	out, err := list.Output()
	if err != nil {
		return
	}
	for pod := range strings.FieldsSeq(string(out)) {
		rm := exec.Command(filepath.Join(bin, "gantry"), "rm", "--force", pod)
		rm.Env = e.Vars
		if out, err := rm.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "clean up pod %s: %v: %s\n", pod, err, out)
		}
	}
}

// condition knows abilities by their names, and file:PATH.
func condition(name string) (bool, error) {
	if path, ok := strings.CutPrefix(name, "file:"); ok {
		_, err := os.Stat(path)
		return err == nil, nil
	}
	for _, a := range ability.All() {
		if a.Name == name {
			return a.Missing() == nil, nil
		}
	}
	return false, fmt.Errorf("no ability %q", name)
}

// exits STATUS PROGRAM [ARG…] runs it and wants exactly that exit status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("run %s: %v", args[1], err)
		}
		if got = exit.ExitCode(); got == -1 {
			got = signalStatus(exit)
		}
	}
	if got != want {
		ts.Fatalf("%s: exit status %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// image KIND NAME [FLAG…] makes an unsigned image in the layout $OCI.
func image(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: image KIND NAME [FLAG...]")
	}
	run(ts, "mkimage", append(args[2:], args[0], ts.Getenv("OCI")+":"+args[1])...)
}

// signed KIND NAME [FLAG…] also signs it with the key of tests, which is there
// and trusted for the layout from its first use on.
func signed(ts *testscript.TestScript, neg bool, args []string) {
	image(ts, neg, args)
	key := ts.MkAbs("key")
	if _, err := os.Stat(key + ".key"); err != nil {
		ts.Check(testkey.Write(key))
		run(ts, "gantry", "trust", "add", "--prefix", ts.Getenv("OCI"), key+".pub")
	}
	run(ts, "gantry", "sign", "--key", key+".key", ts.Getenv("OCI")+":"+args[1])
}

func run(ts *testscript.TestScript, name string, args ...string) {
	if err := ts.Exec(name, args...); err != nil {
		ts.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
}

// server is the registry of one script, which remembers what it was asked.
type server struct {
	http     *httptest.Server
	mu       sync.Mutex
	requests []string
}

// registry start [-referrers] [-auth USER:PASSWORD] | stop | count PATTERN N.
func registryCommand(ts *testscript.TestScript, neg bool, args []string) {
	s, ok := ts.Value("registry").(*server)
	if neg || !ok || len(args) == 0 {
		ts.Fatalf("usage: registry start|stop|count")
	}
	switch args[0] {
	case "start":
		ts.Setenv("REGISTRY", s.start(args[1:]))
	case "stop":
		s.http.Close()
	case "count":
		if len(args) != 3 {
			ts.Fatalf("usage: registry count PATTERN N")
		}
		want, err := strconv.Atoi(args[2])
		ts.Check(err)
		matched := s.matching(regexp.MustCompile(args[1]))
		if len(matched) != want {
			ts.Fatalf("%d requests match %q, want %d:\n%s", len(matched), args[1], want, strings.Join(matched, "\n"))
		}
	default:
		ts.Fatalf("registry has no %q", args[0])
	}
}

func (s *server) start(args []string) string {
	referrers, login := false, ""
	for i, arg := range args {
		switch arg {
		case "-referrers":
			referrers = true
		case "-auth":
			login = args[i+1]
		}
	}
	inner := registry.New(registry.WithReferrersSupport(referrers))
	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		user, password, _ := r.BasicAuth()
		if login != "" && user+":"+password != login {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	return strings.TrimPrefix(s.http.URL, "http://")
}

func (s *server) matching(pattern *regexp.Regexp) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, r := range s.requests {
		if pattern.MatchString(r) {
			out = append(out, r)
		}
	}
	return out
}

// waitfor FILE PATTERN waits, at most a minute, until the file matches.
func waitfor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitfor FILE PATTERN")
	}
	pattern := regexp.MustCompile("(?m)" + args[1])
	within(ts, "match "+args[1], func() (bool, string) {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && pattern.Match(b), string(b)
	})
}

// waitlogs POD PATTERN waits, at most a minute, until the pod wrote a match: a
// program that says it is ready has its signal handlers in place.
func waitlogs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitlogs POD PATTERN")
	}
	pattern := regexp.MustCompile("(?m)" + args[1])
	within(ts, "match of "+args[1]+" in the logs of "+args[0], func() (bool, string) {
		err := ts.Exec("gantry", "logs", args[0])
		out := ts.ReadFile("stdout")
		return err == nil && pattern.MatchString(out), out
	})
}

// gone PID… waits, at most a minute, until no such process is left, zombies
// included.
func gone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: gone PID...")
	}
	for _, pid := range args {
		pid = strings.TrimSpace(pid)
		within(ts, "end of process "+pid, func() (bool, string) {
			b, err := os.ReadFile("/proc/" + pid + "/status")
			return err != nil, string(b)
		})
	}
}

func within(ts *testscript.TestScript, what string, done func() (bool, string)) {
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, seen := done()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no %s within a minute; there is:\n%s", what, seen)
		}
		<-tick.C
	}
}

// same A B compares two files but for the patterns that follow, whose matches
// are taken out of both.
func same(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: same A B [PATTERN...]")
	}
	a, b := ts.ReadFile(args[0]), ts.ReadFile(args[1])
	for _, p := range args[2:] {
		pattern := regexp.MustCompile(p)
		a, b = pattern.ReplaceAllString(a, ""), pattern.ReplaceAllString(b, "")
	}
	if (a == b) == neg {
		ts.Fatalf("%s:\n%s\n%s:\n%s", args[0], a, args[1], b)
	}
}

// setfile NAME FILE sets a variable to a file's text, trimmed.
func setfile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setfile NAME FILE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}
