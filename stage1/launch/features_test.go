// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"slices"
	"strconv"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// minimal is a bundle that can be planned.
func minimal() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Args: []string{"x"}, Cwd: "/"},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}}},
	}
}

// plans tells whether a bundle that uses a feature is taken.
func plans(edit func(*specs.Spec)) bool {
	s := minimal()
	edit(s)
	_, err := Plan(s, PlanOptions{Root: RootPlan{Dir: "/x"}, Container: "id"})
	return err == nil
}

// Whatever word the parser of mount options knows is listed, and what is
// listed it takes for itself. The words come from its source, so that a new
// one is not forgotten.
func TestFeaturesListMountOptionsTheParserTakes(t *testing.T) {
	words := parserWords(t)
	if len(words) < 30 {
		t.Fatalf("only %d words found in the parser: %v", len(words), words)
	}
	listed := Features().MountOptions
	words = append(words, listed...)
	for _, word := range slices.Compact(slices.Sorted(slices.Values(words))) {
		o, err := parseMountOptions([]string{word})
		takes := err == nil && len(o.data) == 0
		if takes != slices.Contains(listed, word) {
			t.Errorf("option %q: the parser takes it: %v (%v), features list it: %v", word, takes, err, !takes)
		}
	}
}

// parserWords are all strings in the functions that read options, with and
// without the "r" of the recursive ones.
func parserWords(t *testing.T) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "mounts.go", nil, 0)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("ability missing: the source, which the guest has not")
	}
	if err != nil {
		t.Fatal(err)
	}
	words := []string{"sync", "acl", "remount", "idmap", "ridmap", "size=1m"}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || !slices.Contains([]string{"attribute", "propagation", "other", "parseMountOptions"}, fn.Name.Name) {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil && s != "" {
					words = append(words, s, "r"+s)
				}
			}
			return true
		})
	}
	return words
}

// What is not listed is refused, what is listed can be planned.
func TestFeaturesTellTheTruth(t *testing.T) {
	f := Features()
	hook := []specs.Hook{{Path: "/x"}}
	for name, hooks := range map[string]*specs.Hooks{
		"prestart":        {Prestart: hook},
		"createRuntime":   {CreateRuntime: hook},
		"createContainer": {CreateContainer: hook},
		"startContainer":  {StartContainer: hook},
		"poststart":       {Poststart: hook},
		"poststop":        {Poststop: hook},
	} {
		if got, listed := plans(func(s *specs.Spec) { s.Hooks = hooks }), slices.Contains(f.Hooks, name); got != listed {
			t.Errorf("hook %s: taken %v, listed %v", name, got, listed)
		}
	}
	for _, kind := range []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace,
		specs.CgroupNamespace, specs.UserNamespace, specs.TimeNamespace,
	} {
		got := plans(func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
			if kind == specs.UserNamespace {
				ids := []specs.LinuxIDMapping{{Size: 1}}
				s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
			}
		})
		if listed := slices.Contains(f.Linux.Namespaces, string(kind)); got != listed {
			t.Errorf("namespace %s: taken %v, listed %v", kind, got, listed)
		}
	}
	for name, c := range map[string]struct {
		listed bool
		edit   func(*specs.Spec)
	}{
		"idmap": {*f.Linux.MountExtensions.IDMap.Enabled, func(s *specs.Spec) {
			ids := []specs.LinuxIDMapping{{Size: 1}}
			s.Mounts = []specs.Mount{{Destination: "/x", Type: "bind", Source: "/", Options: []string{"bind"}, UIDMappings: ids, GIDMappings: ids}}
		}},
		"intelRdt": {*f.Linux.IntelRdt.Enabled, func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }},
		"netDevices": {*f.Linux.NetDevices.Enabled, func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"x": {}}
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
		}},
		"apparmor": {*f.Linux.Apparmor.Enabled, func(s *specs.Spec) { s.Process.ApparmorProfile = "x" }},
		"selinux":  {*f.Linux.Selinux.Enabled, func(s *specs.Spec) { s.Process.SelinuxLabel, s.Linux.MountLabel = "x", "y" }},
		"memoryPolicy": {f.Linux.MemoryPolicy != nil, func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolDefault}
		}},
		"every capability": {true, func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: f.Linux.Capabilities}
		}},
	} {
		if got := plans(c.edit); got != c.listed {
			t.Errorf("%s: taken %v, listed %v", name, got, c.listed)
		}
	}
	if !plans(func(*specs.Spec) {}) {
		t.Error("the minimal bundle is not taken: nothing of this was tested")
	}
}
