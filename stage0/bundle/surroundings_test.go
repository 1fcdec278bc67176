// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"slices"
	"strings"
	"testing"
)

// A zone is named below the directory of zones; nothing else is read.
func TestZoneFile(t *testing.T) {
	for name, want := range map[string]string{
		"local": "/etc/localtime", "UTC": "/usr/share/zoneinfo/UTC", "Etc/GMT+5": "/usr/share/zoneinfo/Etc/GMT+5",
	} {
		if got, err := ZoneFile(name); err != nil || got != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "./a", "a b", "a\n", "a/"} {
		if got, err := ZoneFile(name); err == nil {
			t.Errorf("%q was taken as %s", name, got)
		}
	}
}

func TestLabelFiles(t *testing.T) {
	in := input(Options{Labels: []string{"b=2"}, Surroundings: Surroundings{LabelFiles: []string{"f"}}})
	in.Host.LabelFiles = [][]byte{[]byte("# c\n\na=1\r\n  b=1\nbare\n")}
	r, err := Spec(in)
	if err != nil || r.Labels["a"] != "1" || r.Labels["b"] != "2" || len(r.Labels) != 3 {
		t.Errorf("%v, %v", r.Labels, err)
	}
	in.Host.LabelFiles = [][]byte{[]byte("a=1\n=x\n")}
	if _, err := Spec(in); err == nil || !strings.Contains(err.Error(), "--label-file f:2:") {
		t.Errorf("no name: %v", err)
	}
}

// The caller's environment is weaker than the image's, and absent unless asked for.
func TestCallersEnvironment(t *testing.T) {
	in := input(Options{Surroundings: Surroundings{EnvHost: true}})
	r, err := Spec(in)
	if err != nil || !slices.Contains(r.Spec.Process.Env, "SECRET=host") || !slices.Contains(r.Spec.Process.Env, "MODE=image") {
		t.Errorf("%q, %v", r.Spec.Process.Env, err)
	}
	in.Options = Options{Env: []string{"A=1"}, Surroundings: Surroundings{EnvHost: true, UnsetEnvAll: true}}
	r, err = Spec(in)
	if want := []string{"A=1", "HOSTNAME=6a0e1f0c", "HOME=/home/web"}; err != nil || !slices.Equal(r.Spec.Process.Env, want) {
		t.Errorf("%q, %v; want %q", r.Spec.Process.Env, err, want)
	}
}
