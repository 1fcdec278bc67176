// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/tests/built"
)

// The executable itself: what it makes is kept and comes back the same, and
// what it refuses is said in its words.
func TestGantrySeccomp(t *testing.T) {
	libexec := filepath.Dir(built.Path(t, Compiler))
	sp, err := Default(nil)
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	first, err := Filter(t.Context(), sp, libexec, cache)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Filter(t.Context(), sp, libexec, cache)
	if err != nil || !bytes.Equal(first, second) || len(first) < 100*instruction {
		t.Errorf("filters of %d and %d bytes, %v", len(first), len(second), err)
	}
	only(t, cache)

	unknown := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"flux_capacitor"}, Action: specs.ActErrno}}}
	if _, err := Filter(t.Context(), unknown, libexec, cache); err == nil || !strings.Contains(err.Error(), `"flux_capacitor" and cannot forbid it`) {
		t.Errorf("forbidding an unknown call: %v", err)
	}
}
