// SPDX-License-Identifier: Apache-2.0

package services

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSoak: twenty pods of four kinds on one network, started and ended in every
// way for a while (GANTRY_SOAK, half a minute by default); then the host is as it
// was before.
func TestSoak(t *testing.T) {
	duration := 30 * time.Second
	if d, err := time.ParseDuration(os.Getenv("GANTRY_SOAK")); err == nil {
		duration = d
	}
	s := open(t, "nginx", "redis", "web", "node")
	s.Must("network", "create", "street")
	before := s.host(nil)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	k := soak{site: s, random: rand.New(rand.NewPCG(seed, 0)), runs: map[int]bool{}}
	began := time.Now()
	for time.Since(began) < duration {
		k.turn()
	}
	t.Logf("%d starts, %d ends in %s", k.starts, k.ends, time.Since(began).Round(time.Second))
	for n := range pods {
		if k.runs[n] {
			k.end(n)
		}
	}
	s.Must("gc", "--grace-period", "0s")
	var diff []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		// The kernel takes namespaces down in its own time.
		s.Run("network", "prune", "--force")
		if diff = differ(before, s.host(k.pods)); len(diff) == 0 {
			return
		}
	}
	t.Errorf("the host is not as before:\n%s", strings.Join(diff, "\n"))
}

const pods = 20

type soak struct {
	*site
	random       *rand.Rand
	runs         map[int]bool
	pods         []string // that there ever were
	starts, ends int
}

// turn starts a pod that does not run, or ends one that does.
func (k *soak) turn() {
	k.t.Helper()
	n := k.random.IntN(pods)
	if !k.runs[n] {
		k.begin(n)
		k.starts++
		return
	}
	k.end(n)
	k.ends++
}

func (k *soak) name(n int) string { return fmt.Sprintf("pod%d", n) }

func (k *soak) begin(n int) {
	k.t.Helper()
	kinds := []struct{ image, port string }{{"nginx", "80"}, {"redis", "6379"}, {"web", "8000"}, {"node", "3000"}}
	kind := kinds[n%len(kinds)]
	uuid := k.start(k.name(n), "--net", "street", "-p", fmt.Sprintf("%d:%s", 9000+n, kind.port), k.image(kind.image))
	k.runs[n], k.pods = true, append(k.pods, uuid)
}

// end stops, kills or crashes it, and removes it.
func (k *soak) end(n int) {
	k.t.Helper()
	switch k.random.IntN(4) {
	case 0:
		k.Must("stop", "--time", "5", k.name(n))
		k.Must("rm", k.name(n))
	case 1:
		k.crash(k.name(n))
	default:
		k.Must("rm", "--force", k.name(n))
	}
	k.runs[n] = false
}

// host is what there is that could be left over of pods, a line each: all of
// the tests' own network, and of what others have, too, what is the pods'.
func (s *site) host(pods []string) []string {
	s.t.Helper()
	var all []string
	for _, c := range [][]string{{"ip", "-br", "link"}, {"ip", "-br", "address"}, {"ip", "rule"}, {"nft", "list", "ruleset"}} {
		out, err := exec.Command(c[0], c[1:]...).Output()
		if err != nil {
			s.t.Fatalf("%s: %v", strings.Join(c, " "), err)
		}
		for line := range strings.Lines(string(out)) {
			all = append(all, strings.Join(strings.Fields(line), " "))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, s.Dir) {
			all = append(all, "mount "+strings.TrimSpace(line))
		}
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(name string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.ContainsFunc(pods, func(uuid string) bool { return strings.Contains(d.Name(), uuid) }) {
			all = append(all, "control group "+name)
		}
		return nil
	})
	for _, pattern := range []string{"/sys/block/loop*/loop/backing_file", "/proc/[0-9]*/cmdline"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			// What cannot be read is gone by now.
			if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), s.Dir) {
				all = append(all, name+" "+strings.ReplaceAll(string(b), "\x00", " "))
			}
		}
	}
	for _, dir := range []string{"lib/pods/*/*", "run/networks/*/lease/[0-9a-f]*", "run/networks/*/members/*", "run/names/*"} {
		names, _ := filepath.Glob(filepath.Join(s.Dir, dir))
		all = append(all, names...)
	}
	return all
}

func differ(before, after []string) []string {
	var diff []string
	for _, line := range after {
		if !slices.Contains(before, line) {
			diff = append(diff, "new: "+line)
		}
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			diff = append(diff, "gone: "+line)
		}
	}
	return diff
}
