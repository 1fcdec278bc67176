// SPDX-License-Identifier: Apache-2.0

package cdi

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A specification as a vendor's generator writes it, with all that CDI knows.
const vendor = `---
cdiVersion: 0.8.0   # of the format
kind: example.com/gpu
annotations:
  "note": 'it''s here: #1'
containerEdits:
  env:
  - LIB=/usr/lib/gpu
  - "TAB=\t"
  additionalGIDs: [44, 0]
devices:
  - name: "0"
    containerEdits:
      deviceNodes:
      - path: /dev/gpu0
        hostPath: /dev/null
        fileMode: 0660
        permissions: rw
      - {path: /dev/gpuctl, type: c, major: 195, minor: 0x10, uid: 7}
      netDevices:
        - hostInterfaceName: eth7
          name: eth1
      mounts:
      -
        hostPath: /usr/lib/gpu
        containerPath: /usr/lib/gpu
        options:
        - ro
        - nosuid
      hooks:
      - hookName: createContainer
        path: /usr/bin/hook
        args: [hook, "--a, b", 'x: y']
        timeout: 5
  - name: all
    containerEdits:
`

func TestParse(t *testing.T) {
	s, err := Parse([]byte(vendor), false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(got, true)
	if err != nil || !reflect.DeepEqual(s, again) {
		t.Errorf("as JSON it is another: %v\n%s", err, got)
	}
	e := s.Devices[0].Edits
	switch {
	case s.Annotations["note"] != "it's here: #1", s.Edits.Env[1] != "TAB=\t", len(s.Edits.GIDs) != 2,
		*e.DeviceNodes[0].FileMode != 0o660, e.DeviceNodes[1].Minor != 16, *e.DeviceNodes[1].UID != 7,
		e.NetDevices[0].Name != "eth1", e.Mounts[0].Options[1] != "nosuid",
		!reflect.DeepEqual(e.Hooks[0].Args, []string{"hook", "--a, b", "x: y"}), *e.Hooks[0].Timeout != 5, s.Devices[1].Name != "all":
		t.Errorf("%s", got)
	}
}

// What is wrong is refused by line or by field.
func TestRefusals(t *testing.T) {
	spec := func(edits string) string {
		return "cdiVersion: 1.1.0\nkind: example.com/gpu\ndevices:\n- name: a\n  containerEdits:\n    " + edits + "\n"
	}
	for text, want := range map[string]string{
		"cdiVersion: 9.0.0\n":                              `cdiVersion: "9.0.0"`,
		"cdiVersion: 0.8.0\nkind: gpu\n":                   `kind: "gpu"`,
		"cdiVersion: 0.8.0\nkind: 1.com/gpu\n":             `kind: "1.com/gpu"`,
		"cdiVersion: 0.8.0\nkind: a.com/gpu\n":             "devices: are missing",
		"cdiVersion: 0.8.0\nkinds: a.com/gpu\n":            `unknown field "kinds"`,
		"a: 1\na: 2\n":                                     "line 2: a is given twice",
		"a: &x 1\n":                                        "line 1:",
		"a: |\n  text\n":                                   "line 1:",
		"a:\n\tb: 1\n":                                     "line 2: a tab",
		"a: 1\n---\nb: 2\n":                                "line 2: ---",
		"a: b: c\n":                                        "line 1:",
		"a: [1, 2\n":                                       "line 1: ] is missing",
		"a: \"x\n":                                         "line 1: a quote",
		"a: \"\\x41\"\n":                                   "line 1:",
		"a:\n    b: 1\n  c: 2\n":                           "line 3: its indentation",
		"just text\n":                                      "cannot unmarshal string",
		spec("env: [X]"):                                   `devices[0].containerEdits.env[0]: "X"`,
		spec("deviceNodes: [{path: x}]"):                   `deviceNodes[0].path: "x"`,
		spec("deviceNodes: [{path: /x, type: q}]"):         `deviceNodes[0].type: "q"`,
		spec("deviceNodes: [{path: /x, major: a}]"):        "deviceNodes.major of type int64",
		spec("deviceNodes: [{path: /x, major: -1}]"):       "deviceNodes[0].major",
		spec("deviceNodes: [{path: /x, permissions: x}]"):  "deviceNodes[0].permissions",
		spec("mounts: [{hostPath: x, containerPath: /y}]"): "mounts[0].hostPath",
		spec("mounts: [{hostPath: /x, containerPath: /}]"): "mounts[0].containerPath",
		spec("hooks: [{hookName: late, path: /x}]"):        `hooks[0].hookName: "late"`,
		spec("hooks: [{hookName: poststop, path: x}]"):     "hooks[0].path",
		spec("netDevices: [{hostInterfaceName: a/b}]"):     "netDevices[0]",
		spec("intelRdt: {closID: x}"):                      "devices[0].containerEdits.intelRdt: classes",
		"cdiVersion: 0.8.0\nkind: a.com/b\ndevices: [{name: x}, {name: x}]\n": `devices[1].name: "x" is given twice`,
		"cdiVersion: 0.8.0\nkind: a.com/b\ndevices: [{name: -x}]\n":           `devices[0].name: "-x"`,
	} {
		if _, err := Parse([]byte(text), false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
	if _, err := Parse([]byte(`{} {}`), true); err == nil {
		t.Error("two documents were taken")
	}
}

// The stronger directory wins, one that has a device twice is refused, and a
// wrong file matters when the device is not found without it.
func TestResolve(t *testing.T) {
	weak, strong := t.TempDir(), t.TempDir()
	write := func(dir, name, env string) {
		t.Helper()
		text := "cdiVersion: 0.8.0\nkind: example.com/gpu\ncontainerEdits: {env: [G=1]}\ndevices:\n- name: x\n  containerEdits: {env: [" + env + "]}\n- name: y\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dirs := []string{weak, strong, filepath.Join(weak, "none")}
	write(weak, "a.yaml", "E=weak")
	write(strong, "b.yaml", "E=strong")
	got, err := Resolve(dirs, []string{"example.com/gpu=x", "example.com/gpu=y"}, nil)
	if err != nil || len(got) != 3 || got[0].Env[0] != "G=1" || got[1].Env[0] != "E=strong" || len(got[2].Env) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(weak, "wrong.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	notes := 0
	if _, err := Resolve(dirs, []string{"example.com/gpu=x"}, func(string) { notes++ }); err != nil || notes != 1 {
		t.Errorf("a wrong file beside: %v, %d notes", err, notes)
	}
	if _, err := Resolve(dirs, []string{"example.com/gpu=z"}, nil); err == nil || !strings.Contains(err.Error(), "wrong.json is wrong: unexpected EOF") {
		t.Errorf("a wrong file that may have it: %v", err)
	}
	if err := unix.Mkfifo(filepath.Join(weak, "0.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Resolve(dirs, []string{"example.com/gpu=z"}, nil); err == nil || !strings.Contains(err.Error(), "0.json is wrong: it is not a regular file") {
		t.Errorf("a FIFO, which nobody writes to: %v", err)
	}
	write(strong, "c.yaml", "E=2")
	if _, err := Resolve(dirs, []string{"example.com/gpu=x"}, nil); err == nil || !strings.Contains(err.Error(), "both ") {
		t.Errorf("twice: %v", err)
	}
}

func TestIsName(t *testing.T) {
	for name, want := range map[string]bool{
		"nvidia.com/gpu=all": true, "a/b=0": true, "vendor.com/net-dev=mlx5_0:1": true,
		"/dev/null": false, "a/b": false, "/b=c": false, "a/b=": false, "a/=x": false, "/dev/a=b": false, "a/b/c=d": false,
	} {
		if IsName(name) != want {
			t.Errorf("%q: want %v", name, want)
		}
	}
}

// Whatever a file holds, reading it ends, and what it is read as is JSON.
func FuzzYAML(f *testing.F) {
	f.Add([]byte(vendor))
	for _, s := range []string{"a: [1, {b: c}]\n", "- - - x\n", "-\n-\n", "a:\n- b\n-\n  c: d\n", "'a': \"b\"\n", "a: # c\n", "? x\n", "- a: 1\n  b: 2\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := toJSON(b)
		if err == nil && !json.Valid(out) {
			t.Errorf("%q became %s", b, out)
		}
		_, _ = Parse(b, false)
		_, _ = Parse(b, true)
	})
}
