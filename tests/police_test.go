// SPDX-License-Identifier: Apache-2.0

// Package tests polices the tree: who may import whom, what each executable may
// link, and the habits that a reader relies on.
package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gantryrun/gantry/"

// layers is the table of imports in ARCHITECTURE.md: the packages of ours that
// those at or below a path may import; the longest path decides.
var layers = map[string][]string{
	"image":            {"internal"},
	"image/store":      {"image", "internal"},
	"image/tree":       {"image", "internal"},
	"signature":        {"image", "internal"},
	"fetch":            {"image", "signature", "internal"},
	"stage0":           {"stage1", "stage1/launch", "image", "signature", "cgroups", "netns", "seccomp", "userns", "internal"},
	"stage0/pod":       {"stage1", "internal"},
	"stage0/bundle":    {"stage1", "netns/network", "internal"},
	"stage0/volume":    {"stage0/bundle", "internal"},
	"stage1":           {},
	"stage1/launch":    {"stage1", "cgroups", "netns", "seccomp", "internal"},
	"stage1/supervise": {"stage1", "internal"},
	"stage1/container": {"stage1", "stage1/launch", "cgroups", "cgroups/systemd", "internal"},
	"cgroups":          {},
	"cgroups/systemd":  {},
	"netns":            {},
	"seccomp":          {},
	"userns":           {},
	"internal":         {},
}

// inside are the halves of stage1 that run in the pod or beside it for its
// whole life: they know the contract and the leaves.
var inside = []string{"stage1", "internal"}

// banned names what an executable must not link, with the reason.
var banned = map[string]map[string]string{
	"cmd/gantry": {
		"crypto/tls":             "TLS lives in the confined fetch executable",
		"net/http":               "the registry is spoken to by the confined fetch executable",
		"C":                      "a static start of a few milliseconds has no cgo",
		"runtime/cgo":            "a static start of a few milliseconds has no cgo",
		"oras.land/":             "registry code handles foreign bytes: gantry-fetch",
		"google.golang.org/grpc": "local commands start in a few milliseconds",
		"github.com/sigstore/":   "7 ms of start, and foreign bytes: gantry-fetch",
		"github.com/google/go-containerregistry/": "registry code handles foreign bytes: gantry-fetch",
		"github.com/klauspost/compress":           "decompression handles foreign bytes: gantry-fetch",
		"github.com/seccomp/":                     "cgo, in gantry-seccomp alone",
		module + "fetch/worker":                   "foreign bytes: gantry-fetch",
		module + "seccomp/compile":                "cgo, in gantry-seccomp alone",
		"google.golang.org/protobuf/":             "1 ms of start",
		"github.com/cilium/":                      "1 ms of start, and half a linker",
		"github.com/godbus/":                      "it starts what it starts itself",
		"github.com/containernetworking/":         "0.4 ms of start, and net/http with it: gantry-net",
		module + "netns/cni/invoke":               "it runs others' plugins: gantry-net",
	},
	"cmd/gantry-oci": {
		"crypto/tls":                  "an OCI runtime opens no network connection",
		"net/http":                    "an OCI runtime opens no network connection",
		"runtime/cgo":                 "a static start of a few milliseconds has no cgo",
		"github.com/spf13/cobra":      "engines start it several times per container",
		"google.golang.org/protobuf/": "1 ms of start",
		"github.com/cilium/":          "1 ms of start, and half a linker",
		"github.com/godbus/":          "a resolver and a poller for three messages: cgroups/systemd",
		module + "image":              "it knows bundles only",
		module + "fetch":              "it knows bundles only",
		module + "signature":          "it knows bundles only",
		module + "stage0":             "it knows bundles only",
	},
	"cmd/gantry-net": {
		"runtime/cgo":            "static",
		module + "image":         "it runs plugins, and knows nothing of images",
		module + "stage0":        "it runs plugins, and knows nothing of pods",
		module + "stage1/launch": "it runs plugins, and launches nothing",
	},
	"cmd/gantry-fetch": {
		"runtime/cgo":             "static",
		module + "stage0":         "it fetches, and knows nothing of pods",
		module + "stage1/launch":  "it fetches, and launches nothing",
		"github.com/containerd/":  "it fetches, and limits nothing",
		"github.com/vishvananda/": "it fetches, and configures no network",
		module + "cgroups":        "it fetches, and limits nothing",
		module + "signature/sign": "private keys are never near foreign bytes",
	},
}

