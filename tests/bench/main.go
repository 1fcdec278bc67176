// SPDX-License-Identifier: Apache-2.0

// Command bench measures gantry beside its peers in one run: pairs of runs made
// in turns, the ratio of their medians with its 95 % interval, raw figures kept
// as JSON. It reports; it asserts nothing. tests/bench/run.sh prepares for it.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// bench is one run: where things are and what was found.
type bench struct {
	bin, work, out string
	only           string
	bundled        bool   // the bundles of the peers are there
	docs           string // page whose figures are replaced; empty: none
	pairs          int
	slow           int // pairs of what takes seconds
	pods           int
	many           int          // pods and images beside which one is launched
	burst          int          // launches of which some run at a time
	containers     atomic.Int64 // named so far

	Host     string            `json:"host"`
	Versions map[string]string `json:"versions"`
	Rows     []row             `json:"rows"`
	Counts   []count           `json:"counts"`
	Sizes    []size            `json:"executables"`
	Memory   []figure          `json:"memory"`
	Left     []string          `json:"not_measured"`
}

type size struct {
	Name  string    `json:"name"`
	Bytes int64     `json:"bytes"`
	Start float64   `json:"start_ms"`
	Times []float64 `json:"times_ms"`
}

type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

func main() {
	var b bench
	flag.StringVar(&b.out, "out", "bench/out", "directory of the results")
	flag.StringVar(&b.bin, "bin", "bin", "directory of the executables")
	flag.IntVar(&b.pairs, "pairs", 40, "pairs of launches")
	flag.IntVar(&b.slow, "slow-pairs", 3, "pairs of fetches")
	flag.IntVar(&b.pods, "pods", 100, "pods that share an image")
	flag.IntVar(&b.many, "crowd", 1000, "pods and images beside which one is launched")
	flag.IntVar(&b.burst, "burst", 200, "launches of a burst")
	flag.StringVar(&b.only, "only", "oci,launches,networks,fetches,executables,memory,crowd", "what to measure")
	flag.StringVar(&b.docs, "docs", "", "page whose figures, between two comments, are replaced at the end")
	flag.Parse()
	if err := b.run(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func (b *bench) run() error {
	var err error
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp("", "gantry-bench"); err != nil {
		return err
	}
	defer b.remove()
	b.describe()
	fmt.Print(b.head())
	if err := b.prepare(); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{{"oci", b.oci}, {"launches", b.launches}, {"networks", b.networks}, {"fetches", b.fetches}, {"executables", b.executables}, {"memory", b.memory}, {"crowd", b.crowd}} {
		if !slices.Contains(strings.Split(b.only, ","), step.name) {
			continue
		}
		// One that fails leaves the others.
		if err := step.do(); err != nil {
			b.leaveOut(step.name, err)
		}
		b.save()
	}
	fmt.Print(b.foot())
	fmt.Fprintf(os.Stderr, "bench: kept in %s, every sample in bench.json\n", b.out)
	return b.document()
}

// The figures of a page stand between these.
const figuresFrom, figuresTo = "<!-- figures: written by make bench -->\n", "<!-- end of figures -->\n"

// document replaces the figures of a page.
func (b *bench) document() error {
	if b.docs == "" {
		return nil
	}
	page, err := os.ReadFile(b.docs)
	if err != nil {
		return err
	}
	before, rest, from := strings.Cut(string(page), figuresFrom)
	_, after, to := strings.Cut(rest, figuresTo)
	if !from || !to {
		return fmt.Errorf("%s has no place for figures", b.docs)
	}
	return os.WriteFile(b.docs, []byte(before+figuresFrom+"\n"+b.markdown()+"\n"+figuresTo+after), 0o644)
}

// remove leaves nothing; podman mounts its storage on itself.
func (b *bench) remove() {
	_ = unix.Unmount(filepath.Join(b.work, "podman", "overlay"), unix.MNT_DETACH)
	if err := os.RemoveAll(b.work); err != nil {
		fmt.Fprintf(os.Stderr, "bench: remove %s: %v\n", b.work, err)
	}
}

// env is a gantry of its own.
func (b *bench) env() []string {
	return append(os.Environ(),
		"GANTRY_DIR="+filepath.Join(b.work, "lib"), "GANTRY_RUN_DIR="+filepath.Join(b.work, "run"),
		"GANTRY_CONFIG_PATH="+filepath.Join(b.work, "etc"), "COSIGN_PASSWORD=")
}

// timed runs a command and tells how long it took.
func (b *bench) timed(name string, args ...string) (time.Duration, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = b.env()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	begin := time.Now()
	err := cmd.Run()
	took := time.Since(begin)
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, stderr.String())
	}
	return took, nil
}

func (b *bench) gantry(args ...string) (time.Duration, error) {
	return b.timed(filepath.Join(b.bin, "gantry"), args...)
}

func (b *bench) output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = b.env()
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

func (b *bench) describe() {
	b.Versions = map[string]string{}
	for name, args := range map[string][]string{
		"kernel": {"uname", "-r"}, "crun": {"crun", "--version"}, "runc": {"runc", "--version"},
		"podman": {"podman", "--version"}, "skopeo": {"skopeo", "--version"}, "umoci": {"umoci", "--version"},
		"gantry": {filepath.Join(b.bin, "gantry"), "version"},
	} {
		out, err := b.output(args[0], args[1:]...)
		if err != nil {
			out = "not there"
		}
		b.Versions[name], _, _ = strings.Cut(out, "\n")
	}
	cpus, _ := b.output("nproc")
	model, _ := b.output("sh", "-c", "grep -m1 '^model name' /proc/cpuinfo | cut -d: -f2-")
	b.Host = strings.TrimSpace(model) + ", " + cpus + " CPUs"
}

