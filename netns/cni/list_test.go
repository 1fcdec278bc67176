// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const lan = `{"cniVersion":"1.0.0","name":"lan","plugins":[
 {"type":"bridge","ipam":{"type":"host-local"}},
 {"type":"portmap","capabilities":{"portMappings":true,"mac":false}}]}`

func TestParse(t *testing.T) {
	l, err := Parse("/n/lan.conflist", []byte(lan), nil)
	if err != nil {
		t.Fatal(err)
	}
	if l.Name != "lan" || l.Version != "1.0.0" || !slices.Equal(l.Types(), []string{"bridge", "portmap"}) {
		t.Errorf("%+v", l)
	}
	if !l.Has("portMappings") || l.Has("mac") || l.Has("dns") {
		t.Error("capabilities are those that are true, of any plugin")
	}
	one, err := Parse("/n/x.conf", []byte(`{"cniVersion":"0.4.0","name":"x","type":"loopback"}`), nil)
	if err != nil || !slices.Equal(one.Types(), []string{"loopback"}) {
		t.Errorf("a single plugin: %+v, %v", one, err)
	}
	again, err := Parse("/n/x.conflist", one.Bytes, nil)
	if err != nil || !slices.Equal(again.Types(), one.Types()) || again.Version != "0.4.0" {
		t.Errorf("what is used of it is a list: %s, %v", one.Bytes, err)
	}
}

func TestParseChoosesTheHighestKnownVersion(t *testing.T) {
	for text, want := range map[string]string{
		`"cniVersion":"0.4.0"`:                             "0.4.0",
		`"cniVersion":"0.4.0","cniVersions":["1.0.0"]`:     "1.0.0",
		`"cniVersion":"1.1.0","cniVersions":["0.3.1"]`:     "1.1.0",
		`"cniVersions":["1.1.0","2.0.0","0.4.0"]`:          "1.1.0",
		`"cniVersion":"9.0.0","cniVersions":["1.0.0"]`:     "1.0.0",
		`"disableGC":"true","cniVersions":["1.1.0-never"]`: "",
		`"disableGC":"true"`:                               "",
	} {
		l, err := Parse("/n/x.conflist", []byte(`{"name":"x",`+text+`,"plugins":[{"type":"a"}]}`), nil)
		if strings.Contains(text, "never") != (err != nil) {
			t.Errorf("%s: %v", text, err)
		}
		if l.Version != want {
			t.Errorf("%s: %q, want %q", text, l.Version, want)
		}
	}
}

func TestParseNamesFileAndField(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{"a.conflist", `{`, `a.conflist: line 1: unexpected end of JSON input`},
		{"a.conflist", "{\n\"name\": lan}", `a.conflist: line 2: invalid character 'l' looking for beginning of value`},
		{"a.conflist", `[]`, `a.conflist: [] is not an object`},
		{"a.conflist", `null`, `a.conflist: null is not an object`},
		{"a.conflist", `{"plugins":[{"type":"a"}]}`, `a.conflist: name: it is missing: a network is found by it`},
		{"a.conflist", `{"name":7,"plugins":[{"type":"a"}]}`, `a.conflist: name: 7 is not a string`},
		{"a.conflist", `{"name":"../x","plugins":[{"type":"a"}]}`, `a.conflist: name: "../x" is not letters, digits, '.', '_' and '-' beginning with a letter or digit`},
		{"a.conflist", `{"name":"x","cniVersion":1,"plugins":[{"type":"a"}]}`, `a.conflist: cniVersion: 1 is not a string`},
		{"a.conflist", `{"name":"x","cniVersion":"9.9","plugins":[{"type":"a"}]}`, `a.conflist: cniVersion: "9.9" is not a version this gantry knows: 0.1.0 0.2.0 0.3.0 0.3.1 0.4.0 1.0.0 1.1.0`},
		{"a.conflist", `{"name":"x","cniVersions":"1.0.0","plugins":[{"type":"a"}]}`, `a.conflist: cniVersions: "1.0.0" is not a list of strings`},
		{"a.conflist", `{"name":"x","disableCheck":3,"plugins":[{"type":"a"}]}`, `a.conflist: disableCheck: 3 is neither true nor false`},
		{"a.conflist", `{"name":"x"}`, `a.conflist: plugins: it is missing, and no file of one plugin is in NAME`},
		{"a.conflist", `{"name":"x","loadOnlyInlinedPlugins":true}`, `a.conflist: plugins: it is missing, and loadOnlyInlinedPlugins is true`},
		{"a.conflist", `{"name":"x","plugins":{}}`, `a.conflist: plugins: {} is not a list`},
		{"a.conflist", `{"name":"x","plugins":[]}`, `a.conflist: plugins: it is empty`},
		{"a.conflist", `{"name":"x","plugins":[{"type":"a"},{}]}`, `a.conflist: plugins[1].type: it is missing: it names the plugin's executable`},
		{"a.conflist", `{"name":"x","plugins":[7]}`, `a.conflist: plugins[0]: 7 is not an object`},
		{"a.conflist", `{"name":"x","plugins":[{"type":"a","capabilities":["mac"]}]}`, `a.conflist: plugins[0].capabilities: ["mac"] is not an object of booleans`},
		{"a.conflist", `{"name":"x","plugins":[{"type":"a","ipam":"host-local"}]}`, `a.conflist: plugins[0].ipam: "host-local" is not an object`},
		{"a.conf", `{"name":"x","plugins":[]}`, `a.conf: plugins: a list is read from a file whose name ends in .conflist`},
	} {
		_, err := Parse(c.file, []byte(c.text), nil)
		var field *FieldError
		if err == nil || err.Error() != c.want || !errors.As(err, &field) {
			t.Errorf("%s %s:\n %v\nwant\n %s", c.file, c.text, err, c.want)
		}
	}
}

