// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bundle unpacks the image with umoci and writes two configurations beside it:
// the least that has every namespace, and the one gantry itself would use.
func (b *bench) bundle() error {
	dir := filepath.Join(b.work, "bundle")
	// umoci of Debian 12 knows no zstd: one layer of gzip.
	if err := b.mkimage("inspect", filepath.Join(b.work, "plain")+":plain"); err != nil {
		return err
	}
	if out, err := b.output("umoci", "unpack", "--image", filepath.Join(b.work, "plain")+":plain", dir); err != nil {
		return fmt.Errorf("umoci unpack: %w: %s", err, out)
	}
	trivial := map[string]any{
		"ociVersion": "1.0.2",
		"root":       map[string]any{"path": filepath.Join(dir, "rootfs")},
		"process": map[string]any{
			"cwd": "/", "args": []string{"/bin/inspect", "exit", "0"}, "env": []string{"PATH=/bin"},
			"user": map[string]int{"uid": 0, "gid": 0},
		},
		"mounts": []map[string]any{{"destination": "/proc", "type": "proc", "source": "proc"}},
		"linux": map[string]any{"namespaces": []map[string]string{
			{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"},
		}},
	}
	return b.writeBundle("trivial", trivial)
}

func (b *bench) writeBundle(name string, spec any) error {
	dir := filepath.Join(b.work, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	j, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), j, 0o644)
}

// full asks gantry for the bundle it would launch, and gives it the unpacked
// root in place of the tree.
func (b *bench) full(ref string) error {
	out, err := b.output(filepath.Join(b.bin, "gantry"), "run", "--dry-run", "--net=host", ref, "exit", "0")
	if err != nil {
		return err
	}
	var plan map[string]any
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		return err
	}
	var spec map[string]any
	for _, v := range plan {
		if m, ok := v.(map[string]any); ok && m["ociVersion"] != nil {
			spec = m
		}
	}
	if spec == nil {
		return fmt.Errorf("the dry run shows no bundle")
	}
	spec["root"] = map[string]any{"path": filepath.Join(b.work, "bundle", "rootfs")}
	// The pod's own files went with the dry run.
	mounts, _ := spec["mounts"].([]any)
	spec["mounts"] = slices.DeleteFunc(mounts, func(m any) bool {
		mount, _ := m.(map[string]any)
		source, _ := mount["source"].(string)
		return strings.HasPrefix(source, b.work)
	})
	return b.writeBundle("full", spec)
}

func (b *bench) launches() error {
	ref := b.layout() + ":plain"
	key := filepath.Join(b.work, "key")
	for _, err := range []error{
		b.mkimage("inspect", ref), b.quiet("sign", "--key", key+".key", ref), b.quiet("fetch", ref),
	} {
		if err != nil {
			return err
		}
	}
	ours := func() (time.Duration, error) { return b.gantry("run", "--rm", "--net=host", ref, "exit", "0") }
	const name, command = "launch, verified", "gantry run --rm --net=host"
	if err := b.full(ref); err != nil {
		b.leave("the full default bundle", err)
	}
	for _, peer := range []struct{ program, bundle, budget string }{
		{"crun", "trivial", "≤ 2"}, {"crun", "full", ""}, {"runc", "trivial", ""}, {"runc", "full", ""},
	} {
		dir := filepath.Join(b.work, peer.bundle)
		n := 0
		theirs := func() (time.Duration, error) {
			n++
			return b.timed(peer.program, "--root", filepath.Join(b.work, "state-"+peer.program), "run", "--bundle", dir, fmt.Sprintf("bench-%d-%d", os.Getpid(), n))
		}
		if _, err := os.Stat(dir); err == nil {
			b.compare(row{Name: name, Ours: command, Theirs: peer.program + " run, " + peer.bundle + " bundle", Budget: peer.budget}, b.pairs, ours, theirs)
		}
	}
	podman := b.podman()
	if _, err := b.timed(podman[0], append(podman[1:], "pull", "-q", "oci:"+filepath.Join(b.work, "plain")+":plain")...); err != nil {
		b.leave(name+" against podman", err)
		return nil
	}
	id, err := b.output(podman[0], append(podman[1:], "images", "-q")...)
	if err != nil {
		return err
	}
	// Unless told otherwise podman asks for more than a root without
	// CAP_SYS_RESOURCE may have.
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	limit := fmt.Sprintf("--ulimit=nofile=%d:%d", files.Max, files.Max)
	theirs := func() (time.Duration, error) {
		return b.timed(podman[0], append(podman[1:], "run", "--rm", "--net=host", limit, strings.Fields(id)[0], "exit", "0")...)
	}
	b.compare(row{Name: name, Ours: command, Theirs: "podman run --rm --net=host"}, b.pairs, ours, theirs)
	return nil
}

// podman is a podman of its own, without a systemd.
func (b *bench) podman() []string {
	return []string{
		"podman", "--root", filepath.Join(b.work, "podman"), "--runroot", filepath.Join(b.work, "podman-run"),
		"--cgroup-manager=cgroupfs", "--runtime=crun", "--storage-driver=overlay", "--events-backend=none",
	}
}

