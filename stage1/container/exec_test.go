// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// An engine that leaves a label or a limit out does not mean a process
// without; no_new_privs has no such third value.
func TestAProcessDocumentKeepsWhatItDoesNotSay(t *testing.T) {
	adj := 7
	own := &specs.Process{
		ApparmorProfile: "strict", OOMScoreAdj: &adj, NoNewPrivileges: true,
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}},
		Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}},
	}
	name := filepath.Join(t.TempDir(), "process.json")
	for document, want := range map[string]specs.Process{
		`{}`: {
			ApparmorProfile: "strict", OOMScoreAdj: &adj, Capabilities: own.Capabilities, Rlimits: own.Rlimits,
		},
		`{"apparmorProfile": "other", "noNewPrivileges": true, "capabilities": {}, "oomScoreAdj": 0, "rlimits": [{"type": "RLIMIT_CPU"}]}`: {
			ApparmorProfile: "other", NoNewPrivileges: true, OOMScoreAdj: new(int), Capabilities: &specs.LinuxCapabilities{},
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CPU"}},
		},
	} {
		if err := os.WriteFile(name, []byte(document), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadProcess(name, own)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v, %v", document, got, err)
		}
	}
	if err := os.WriteFile(name, []byte(strings.Repeat(" ", maxConfig+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadProcess(name, own); err == nil || !strings.Contains(err.Error(), "is larger than") {
		t.Errorf("a document without end: %v", err)
	}
}
