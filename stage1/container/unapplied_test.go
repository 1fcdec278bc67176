// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestWhatIsNotAppliedIsNamed(t *testing.T) {
	var spec specs.Spec
	const config = `{"linux":{"mountLabel":"l","resources":{"network":{"classID":1},"memory":{"limit":1,"useHierarchy":false,"kernel":1,"kernelTCP":1},"blockIO":{"weight":10,"leafWeight":10}}}}`
	if err := json.Unmarshal([]byte(config), &spec); err != nil {
		t.Fatal(err)
	}
	want := []string{"linux.mountLabel", "linux.resources.memory.kernel", "linux.resources.memory.useHierarchy"}
	if got := unapplied(&spec, false); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := unapplied(&spec, true); !slices.Equal(got, want[1:]) {
		t.Errorf("with SELinux %q, want %q", got, want[1:])
	}
	if got := unapplied(Example(), false); len(got) > 0 {
		t.Errorf("of the example %q", got)
	}
}

// Who waited for the lock of a container that was deleted meanwhile must not
// get the next one of its id, which it has not locked.
func TestOpenWaitsForTheRightContainer(t *testing.T) {
	r := Root{Dir: t.TempDir()}
	if err := os.Mkdir(r.path("a"), 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := r.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	// What open does after the lock, when the directory is another by then.
	if err := os.Rename(r.path("a"), r.path("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.path("a"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := first.stillThere(); !errors.Is(err, ErrNotFound) {
		t.Errorf("the deleted container is taken for the new one: %v", err)
	}
	first.Close()
	second, err := r.open("a", unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := second.stillThere(); err != nil {
		t.Error(err)
	}
}