// alone lists executables that may link nothing but the standard library,
// golang.org/x/sys, the contract and the leaves: they run inside the pod, or
// beside it for its whole life.
var alone = map[string][]string{
	"cmd/gantry-init":   {"stage1", "internal"},
	"cmd/gantry-stage1": {"stage1", "internal"},
}

// heavy is what not even those may take of the standard library.
var heavy = map[string]string{
	"net":        "resolver and poller",
	"net/http":   "TLS",
	"crypto/tls": "start-up and size",
	"regexp":     "what is parsed here is ours",
	"os/exec":    "it executes exactly one thing, by execve",
	"reflect":    "",
}

type listed struct {
	ImportPath   string
	Dir          string
	Imports      []string
	Deps         []string
	GoFiles      []string
	CgoFiles     []string
	TestGoFiles  []string
	XTestGoFiles []string
}

func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Imports,Deps,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles"}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// owner returns the longest path of the table that path is at or below.
func owner(path string, table []string) string {
	best := ""
	for _, p := range table {
		if (path == p || strings.HasPrefix(path, p+"/")) && len(p) > len(best) {
			best = p
		}
	}
	return best
}

func TestLayers(t *testing.T) {
	var rooms []string
	for room := range layers {
		rooms = append(rooms, room)
	}
	for _, p := range list(t, "./...") {
		path := strings.TrimPrefix(p.ImportPath, module)
		if owner(path, []string{"cmd", "tests", "docs"}) != "" {
			continue // they wire, drive and describe
		}
		room := owner(path, rooms)
		if room == "" {
			t.Errorf("%s has no row in the table of imports", path)
			continue
		}
		allowed := layers[room]
		if base := filepath.Base(path); room == "stage1/launch" && (base == "child" || base == "supervise") {
			allowed = inside
		}
		for _, imported := range p.Imports {
			imported, ours := strings.CutPrefix(imported, module)
			if !ours || strings.HasPrefix(imported, room) || owner(imported, allowed) != "" {
				continue
			}
			t.Errorf("%s imports %s: %s may import only %v of ours", path, imported, room, allowed)
		}
	}
}

func TestExecutablesLinkOnlyWhatTheyMay(t *testing.T) {
	for name, reasons := range banned {
		for _, dep := range list(t, "./"+name)[0].Deps {
			for prefix, reason := range reasons {
				if dep == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(dep, prefix) || strings.HasPrefix(dep, prefix+"/") {
					t.Errorf("%s links %s: %s", name, dep, reason)
				}
			}
		}
	}
	for name, allowed := range alone {
		for _, dep := range list(t, "./"+name)[0].Deps {
			if reason := heavy[dep]; reason != "" {
				t.Errorf("%s links %s: %s", name, dep, reason)
			}
			ours, isOurs := strings.CutPrefix(dep, module)
			switch {
			case isOurs && owner(ours, allowed) == "" && !strings.HasPrefix(ours, "stage1/"):
				t.Errorf("%s links %s: only the contract and the leaves", name, dep)
			case !isOurs && strings.Contains(strings.Split(dep, "/")[0], ".") && !strings.HasPrefix(dep, "golang.org/x/sys/"):
				if dep == "github.com/opencontainers/runtime-spec/specs-go" {
					continue // types of the contract
				}
				t.Errorf("%s links %s: only golang.org/x/sys", name, dep)
			}
		}
	}
}