// TestCVE_2021_20206_TypeIsABareName: a plugin's type is the name of an executable in a directory
// of plugins; with a path in it the caller ran any program as root.
func TestCVE_2021_20206_TypeIsABareName(t *testing.T) {
	for _, bad := range []string{"../../../tmp/x", "/bin/sh", "a/b", `a\b`, "..", ".", "", ".hidden", "a b", "a\x00b"} {
		quoted, _ := json.Marshal(bad)
		for _, plugin := range []string{`{"type":` + string(quoted) + `}`, `{"type":"bridge","ipam":{"type":` + string(quoted) + `}}`} {
			if l, err := Parse("/n/x.conflist", []byte(`{"name":"x","plugins":[`+plugin+`]}`), nil); err == nil || l.Bytes != nil {
				t.Errorf("%s was taken", plugin)
			}
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	list := func(name, plugin string) string {
		return `{"name":"` + name + `","plugins":[{"type":"` + plugin + `"}]}`
	}
	write("usr/lan.conflist", list("lan", "vendor"))
	write("usr/gone.conflist", list("gone", "vendor"))
	want := write("etc/lan.conflist", list("lan", "admin"))
	write("etc/gone.conflist", "") // masks
	write("etc/note.txt", "not of ours")
	write("cni/10-lan.conflist", list("lan", "theirs"))
	write("cni/20-b.conf", `{"name":"twice","type":"single"}`)
	write("cni/30-a.conflist", list("twice", "listed"))
	write("cni/40-split.conflist", `{"name":"split","plugins":[{"type":"one"}]}`)
	write("cni/split/a.conf", `{"type":"two"}`)
	write("cni/50-broken.conflist", `{"name":"broken","plugins":[{"type":"a/b"}]}`)
	write("cni/60-nonsense.conflist", `nonsense`)

	all, err := Load([]string{dir + "/usr", dir + "/etc", dir + "/none"}, []string{dir + "/cni"}, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	find := func(name string) List {
		t.Helper()
		l, err := Find(all, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return l
	}
	if l := find("lan"); l.File != want || l.Shared || l.Types()[0] != "admin" {
		t.Errorf("the administrator's layer wins over the vendor's and over other programs': %+v", l)
	}
	if l := find("twice"); l.Types()[0] != "listed" || !l.Shared {
		t.Errorf("a list wins over a single plugin: %+v", l)
	}
	if l := find("split"); !slices.Equal(l.Types(), []string{"one", "two"}) {
		t.Errorf("plugins beside the list belong to it: %v", l.Types())
	}
	if _, err := Find(all, "broken"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a broken file is no missing one: %v", err)
	}
	if _, err := Find(all, "gone"); !errors.Is(err, ErrNotFound) {
		t.Errorf("masked: %v", err)
	}
	if err := Broken(all); err == nil || !strings.Contains(err.Error(), "60-nonsense.conflist: line 1") || strings.Contains(err.Error(), "50-broken") {
		t.Errorf("a file without a readable name may be any network: %v", err)
	}
}

func TestRecord(t *testing.T) {
	dir := t.TempDir()
	pod := filepath.Join(dir, "run", "p1")
	if err := os.MkdirAll(pod, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRecord(pod); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing attached: %v", err)
	}
	on := []Attachment{{Network: "lan", Pod: "p1", IfName: "eth0", List: json.RawMessage(`{"name":"lan"}`), Capabilities: Capabilities{MAC: "02:00:00:00:00:01"}}}
	if err := WriteRecord(pod, on); err != nil {
		t.Fatal(err)
	}
	all, err := Recorded(dir)
	if err != nil || len(all) != 1 || all[0].Capabilities.MAC != on[0].Capabilities.MAC || string(all[0].List) != `{"name":"lan"}` {
		t.Errorf("%+v, %v", all, err)
	}
	if got := on[0].Capabilities.Asked(); !slices.Equal(got, []string{"mac"}) {
		t.Errorf("asked for %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a.conflist", []byte(lan))
	f.Add("a.conf", []byte(`{"name":"x","type":"loopback"}`))
	f.Add("a.conflist", []byte(`{"name":"x","cniVersions":["1.0.0"],"disableCheck":"TRUE","plugins":[{"type":"a","ipam":null}]}`))
	f.Fuzz(func(t *testing.T, file string, data []byte) {
		l, err := Parse(file, data, nil)
		if err != nil {
			return
		}
		if !ValidName(l.Name) || len(l.Plugins) == 0 || !json.Valid(l.Bytes) {
			t.Fatalf("%q: %+v", data, l)
		}
		for _, p := range l.Plugins {
			if !ValidType(p.Type) || filepath.Base(p.Type) != p.Type {
				t.Fatalf("plugin %q", p.Type)
			}
		}
		again, err := Parse("x.conflist", l.Bytes, nil)
		if err != nil || again.Name != l.Name || !slices.Equal(again.Types(), l.Types()) || again.Version != l.Version {
			t.Fatalf("%s is read as %+v, %v", l.Bytes, again, err)
		}
	})
}
