// SPDX-License-Identifier: Apache-2.0

package container

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A runtime that lacks a capability itself, as in a restricted sandbox, leaves
// it out of every set and names it once; what it has stays.
func TestWhatCannotBeGrantedIsLeftOutAndNamedOnce(t *testing.T) {
	asked := func() []string { return []string{"CAP_KILL", "CAP_TEST", "CAP_SYS_RESOURCE", "KILL"} }
	c := &specs.LinuxCapabilities{Bounding: asked(), Effective: asked(), Permitted: asked(), Inheritable: asked(), Ambient: asked()}
	out := limitCapabilities(c, ^uint64(1<<unix.CAP_SYS_RESOURCE))
	if want := []string{"CAP_TEST", "CAP_SYS_RESOURCE", "KILL"}; !slices.Equal(out, want) {
		t.Errorf("left out %v, want %v", out, want)
	}
	for i, set := range [][]string{c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient} {
		if !slices.Equal(set, []string{"CAP_KILL"}) {
			t.Errorf("set %d is %v", i, set)
		}
	}
}

// A user namespace gives its creator all of them, whatever the runtime has.
func TestAUserNamespaceHasAllCapabilities(t *testing.T) {
	all := []string{"CAP_KILL", "CAP_SYS_RESOURCE", "CAP_TEST"}
	spec := &specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: all}},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.UserNamespace}}},
	}
	var notes []string
	if err := grantable(spec, func(n string) { notes = append(notes, n) }); err != nil {
		t.Fatal(err)
	}
	if got := spec.Process.Capabilities.Bounding; !slices.Equal(got, all[:2]) || len(notes) != 1 {
		t.Errorf("bounding set %v, notes %q", got, notes)
	}
}
