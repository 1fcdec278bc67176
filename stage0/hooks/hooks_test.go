// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func file(when, stages string) string {
	return `{"version": "1.0.0", "hook": {"path": "/bin/true"}, "when": ` + when + `, "stages": ` + stages + `}`
}

// All that is set has to hold, as oci-hooks(5) has it.
func TestMatch(t *testing.T) {
	spec := &specs.Spec{Process: &specs.Process{Args: []string{"/usr/sbin/nginx", "-g"}}, Annotations: map[string]string{"com.example.gpu": "yes"}}
	for when, want := range map[string][2]bool{ // without bind mounts, with
		`{"always": true}`:                                 {true, true},
		`{"always": false}`:                                {false, false},
		`{"hasBindMounts": true}`:                          {false, true},
		`{"hasBindMounts": false}`:                         {true, false},
		`{"commands": ["nginx$"]}`:                         {true, true},
		`{"commands": ["^nginx"]}`:                         {false, false},
		`{"commands": ["no", "sbin"]}`:                     {true, true},
		`{"annotations": {"gpu$": "^yes$"}}`:               {true, true},
		`{"annotations": {"gpu$": "no"}}`:                  {false, false},
		`{"annotations": {"gpu": "yes"}, "always": false}`: {false, false},
		`{"always": true, "hasBindMounts": true}`:          {false, true},
		`{"always": true, "commands": ["^x"]}`:             {false, false},
	} {
		f, err := Parse([]byte(file(when, `["poststop"]`)))
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		for i, binds := range []bool{false, true} {
			if f.When.Match(spec, binds) != want[i] {
				t.Errorf("%s, bind mounts %v: want %v", when, binds, want[i])
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	for text, want := range map[string]string{
		`{"version": "0.1.0"}`: "version:", "{": "unexpected EOF", `{"hooks": 1}`: "unknown field",
		`{"version": "1.0.0", "hook": {"path": "x"}}`:           "hook.path:",
		file(`{"always": true}`, `[]`):                          "stages: are missing",
		file(`{"always": true}`, `["late"]`):                    `stages[0]: "late"`,
		file(`{}`, `["poststop"]`):                              "when: is empty",
		file(`{"commands": ["("]}`, `["poststop"]`):             "when.commands[0]:",
		file(`{"annotations": {"a": "("}}`, `["poststop"]`):     "when.annotations:",
		file(`{"always": true}`, `["poststop"]`) + `{}`:         "something follows",
		file(`{"always": true, "never": true}`, `["poststop"]`): "unknown field",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}

// A later directory's file stands for one of its name; the order is that of
// names, whatever directory they are in.
func TestLoad(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first, "b.json", file(`{"always": false}`, `["prestart"]`))
	write(first, "C.json", file(`{"always": true}`, `["poststop"]`))
	write(first, "README", "no hook")
	write(second, "b.json", file(`{"always": true}`, `["createContainer"]`))
	write(second, "a.json", file(`{"always": true}`, `["poststart"]`))
	files, err := Load([]string{first, second})
	if err != nil || len(files) != 3 || files[0].Stages[0] != "poststart" || files[1].Stages[0] != "createContainer" || files[2].Stages[0] != "poststop" {
		t.Errorf("%+v, %v", files, err)
	}
	write(second, "d.json", strings.Replace(file(`{"always": true}`, `["poststop"]`), "/bin/true", "/nowhere/hook", 1))
	if _, err := Load([]string{first, second}); err == nil || !strings.Contains(err.Error(), "d.json: hook.path: stat /nowhere/hook") {
		t.Errorf("a program that is not there: %v", err)
	}
	if _, err := Load([]string{filepath.Join(first, "none")}); err == nil {
		t.Error("a directory that is not there was taken")
	}
	if err := unix.Mkfifo(filepath.Join(first, "0.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load([]string{first}); err == nil || !strings.Contains(err.Error(), "0.json: it is not a regular file") {
		t.Errorf("a FIFO, which nobody writes to: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(file(`{"always": true, "annotations": {"a": "b"}}`, `["poststop"]`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := Parse(b); err == nil {
			h.When.Match(&specs.Spec{Process: &specs.Process{Args: []string{"x"}}}, true)
		}
	})
}
