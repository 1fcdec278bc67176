// SPDX-License-Identifier: Apache-2.0

package badinput

import (
	"iter"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/gantry"
	"github.com/gantryrun/gantry/tests/imagetest"
)

// row is one bad input.
type row struct {
	group, name string
	needs       []ability.Ability
	// do makes the situation and returns the command line that meets it.
	do func(f *fixture) []string
}

// fixture is a gantry of its own and what the row makes of it.
type fixture struct {
	*gantry.Host
	t        *testing.T
	registry string // host:port
	image    string // a reference to the row's image
	env      []string
	lacks    string   // system calls the kernel shall not have
	before   []string // a command that executes gantry
	user     int      // who runs gantry, in a directory of the row; 0 is root
	shown    []string
}

// outcome is what gantry did, with what changes from run to run taken out.
type outcome struct {
	group, name, command, said string
	status                     int
}

func TestBadInput(t *testing.T) {
	ability.Require(t, ability.Root)
	page := readPage(t)
	var all []outcome
	for _, r := range rows() {
		o, ran := outcome{}, false
		t.Run(strings.ReplaceAll(r.group+"/"+r.name, " ", "_"), func(t *testing.T) {
			ability.Require(t, append(r.needs, ability.Time)...)
			o, ran = r.meet(t), true
			if want, ok := page.find(r); !*update && (!ok || want.String() != o.String()) {
				t.Errorf("docs/errors.md has\n%sand this is\n%s", want, o)
			}
		})
		if want, ok := page.find(r); !ran && ok {
			o, ran = want, true
		}
		if ran {
			all = append(all, o)
		}
	}
	page.check(t, all)
}

// A disk that was full, and has room again, needs nothing else: the same command
// then does what it did not.
func TestAfterAFullDisk(t *testing.T) {
	ability.Require(t, ability.Root)
	f := &fixture{Host: gantry.New(t), t: t}
	f.image = f.Signed("app", f.program(imagetest.File{Path: "big", Body: noise(8 << 20)}))
	f.small(4 << 20)
	fetch := []string{"fetch", "--quiet", f.image}
	run := []string{"run", "--rm", "--net=none", f.image, "exit", "7"}
	for _, args := range [][]string{fetch, run} {
		if r := f.meet(args); r.Status != 125 || !strings.Contains(r.Stderr, "no space left on device") {
			t.Fatalf("%v: %d %s", args, r.Status, r.Stderr)
		}
	}
	if err := unix.Mount("none", filepath.Join(f.Dir, "lib"), "", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if r := f.meet(fetch); r.Status != 0 {
		t.Errorf("%d %s", r.Status, r.Stderr)
	}
	ballast := filepath.Join(f.Dir, "lib/ballast")
	fill(f, ballast)
	if r := f.meet(run); r.Status != 125 {
		t.Errorf("%d %s", r.Status, r.Stderr)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if r := f.meet(run); r.Status != 7 {
		t.Errorf("%d %s", r.Status, r.Stderr)
	}
}

// meet lets gantry meet the row, and holds the host against what it was.
func (r row) meet(t *testing.T) outcome {
	f := &fixture{Host: gantry.New(t), t: t}
	args := r.do(f)
	before := f.state()
	res := f.meet(args)
	if res.Killed || strings.Contains(res.Stderr, "goroutine ") {
		t.Fatalf("it hangs or crashes:\n%s", res.Stderr)
	}
	left := f.left(before)
	for deadline := time.Now().Add(5 * time.Second); len(left) > 0 && time.Now().Before(deadline); left = f.left(before) {
		time.Sleep(20 * time.Millisecond) // the groups of others' pods come and go
	}
	if len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	shown := slices.Clone(args)
	for i, arg := range shown {
		if arg == "" {
			shown[i] = "''" // as one writes it
		}
	}
	if f.shown != nil {
		shown = f.shown
	}
	return outcome{r.group, r.name, f.plain("gantry " + strings.Join(shown, " ")), f.plain(res.Stdout + res.Stderr), res.Status}
}

// meet runs gantry as the row wants it.
func (f *fixture) meet(args []string) gantry.Result {
	self, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	before := f.before
	if f.lacks != "" {
		before = []string{self, "--"}
		f.env = append(f.env, lackVar+"="+f.lacks)
	}
	if f.user > 0 {
		id := strconv.Itoa(f.user)
		f.env = append(f.env, "HOME="+f.Dir, "XDG_RUNTIME_DIR="+f.Dir, "GANTRY_LIBEXEC_DIR="+filepath.Join(f.Dir, "bin"))
		before = []string{"setpriv", "--reuid=" + id, "--regid=" + id, "--clear-groups", "sh", "-c", `shift; exec "$0" "$@"`, filepath.Join(f.Dir, "bin", "gantry")}
	}
	return f.Host.Wrapped(before, f.env, 3*time.Minute, args...)
}

// left is what was not there before.
func (f *fixture) left(before []string) []string {
	return slices.DeleteFunc(f.state(), func(s string) bool { return slices.Contains(before, s) })
}

// state lists what a failure could leave: images, pods, temporary files,
// mounts, links and groups of processes.
func (f *fixture) state() []string {
	var out []string
	lib := filepath.Join(f.Dir, "lib")
	_ = filepath.WalkDir(lib, func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(lib, path)
		if err != nil || d.IsDir() || kept(rel) {
			return nil // what vanishes meanwhile is not left
		}
		out = append(out, "file "+rel)
		return nil
	})
	if index, _ := os.ReadFile(filepath.Join(lib, "store/index.json")); strings.Contains(string(index), "digest") {
		out = append(out, string(index))
	}
	pods, _ := filepath.Glob(filepath.Join(lib, "pods/*/*"))
	out = append(out, pods...)
	names, _ := filepath.Glob(filepath.Join(f.Dir, "run/names/*"))
	out = append(out, names...)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.t.Fatal(err)
	}
	out = append(out, strings.Split(string(mounts), "\n")...)
	links, err := net.Interfaces()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, l := range links {
		out = append(out, "link "+l.Name)
	}
	out = append(out, emptyGroups()...)
	slices.Sort(out)
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// kept are files that a refused fetch may keep: what was verified, and will
// not be fetched again, and the files of locks.
func kept(rel string) bool {
	for _, dir := range []string{"store/blobs/", "trees/layers/", "trees/locks/", "trees/loops/", "trees/images/", "trees/plain/", "pods/", "receipts/", "networks/cni/"} {
		if strings.HasPrefix(rel, dir) {
			return true
		}
	}
	if strings.HasSuffix(rel, "/volume.json") {
		return true // a volume outlives who made it, and is filled by the next pod
	}
	return slices.Contains([]string{"host.key", "store/index.json", "store/index.json.next", "store/oci-layout", "store/version"}, rel)
}

// emptyGroups are control groups of pods in which nothing runs: those of
// others, in which something does, come and go as they like.
func emptyGroups() []string {
	var out []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() || !podGroup.MatchString(d.Name()) {
			return nil
		}
		if b, err := os.ReadFile(filepath.Join(path, "cgroup.procs")); err == nil && len(b) == 0 {
			out = append(out, "cgroup "+path)
		}
		return filepath.SkipDir
	})
	return out
}

