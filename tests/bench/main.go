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
	"strings"
	"time"
)

// bench is one run: where things are and what was found.
type bench struct {
	bin, work string
	pairs     int
	slow      int // pairs of what takes seconds
	pods      int

	Host     string            `json:"host"`
	Versions map[string]string `json:"versions"`
	Rows     []row             `json:"rows"`
	Sizes    []size            `json:"executables"`
	Memory   []figure          `json:"memory"`
	Left     []string          `json:"not_measured"`
}

type size struct {
	Name  string  `json:"name"`
	Bytes int64   `json:"bytes"`
	Start float64 `json:"start_ms"`
}

type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

func main() {
	var b bench
	out := flag.String("out", "bench/out", "directory of the results")
	flag.StringVar(&b.bin, "bin", "bin", "directory of the executables")
	flag.IntVar(&b.pairs, "pairs", 40, "pairs of launches")
	flag.IntVar(&b.slow, "slow-pairs", 5, "pairs of fetches")
	flag.IntVar(&b.pods, "pods", 100, "pods that share an image")
	flag.Parse()
	if err := b.run(*out); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func (b *bench) run(out string) error {
	var err error
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp("", "gantry-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.work)
	b.describe()
	for _, step := range []func() error{b.prepare, b.launches, b.fetches, b.executables, b.memory} {
		if err := step(); err != nil {
			return err
		}
	}
	return b.write(out)
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
	key, layout := filepath.Join(b.work, "key"), b.layout()
	return errors.Join(
		b.mkimage("busybox", layout+":box"),
		b.quiet("trust", "keygen", "--output", key),
		b.quiet("trust", "add", "--prefix", layout, key+".pub"),
		b.quiet("sign", "--key", key+".key", layout+":box"),
		b.quiet("fetch", layout+":box"),
		b.bundle(),
	)
}

func (b *bench) layout() string { return "oci:" + filepath.Join(b.work, "oci") }

func (b *bench) mkimage(args ...string) error {
	_, err := b.timed(filepath.Join(b.bin, "tests", "mkimage"), args...)
	return err
}

func (b *bench) quiet(args ...string) error {
	_, err := b.gantry(args...)
	return err
}

func (b *bench) leave(what string, err error) {
	b.Left = append(b.Left, fmt.Sprintf("%s: %v", what, err))
	fmt.Fprintf(os.Stderr, "bench: not measured: %s: %v\n", what, err)
}

// compare adds a row, or the reason why there is none.
func (b *bench) compare(r row, n int, ours, theirs func() (time.Duration, error)) {
	fmt.Fprintf(os.Stderr, "bench: %s: %s / %s, %d pairs\n", r.Name, r.Ours, r.Theirs, n)
	pairs, err := measure(n, ours, theirs)
	if err != nil {
		b.leave(r.Name+" against "+r.Theirs, err)
		return
	}
	r.Pairs = pairs
	b.Rows = append(b.Rows, r.judge())
}

func (b *bench) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	j, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	text := b.markdown()
	fmt.Print(text)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "bench.json"), j, 0o644),
		os.WriteFile(filepath.Join(dir, "bench.md"), []byte(text), 0o644),
	)
}

func (b *bench) markdown() string {
	var s strings.Builder
	fmt.Fprintf(&s, "Measured on %s, Linux %s, by `make bench` (%s).\n\n", b.Host, b.Versions["kernel"], time.Now().UTC().Format(time.DateOnly))
	s.WriteString("| what | ours (ms) | theirs (ms) | ratio | 95 % | pairs | budget |\n|---|---|---|---|---|---|---|\n")
	for _, r := range b.Rows {
		fmt.Fprintf(&s, "| %s: `%s` against `%s` | %.1f | %.1f | %.2f | %.2f–%.2f | %d | %s |\n",
			r.Name, r.Ours, r.Theirs, r.A, r.B, r.Ratio, r.Low, r.High, len(r.Pairs), r.Budget)
	}
	s.WriteString("\n| executable | size (MB) | start to exit (ms) |\n|---|---|---|\n")
	for _, e := range b.Sizes {
		fmt.Fprintf(&s, "| %s | %.1f | %.1f |\n", e.Name, float64(e.Bytes)/1e6, e.Start)
	}
	s.WriteString("\n| memory | |\n|---|---|\n")
	for _, m := range b.Memory {
		fmt.Fprintf(&s, "| %s | %.2f %s |\n", m.Name, m.Value, m.Unit)
	}
	s.WriteString("\nPeers: ")
	for _, name := range []string{"gantry", "crun", "runc", "podman", "skopeo", "umoci"} {
		fmt.Fprintf(&s, "%s (%s) ", name, b.Versions[name])
	}
	s.WriteString("\n")
	for _, l := range b.Left {
		fmt.Fprintf(&s, "\nNot measured: %s\n", l)
	}
	return s.String()
}