// TestSources reads every Go file once for the habits a machine can see.
func TestSources(t *testing.T) {
	regexpAtStart := regexp.MustCompile(`^regexp\.(MustCompile|Compile)$`)
	for _, p := range list(t, "./...") {
		path := strings.TrimPrefix(p.ImportPath, module)
		command := strings.HasPrefix(path, "cmd/") || strings.HasPrefix(path, "tests/cmd/") || strings.HasPrefix(path, "docs/")
		documented := 0
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.TestGoFiles, p.XTestGoFiles) {
			file := filepath.Join(p.Dir, name)
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(source, []byte("// SPDX-License-Identifier: Apache-2.0\n")) {
				t.Errorf("%s/%s does not begin with its licence", path, name)
			}
			if n := bytes.Count(source, []byte("\n")); n > 700 {
				t.Errorf("%s/%s has %d lines: could a reader find the way?", path, name, n)
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, source, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			test := strings.HasSuffix(name, "_test.go")
			if parsed.Doc != nil && (!test || len(p.GoFiles) == 0) {
				documented++
			}
			if test {
				continue
			}
			checkDeclarations(t, path+"/"+name, parsed, command, regexpAtStart)
		}
		if documented != 1 {
			t.Errorf("%s has %d package comments, want one", path, documented)
		}
	}
}

func checkDeclarations(t *testing.T, file string, parsed *ast.File, command bool, regexpAtStart *regexp.Regexp) {
	t.Helper()
	for _, d := range parsed.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.Name == "init" && d.Recv == nil && !command {
				t.Errorf("%s has an init function: work at start is paid by every command", file)
			}
		case *ast.GenDecl:
			if d.Tok != token.VAR {
				continue
			}
			ast.Inspect(d, func(n ast.Node) bool {
				if _, ok := n.(*ast.FuncLit); ok {
					return false
				}
				if call, ok := n.(*ast.CallExpr); ok && regexpAtStart.MatchString(expression(call.Fun)) {
					t.Errorf("%s compiles a regular expression at start: every command pays for it", file)
				}
				return true
			})
		}
	}
}

func expression(e ast.Expr) string {
	if s, ok := e.(*ast.SelectorExpr); ok {
		if x, ok := s.X.(*ast.Ident); ok {
			return x.Name + "." + s.Sel.Name
		}
	}
	return ""
}

// TestWords looks for what must not be committed: admissions that something is
// missing, and places that exist on one machine only.
func TestWords(t *testing.T) {
	out, err := exec.Command("git", "-C", "..", "ls-files", "-z").Output()
	if err != nil {
		t.Skip("ability missing: git checkout (a tarball has no list of its files)")
	}
	// Written apart, so that this file does not find itself.
	words := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b|not ` + `implemented|unimple` + `mented|place` + `holder|/wo` + `rk/(main|shared)|SEA` + `MS\.md|farm-(stu` + `dio|ben` + `ch)`)
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if strings.Contains(name, "testdata/") || strings.HasSuffix(name, ".sum") || name == "LICENSE" {
			continue
		}
		b, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			continue // deleted, not yet committed
		}
		for i, line := range bytes.Split(b, []byte("\n")) {
			// The kernel's own words for a call it does not have.
			line = bytes.ReplaceAll(line, []byte("function not "+"implemented"), nil)
			if w := words.Find(line); w != nil {
				t.Errorf("%s:%d has %q", name, i+1, w)
			}
		}
	}
}

// TestGeneratedDocuments compares the manual pages with the commands.
func TestGeneratedDocuments(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "./docs/gen", dir)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("generate: %v\n%s", err, out)
	}
	out, err := exec.Command("diff", "-ru", filepath.Join("..", "docs", "man"), dir).CombinedOutput()
	if err != nil {
		t.Errorf("docs/man is not what the commands say, run make docs: %v\n%s", err, out)
	}
}