// prepare makes one image for everybody: signed for gantry, unpacked for those
// that want a bundle, stored for podman.
func (b *bench) prepare() error {
	if err := os.MkdirAll(filepath.Join(b.work, "etc", "trust.d"), 0o755); err != nil {
		return err
	}
	key := filepath.Join(b.work, "key")
	return errors.Join(
		b.mkimage("busybox", b.box()),
		b.quiet("trust", "keygen", "--output", key),
		b.quiet("trust", "add", "--prefix", b.layout(), key+".pub"),
		b.quiet("sign", "--key", key+".key", b.box()),
		b.quiet("fetch", b.box()),
	)
}

func (b *bench) layout() string { return "oci:" + filepath.Join(b.work, "oci") }

// box is the image that is launched.
func (b *bench) box() string { return b.layout() + ":box" }

func (b *bench) mkimage(args ...string) error {
	_, err := b.timed(filepath.Join(b.bin, "tests", "mkimage"), args...)
	return err
}

func (b *bench) quiet(args ...string) error {
	_, err := b.gantry(args...)
	return err
}

// compare adds a row measured by turns.
func (b *bench) compare(r row, n int, ours, theirs func() (time.Duration, error)) {
	b.add(r, n, turns, ours, theirs)
}

// add measures a row and shows it, or the reason why there is none. What was
// found so far is on disk before the next begins.
func (b *bench) add(r row, n int, measure measurement, ours, theirs func() (time.Duration, error)) {
	fmt.Fprintf(os.Stderr, "bench: %s: %s / %s, %d pairs\n", r.Name, r.Ours, r.Theirs, n)
	pairs, err := measure(n, ours, theirs)
	if err != nil {
		b.leave(r, err)
		return
	}
	r.Pairs = pairs
	r = r.judge()
	if len(b.Rows) == 0 {
		fmt.Print(rowsHead)
	}
	b.Rows = append(b.Rows, r)
	fmt.Print(r.markdown())
	b.save()
}

// leave notes that a row could not be measured.
func (b *bench) leave(r row, err error) { b.leaveOut(r.Name+" against "+r.Theirs, err) }

func (b *bench) leaveOut(what string, err error) {
	b.Left = append(b.Left, fmt.Sprintf("%s: %v", what, err))
	fmt.Fprintf(os.Stderr, "bench: not measured: %s: %v\n", what, err)
	b.save()
}

// save writes what is known so far.
func (b *bench) save() {
	j, err := json.MarshalIndent(b, "", "  ")
	err = errors.Join(err, os.MkdirAll(b.out, 0o755))
	err = errors.Join(err,
		os.WriteFile(filepath.Join(b.out, "bench.json"), j, 0o644),
		os.WriteFile(filepath.Join(b.out, "bench.md"), []byte(b.markdown()), 0o644))
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: keep the figures: %v\n", err)
	}
}

const rowsHead = "| what | ours (ms) | theirs (ms) | ratio | 95 % | pairs | budget |\n|---|---|---|---|---|---|---|\n"

func (r row) markdown() string {
	return fmt.Sprintf("| %s: `%s` against `%s` | %.1f | %.1f | %.2f | %.2f–%.2f | %d | %s |\n",
		r.Name, r.Ours, r.Theirs, r.A, r.B, r.Ratio, r.Low, r.High, len(r.Pairs), r.Budget)
}

func (b *bench) head() string {
	return fmt.Sprintf("Measured on %s, Linux %s, by `make bench` (%s).\n\n", b.Host, b.Versions["kernel"], time.Now().UTC().Format(time.DateOnly))
}

func (b *bench) sizesTable() string {
	if len(b.Sizes) == 0 {
		return ""
	}
	var s strings.Builder
	s.WriteString("\n| executable | size (MB) | start to exit (ms) |\n|---|---|---|\n")
	for _, e := range b.Sizes {
		fmt.Fprintf(&s, "| %s | %.1f | %.1f |\n", e.Name, float64(e.Bytes)/1e6, e.Start)
	}
	return s.String()
}

func (b *bench) memoryTable() string {
	if len(b.Memory) == 0 {
		return ""
	}
	var s strings.Builder
	s.WriteString("\n| memory, and lists | |\n|---|---|\n")
	for _, m := range b.Memory {
		fmt.Fprintf(&s, "| %s | %.2f %s |\n", m.Name, m.Value, m.Unit)
	}
	return s.String()
}

func (b *bench) foot() string {
	var peers []string
	for _, name := range []string{"gantry", "crun", "runc", "podman", "skopeo", "umoci"} {
		peers = append(peers, fmt.Sprintf("%s (%s)", name, b.Versions[name]))
	}
	s := "\nPeers: " + strings.Join(peers, ", ") + ".\n"
	for _, l := range b.Left {
		s += "\nNot measured: " + l + "\n"
	}
	return s
}

func (b *bench) markdown() string {
	var s strings.Builder
	s.WriteString(b.head() + rowsHead)
	for _, r := range b.Rows {
		s.WriteString(r.markdown())
	}
	return s.String() + b.countsTable() + b.sizesTable() + b.memoryTable() + b.foot()
}
