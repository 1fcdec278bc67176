// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The specification's own headings, so that nobody looks for one in vain.
func TestSectionsAreThoseOfTheSpecification(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/runtime-spec").Output()
	if err != nil {
		t.Skip("ability missing: the modules, which the guest has not")
	}
	for _, s := range sections() {
		file, heading, _ := strings.Cut(s[1], ", ")
		b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "/>"+heading+"\n") {
			t.Errorf("%s: %s has no heading %q", s[0], file, heading)
		}
	}
}

func TestInSection(t *testing.T) {
	for text, want := range map[string]string{
		"linux.namespaces[2].path: no": "linux.namespaces[2].path: no (config-linux.md, Namespaces)",
		"process: no":                  "process: no (config.md, Process)",
		"process.rlimits[0]: no":       "process.rlimits[0]: no (config.md, POSIX process)",
		"linux.resources.unified: no":  "linux.resources.unified: no (config-linux.md, Unified)",
		"hooks.prestart[0].path: no":   "hooks.prestart[0].path: no (config.md, POSIX-platform Hooks)",
		"hooks.prestart[0]: run /x":    "hooks.prestart[0]: run /x",
		"processing: no":               "processing: no",
		"root":                         "root",
		"mounts[1]: no (config.md, X)": "mounts[1]: no (config.md, X)",
	} {
		cause := errors.New(text)
		if got := InSection(cause); got.Error() != want || !errors.Is(got, cause) {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	if InSection(nil) != nil {
		t.Error("nothing became an error")
	}
}