// fetches times a registry on loopback to ready-to-run, from nothing each time.
func (b *bench) fetches() error {
	registry, err := b.serve()
	if err != nil {
		return err
	}
	ref, key := registry+"/bench/big:1", filepath.Join(b.work, "key")
	for _, err := range []error{
		b.mkimage("-push", "big", ref), b.quiet("sign", "--key", key+".key", ref),
		b.quiet("trust", "add", "--prefix", registry, key+".pub"),
	} {
		if err != nil {
			return err
		}
	}
	ours := func() (time.Duration, error) {
		took, err := b.gantry("fetch", ref)
		if err != nil {
			return 0, err
		}
		if err := b.quiet("image", "rm", ref); err != nil {
			return 0, err
		}
		return took, b.quiet("image", "gc")
	}
	podman := b.podman()
	pull := func() (time.Duration, error) {
		took, err := b.timed(podman[0], append(podman[1:], "pull", "-q", "--tls-verify=false", ref)...)
		if err != nil {
			return 0, err
		}
		_, err = b.timed(podman[0], append(podman[1:], "rmi", "-f", ref)...)
		return took, err
	}
	copyAndUnpack := func() (time.Duration, error) {
		dir := filepath.Join(b.work, "umoci")
		defer os.RemoveAll(dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
		a, err := b.timed("skopeo", "copy", "-q", "--src-tls-verify=false", "docker://"+ref, "oci:"+dir+"/layout:big")
		if err != nil {
			return 0, err
		}
		c, err := b.timed("umoci", "unpack", "--image", dir+"/layout:big", dir+"/bundle")
		return a + c, err
	}
	const name = "fetch to ready-to-run: 8 layers, 300 MB, 20,000 files"
	b.compare(row{Name: name, Ours: "gantry fetch", Theirs: "podman pull", Budget: "≤ 0.5"}, b.slow, ours, pull)
	b.compare(row{Name: name, Ours: "gantry fetch", Theirs: "skopeo copy + umoci unpack", Budget: "≤ 0.5"}, b.slow, ours, copyAndUnpack)
	return nil
}

// serve starts the loopback registry, which ends with this process.
func (b *bench) serve() (string, error) {
	cmd := exec.Command(filepath.Join(b.bin, "tests", "registry"), "-referrers")
	cmd.SysProcAttr = dieWithParent()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(line), err
}

func (b *bench) executables() error {
	for _, name := range []string{"gantry", "gantry-init", "gantry-stage1", "gantry-fetch", "gantry-seccomp"} {
		path := filepath.Join(b.bin, name)
		fi, err := os.Stat(path)
		if err != nil {
			b.leave(name, err)
			continue
		}
		var args []string
		if name == "gantry" {
			args = []string{"version"}
		}
		var times []float64
		for range b.pairs {
			begin := time.Now()
			// The others refuse to work when called by hand; the start is what counts.
			_ = exec.Command(path, args...).Run()
			times = append(times, milliseconds(time.Since(begin)))
		}
		b.Sizes = append(b.Sizes, size{name, fi.Size(), median(times)})
	}
	return nil
}

// memory starts one pod, then many, of an image whose program reads a large
// file, and looks at what they add.
func (b *bench) memory() error {
	ref, key := b.layout()+":web", filepath.Join(b.work, "key")
	for _, err := range []error{
		b.mkimage("-layers", "1", "-files", "4", "-size", "67108864", "big", ref),
		b.quiet("sign", "--key", key+".key", ref), b.quiet("fetch", ref),
		// The first launch may hash the files, which reads them.
		b.quiet("run", "--rm", ref, "true"),
	} {
		if err != nil {
			return err
		}
	}
	defer func() {
		for i := range b.pods {
			_ = b.quiet("rm", "--force", fmt.Sprintf("bench%d", i))
		}
	}()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o644); err != nil {
		return err
	}
	empty := meminfo("Cached")
	one := 0.0
	for i := range b.pods {
		name := fmt.Sprintf("bench%d", i)
		if _, err := b.gantry("run", "-d", "--name", name, "--net=host", ref, "sh", "-c", "cat /data/layer0/*/* > /dev/null; exec sleep 1000000"); err != nil {
			b.leave("memory of pods", err)
			return nil
		}
		if _, err := b.gantry("exec", name, "sh", "-c", "cat /data/layer0/*/* > /dev/null"); err != nil {
			b.leave("memory of pods", err)
			return nil
		}
		if i == 0 {
			one = meminfo("Cached") - empty
		}
	}
	all := meminfo("Cached") - empty
	dirty, n := supervisors(filepath.Join(b.bin, "gantry-stage1"))
	b.Memory = append(b.Memory,
		figure{"page cache with one pod reading 64 MB", one / 1024, "MB"},
		figure{fmt.Sprintf("page cache of %d pods, against one", b.pods), all / one, "times (budget ≤ 1.1)"},
		figure{fmt.Sprintf("private dirty memory of ours for each of %d pods", n), dirty / float64(max(n, 1)) / 1024, "MiB (budget ≤ 2)"},
	)
	return nil
}

// meminfo reads a line of /proc/meminfo, in kB.
func meminfo(key string) float64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return field(b, key)
}

func field(b []byte, key string) float64 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(key+":")); ok {
			n, err := strconv.ParseFloat(strings.Fields(string(rest))[0], 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// supervisors sums what processes of that executable hold privately, in kB.
func supervisors(executable string) (sum float64, n int) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, 0
	}
	for _, dir := range dirs {
		if exe, err := os.Readlink(dir + "/exe"); err != nil || exe != executable {
			continue
		}
		if b, err := os.ReadFile(dir + "/smaps_rollup"); err == nil {
			sum += field(b, "Private_Dirty")
			n++
		}
	}
	return sum, n
}
