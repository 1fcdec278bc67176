// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func dir(t *testing.T) string {
	t.Helper()
	d := t.TempDir()
	mkdir(t, filepath.Join(d, "x.d"))
	if err := os.Chmod(d, 0o755); err != nil {
		t.Fatal(err)
	}
	return d
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, layers ...string) []File {
	t.Helper()
	files, err := Load(layers, "x.d")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestParse(t *testing.T) {
	got, err := Parse([]byte("# comment\n; comment\n\n[A]\nKey = value with = and # \n\n  [B]  \n x=\n"))
	want := []Section{
		{"A", 4, []KeyValue{{"Key", "value with = and #", 5}}},
		{"B", 7, []KeyValue{{"x", "", 8}}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v", err, got)
	}
}

// After an error the rest is still read, so that a caller learns what the
// file was about.
func TestParseReadsOn(t *testing.T) {
	got, err := Parse([]byte("[A]\nnonsense\nPrefix=x\n"))
	if err == nil || !strings.Contains(err.Error(), "line 2: ") || len(got) != 1 || len(got[0].Keys) != 1 || got[0].Keys[0].Value != "x" {
		t.Errorf("%v, %+v", err, got)
	}
}

func TestLoadNames(t *testing.T) {
	d := dir(t)
	for _, name := range []string{"b.conf", "a.conf", ".hidden.conf", "a.conf.rpmsave", "README"} {
		write(t, filepath.Join(d, "x.d", name), "[A]\n", 0o644)
	}
	files := load(t, d)
	if len(files) != 2 || files[0].Name != "a.conf" || files[1].Name != "b.conf" {
		t.Errorf("%+v", files)
	}
}

func TestLayering(t *testing.T) {
	low, mid, high := dir(t), dir(t), dir(t)
	write(t, filepath.Join(low, "x.d/a.conf"), "[low]\n", 0o644)
	write(t, filepath.Join(low, "x.d/b.conf"), "[low]\n", 0o644)
	write(t, filepath.Join(low, "x.d/c.conf"), "[low]\n", 0o644)
	write(t, filepath.Join(mid, "x.d/a.conf"), "[mid]\n", 0o644)
	write(t, filepath.Join(mid, "x.d/b.conf"), "", 0o644)
	write(t, filepath.Join(high, "x.d/b.conf"), "[high]\n", 0o644)
	if err := os.Symlink("/dev/null", filepath.Join(high, "x.d/c.conf")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range load(t, low, mid, high) {
		if f.Problem != nil {
			t.Error(f.Problem)
		}
		got = append(got, f.Name+" "+f.Sections[0].Name)
	}
	if want := []string{"a.conf mid", "b.conf high"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestStrictModes(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, d string)
		want  string
	}{
		"group may write":  {func(t *testing.T, d string) { chmod(t, d+"/x.d/a.conf", 0o664) }, "a.conf is writable by others, mode 0664"},
		"all may write":    {func(t *testing.T, d string) { chmod(t, d+"/x.d/a.conf", 0o606) }, "mode 0606"},
		"directory":        {func(t *testing.T, d string) { chmod(t, d+"/x.d", 0o775) }, "x.d is writable by others, mode 0775"},
		"sticky directory": {func(t *testing.T, d string) { chmod(t, d+"/x.d", 0o777|fs.ModeSticky) }, "x.d is writable by others, mode 0777"},
		"parent":           {func(t *testing.T, d string) { chmod(t, d, 0o777) }, "is writable by others, mode 0777"},
		"link to an open directory": {func(t *testing.T, d string) {
			open := t.TempDir()
			write(t, filepath.Join(open, "real.conf"), "[A]\n", 0o644)
			chmod(t, open, 0o777)
			if err := errors.Join(os.Remove(d+"/x.d/a.conf"), os.Symlink(filepath.Join(open, "real.conf"), d+"/x.d/a.conf")); err != nil {
				t.Fatal(err)
			}
		}, "is writable by others, mode 0777"},
		"FIFO": {func(t *testing.T, d string) { fifo(t, d+"/x.d/a.conf") }, "is not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			d := dir(t)
			write(t, filepath.Join(d, "x.d/a.conf"), "[A]\n", 0o644)
			tt.spoil(t, d)
			files := load(t, d)
			if len(files) != 1 || files[0].Problem == nil || !strings.Contains(files[0].Problem.Error(), tt.want) {
				t.Errorf("%+v, want %q", files, tt.want)
			}
		})
	}
}

// A layer that is not there is empty, also below a link; a link that leads
// nowhere hides a layer.
func TestMissingLayers(t *testing.T) {
	d := dir(t)
	if err := errors.Join(os.Symlink(d, d+"/ok"), os.Symlink("nowhere", d+"/broken")); err != nil {
		t.Fatal(err)
	}
	if files := load(t, d+"/absent", d+"/ok/absent"); len(files) != 0 {
		t.Errorf("%+v", files)
	}
	files := load(t, d+"/broken")
	if len(files) != 1 || files[0].Name != "" || files[0].Problem == nil || !strings.Contains(files[0].Problem.Error(), "which is not there") {
		t.Errorf("%+v", files)
	}
}

// A link inside directories that may be believed is fine: configuration
// managers and image-based systems use them.
func TestTrustedLink(t *testing.T) {
	d := dir(t)
	mkdir(t, filepath.Join(d, "store"))
	write(t, filepath.Join(d, "store/real.conf"), "[A]\n", 0o644)
	if err := os.Symlink("../store/../store/real.conf", filepath.Join(d, "x.d/a.conf")); err != nil {
		t.Fatal(err)
	}
	if files := load(t, d); len(files) != 1 || files[0].Problem != nil || files[0].Path != filepath.Join(d, "x.d/a.conf") {
		t.Errorf("%+v", files)
	}
}

func TestRead(t *testing.T) {
	low, high := dir(t), dir(t)
	write(t, filepath.Join(low, "x.d/k"), "low", 0o644)
	if path, data, err := NewReader([]string{low, high}).Read("x.d/k", 10); err != nil || string(data) != "low" || path != filepath.Join(low, "x.d/k") {
		t.Errorf("%s %q %v", path, data, err)
	}
	write(t, filepath.Join(high, "x.d/k"), "high", 0o644)
	if _, data, err := NewReader([]string{low, high}).Read("x.d/k", 10); err != nil || string(data) != "high" {
		t.Errorf("%q %v", data, err)
	}
	if _, _, err := NewReader([]string{low, high}).Read("x.d/k", 3); err == nil {
		t.Error("too long a file is read")
	}
	// What cannot be believed does not fall through to the layer below.
	chmod(t, filepath.Join(high, "x.d/k"), 0o666)
	if _, _, err := NewReader([]string{low, high}).Read("x.d/k", 10); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("writable: %v", err)
	}
	write(t, filepath.Join(high, "x.d/k"), "", 0o644)
	if path, _, err := NewReader([]string{low, high}).Read("x.d/k", 10); !errors.Is(err, fs.ErrNotExist) || path != "" {
		t.Errorf("masked: %s %v", path, err)
	}
	if err := errors.Join(os.Remove(filepath.Join(high, "x.d/k")), os.Symlink("gone", filepath.Join(high, "x.d/k"))); err != nil {
		t.Fatal(err)
	}
	if path, _, err := NewReader([]string{low, high}).Read("x.d/k", 10); err == nil || path == "" {
		t.Errorf("dangling: %s %v", path, err)
	}
	for _, rel := range []string{"", "../x", "/etc/passwd", "a/../../b"} {
		if _, _, err := NewReader([]string{low}).Read(rel, 10); err == nil {
			t.Errorf("%q is read", rel)
		}
	}
	if _, err := Load([]string{"relative"}, "x.d"); err == nil {
		t.Error("a relative layer is read")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[A]\nk=v\n# c\n"))
	f.Add([]byte("[A\n=v\nk\\\n\r\n\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sections, _ := Parse(data)
		for _, s := range sections {
			for _, kv := range s.Keys {
				if strings.ContainsAny(kv.Key+kv.Value, "\n\r\x00\x1b") || kv.Line <= s.Line {
					t.Errorf("%+v in %+v", kv, s)
				}
			}
		}
	})
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func fifo(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o644)); err != nil {
		t.Fatal(err)
	}
}