var podGroup = regexp.MustCompile(`^gantry-[0-9a-f]{8}-`)

var patterns = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`sha(256|512):[0-9a-f]{12,128}`), "sha$1:…"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "…"},
	{regexp.MustCompile(`pod [0-9a-f]{8}\b`), "pod 0a1b2c3d"},
	{regexp.MustCompile(`(rm --force|gantry stop|in use by) [0-9a-f]{8}\b`), "$1 0a1b2c3d"},
	{regexp.MustCompile(`\bGo-http-client/[0-9.]+`), "Go-http-client"},
	{regexp.MustCompile(`50-oci_-\S+-oci\.conf`), "50-oci_-srv-oci.conf"},
	// What depends on how the test programs were built, and on the limits that
	// this host's control groups have.
	{regexp.MustCompile(`(the manifest says|sends more than the) \d+`), "$1 SIZE"},
	{regexp.MustCompile(`(images|sha256)/[0-9a-f]{64}`), "$1/…"},
	{regexp.MustCompile(`gantry: note: running without the default limit on [^\n]*\n`), ""},
	{regexp.MustCompile(`(\.host\.key)-[0-9a-f]{16}`), "$1-…"},
	// Which write meets the end of the disk is the kernel's affair.
	{regexp.MustCompile(`(layer sha256:…): .*: (no space left on device)`), "$1: …: $2"},
	{regexp.MustCompile(`write \S+ of pod (\S+): .*: (no space left on device)`), "write … of pod $1: …: $2"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
}

// plain takes out what is different each time.
func (f *fixture) plain(s string) string {
	if f.registry != "" {
		s = strings.ReplaceAll(s, f.registry, "registry.example.com")
	}
	s = strings.ReplaceAll(s, filepath.Join(f.Dir, "lib"), "/var/lib/gantry")
	s = strings.ReplaceAll(s, filepath.Join(f.Dir, "run"), "/run/gantry")
	s = strings.ReplaceAll(s, filepath.Join(f.Dir, "etc"), "/etc/gantry")
	s = strings.ReplaceAll(s, f.Dir, "/srv")
	for _, p := range patterns {
		s = p.re.ReplaceAllString(s, p.with)
	}
	return s
}

func splitComma(s string) iter.Seq[string] { return strings.SplitSeq(s, ",") }

// program is an image of the inspect program with files besides.
func (f *fixture) program(files ...imagetest.File) imagetest.Image {
	f.t.Helper()
	i, err := imagetest.Program(f.Program("inspect"))
	if err != nil {
		f.t.Fatal(err)
	}
	if len(files) > 0 {
		i.Layers = append(i.Layers, imagetest.Layer{Files: files, Compression: "gzip"})
	}
	return i
}

// fetched is a signed image in the store.
func (f *fixture) fetched(i imagetest.Image) string {
	f.t.Helper()
	f.image = f.Signed("app", i)
	f.Must("fetch", "--quiet", f.image)
	return f.image
}

func (f *fixture) pack(i imagetest.Image) imagetest.Packed {
	f.t.Helper()
	p, err := i.Pack()
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

func (f *fixture) write(name, text string) string {
	f.t.Helper()
	path := filepath.Join(f.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func (f *fixture) must(name string, args ...string) {
	f.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		f.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
