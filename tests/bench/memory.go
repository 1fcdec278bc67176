// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func (b *bench) executables() error {
	for _, name := range []string{"gantry", "gantry-oci", "gantry-init", "gantry-stage1", "gantry-fetch", "gantry-seccomp"} {
		path := filepath.Join(b.bin, name)
		fi, err := os.Stat(path)
		if err != nil {
			b.leaveOut(name, err)
			continue
		}
		var args []string
		switch name {
		case "gantry":
			args = []string{"version"}
		case "gantry-oci":
			args = []string{"--version"}
		}
		var times []float64
		for range b.pairs {
			begin := time.Now()
			// The others refuse to work when called by hand; the start is what counts.
			_ = exec.Command(path, args...).Run()
			times = append(times, milliseconds(time.Since(begin)))
		}
		b.Sizes = append(b.Sizes, size{name, fi.Size(), median(times), times})
	}
	fmt.Print(b.sizesTable())
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
		for i := range b.pods { // sleep as PID 1 does not hear SIGTERM
			name := fmt.Sprintf("bench%d", i)
			_ = b.quiet("stop", "--time", "0", name)
			_ = b.quiet("rm", "--force", name)
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
			return err
		}
		if _, err := b.gantry("exec", name, "sh", "-c", "cat /data/layer0/*/* > /dev/null"); err != nil {
			return err
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
	fmt.Print(b.memoryTable())
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
