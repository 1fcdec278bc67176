// SPDX-License-Identifier: Apache-2.0

package tree_test

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image/tree"
)

// TestUmociSeesTheSameTree unpacks images with umoci, mounts and materialises
// ours, and compares every inode: type, mode, owner, device, size, times,
// xattrs, link structure, content.
func TestUmociSeesTheSameTree(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skip("ability missing: umoci")
	}
	for name, layers := range map[string]func(testing.TB) []*archive{
		"odd entries":       oddLayers,
		"whiteouts":         whiteoutLayers,
		"hard links":        linkLayers,
		"replacements":      replaceLayers,
		"a hundred layers":  hundredLayers,
		"65600 files":       wideLayers,
		"holes":             holeLayers,
		"deep and long":     deepLayers,
		"random operations": randomLayers,
		"busybox":           busyboxLayers,
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			if testing.Short() && name == "65600 files" {
				t.Skip("umoci needs half a minute for these")
			}
			var blobs []blob
			for _, a := range layers(t) {
				blobs = append(blobs, gzipped(t, a.tar()))
			}
			againstUmoci(t, blobs)
		})
	}
}

func againstUmoci(t *testing.T, blobs []blob) {
	t.Helper()
	implied := impliedTimes(time.Now())
	rootfs := unpack(t, blobs)
	d := openDir(t)
	tr, err := build(d, blobs...)
	if err != nil {
		t.Fatal(err)
	}
	want := inodes(t, rootfs)
	plain, err := d.Materialise(t.Context(), tr)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, want, inodes(t, plain), implied)
	fsck(t, d, tr)
	compare(t, want, inodes(t, under(mount(t, d, tr), "")), implied)
}

// impliedTimes forgives umoci the present: a directory in which something was
// made or removed by a layer that has no entry for the directory itself gets
// the time of the unpacking. Its time is an attribute like others ("file
// attributes for Additions and Modifications include: Modification Time"), so
// without an entry it is not modified: it stays what the last entry said, and
// zero if there was none, so that the same layers always make the same bytes.
func impliedTimes(started time.Time) func(string, *inode, *inode) {
	return func(_ string, want, got *inode) {
		// umoci's tar reader takes an attribute with an empty value for none;
		// the specification wants "Extended Attributes" kept, and GNU tar
		// writes and restores empty ones.
		got.Xattrs = strings.Replace(got.Xattrs, "user.empty=,", "", 1)
		if want.Mode&0o170000 == 0o040000 && want.Sec >= started.Unix() {
			want.Sec, want.Nsec = got.Sec, got.Nsec
		}
	}
}

// fsck has erofs-utils read the whole image, where its version can: it has
// to be told of every device.
func fsck(t testing.TB, d *tree.Dir, tr tree.Tree) {
	t.Helper()
	tool, err := exec.LookPath("fsck.erofs")
	if err != nil {
		t.Log("ability missing: fsck.erofs")
		return
	}
	var args []string
	for _, l := range tr.Layers {
		if l.Data.Size > 0 {
			args = append(args, "--device="+filepath.Join(d.Path(), l.Data.Path))
		}
	}
	args = append(args, filepath.Join(d.Path(), tr.Image.Path))
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		t.Errorf("fsck.erofs: %v\n%s", err, out)
	}
}

// unpack writes an OCI layout and has umoci unpack it.
func unpack(t testing.TB, blobs []blob) string {
	t.Helper()
	dir := t.TempDir()
	layout := filepath.Join(dir, "layout")
	put := func(b []byte, mediaType string) ispec.Descriptor {
		d := digest.FromBytes(b)
		write(t, filepath.Join(layout, "blobs", "sha256", d.Encoded()), b)
		return ispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
	}
	config := ispec.Image{Platform: ispec.Platform{OS: "linux", Architecture: "amd64"}}
	config.RootFS.Type = "layers"
	m := ispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest}
	for _, b := range blobs {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, b.diffID)
		m.Layers = append(m.Layers, put(b.data, ispec.MediaTypeImageLayerGzip))
	}
	m.Config = put(encode(t, config), ispec.MediaTypeImageConfig)
	top := put(encode(t, m), ispec.MediaTypeImageManifest)
	top.Annotations = map[string]string{ispec.AnnotationRefName: "x"}
	write(t, filepath.Join(layout, "index.json"), encode(t, ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ispec.Descriptor{top}}))
	write(t, filepath.Join(layout, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	bundle := filepath.Join(dir, "bundle")
	if out, err := exec.Command("umoci", "unpack", "--image", layout+":x", bundle).CombinedOutput(); err != nil {
		t.Fatalf("umoci unpack: %v\n%s", err, out)
	}
	return filepath.Join(bundle, "rootfs")
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// root is an archive that begins with the root's own entry.
func root(t testing.TB) *archive {
	return newArchive(t).add(tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, "")
}

func oddLayers(t testing.TB) []*archive {
	a := root(t)
	for _, name := range []string{"with space", "new\nline", "tab\t", "ünïcode", "\xff\xfe invalid", "-dash", "...", "..x", ".hidden", "*", "back\\slash", "quote\"", strings.Repeat("n", 255)} {
		format := tar.FormatPAX
		if !utf8.ValidString(name) || name == "ünïcode" {
			format = tar.FormatGNU
		}
		a.add(tar.Header{Typeflag: tar.TypeReg, Name: "odd/" + name, Mode: 0o640, Format: format, ModTime: time.Unix(1e9, 0)}, name)
	}
	for _, mode := range []int64{0, 0o4755, 0o2711, 0o1777, 0o6111} {
		a.add(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("modes/f%o", mode), Mode: mode, Uid: 12345, Gid: 54321}, "x")
		a.add(tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("modes/d%o", mode), Mode: mode, Uid: 1, Gid: 2}, "")
	}
	a.add(tar.Header{Typeflag: tar.TypeReg, Name: "owners/high", Uid: 1<<32 - 2, Gid: 1 << 31, Mode: 0o600}, "")
	a.add(tar.Header{Typeflag: tar.TypeSymlink, Name: "owners/link", Linkname: "/nowhere/at/all", Uid: 70000, Gid: 70001}, "")
	a.symlink("odd/longlink", strings.Repeat("l/", 2000)).symlink("odd/dangling", "../../../..")
	for name, h := range map[string]tar.Header{
		"char":  {Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		"block": {Typeflag: tar.TypeBlock, Devmajor: 259, Devminor: 0x12345},
		"fifo":  {Typeflag: tar.TypeFifo},
	} {
		h.Name, h.Mode, h.Uid = "nodes/"+name, 0o620, 5
		a.add(h, "")
	}
	a.add(tar.Header{Typeflag: tar.TypeReg, Name: "xattrs/cap", Mode: 0o755, PAXRecords: map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"SCHILY.xattr.user.empty":          "", "SCHILY.xattr.user.text": "value", "SCHILY.xattr.trusted.t": "secret",
		"SCHILY.xattr.security.selinux": "host_u:object_r:t:s0", "SCHILY.xattr.user." + strings.Repeat("n", 200): strings.Repeat("v", 3000),
	}}, "x")
	a.add(tar.Header{Typeflag: tar.TypeDir, Name: "xattrs/dir", Mode: 0o755, PAXRecords: map[string]string{
		"SCHILY.xattr.user.d": "1", "SCHILY.xattr.system.posix_acl_default": "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x04\x00\x05\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff",
	}}, "")
	a.file("sizes/0", "").file("sizes/1", "a").file("sizes/4095", strings.Repeat("b", 4095)).file("sizes/4096", strings.Repeat("c", 4096)).
		file("sizes/4097", strings.Repeat("d", 4097)).file("sizes/64k", strings.Repeat("e", 65536)).file("sizes/64k1", strings.Repeat("f", 65537))
	a.add(tar.Header{Typeflag: tar.TypeReg, Name: "times/old", Mode: 0o600, ModTime: time.Unix(-86400, 5)}, "")
	a.add(tar.Header{Typeflag: tar.TypeReg, Name: "times/late", Mode: 0o600, ModTime: time.Unix(1<<33, 999_999_999)}, "")
	return []*archive{a}
}

func whiteoutLayers(t testing.TB) []*archive {
	lower := root(t)
	for _, d := range []string{"a", "b", "c", "d", "e", "f"} {
		lower.dir(d).file(d+"/1", "1").file(d+"/2", "2").dir(d+"/sub").file(d+"/sub/3", "3").file(d+"/sub/4", "4")
	}
	upper := newArchive(t).
		file("a/.wh.1", "").file("a/1", "new after its whiteout").
		file("b/1", "new before its whiteout").file("b/.wh.1", "").
		file("c/.wh..wh..opq", "").file("c/new", "after opaque").file("c/sub/new", "implied parent").
		file("d/new", "before opaque").file("d/sub/4", "4 again").file("d/.wh..wh..opq", "").
		file("e/sub/new", "touched").file("e/.wh.sub", "").
		file(".wh.f", "").file("x/.wh.missing", "").file(".wh.nothing", "")
	third := newArchive(t).file("c/sub/.wh.new", "").dir("f").file("f/back", "b").file("a/.wh.sub", "").file("a/sub/9", "9")
	return []*archive{lower, upper, third}
}

func linkLayers(t testing.TB) []*archive {
	return []*archive{
		root(t).file("a", "one").link("b", "a").link("d/c", "./b").symlink("s", "a").link("hs", "s").file("keep", "keep").link("abs", "/keep").symlink("dir", "d"),
		newArchive(t).link("up", "a").file("a", "two").link("new", "a").file(".wh.b", "").link("via", "dir/c").link("dir/through", "hs"),
		newArchive(t).add(tar.Header{Typeflag: tar.TypeReg, Name: "up", Mode: 0o600, Uid: 3}, "three").link("climb", "../../../../keep"),
	}
}

func replaceLayers(t testing.TB) []*archive {
	return []*archive{
		root(t).file("f2d", "file").dir("d2f").file("d2f/x", "x").dir("d2l").file("d2l/x", "x").symlink("l2d", "real").dir("real").file("real/x", "x").
			symlink("lib", "usr/lib").dir("usr/lib").file("usr/lib/a", "a").symlink("loop", "deep/../../lib").dir("deep").file("same", "1").file("same", "2").dir("meta").file("meta/kept", "k"),
		newArchive(t).dir("f2d").file("f2d/in", "in").file("d2f", "now a file").symlink("d2l", "real").dir("l2d").file("l2d/own", "own").
			file("lib/b", "through a link").file("loop/c", "through two").file("same", "3").file("/absolute", "a").file("../../escape", "e").file("./dot/./x", "d").
			add(tar.Header{Typeflag: tar.TypeDir, Name: "meta", Mode: 0o700, Uid: 9, Gid: 9}, ""),
	}
}

func hundredLayers(t testing.TB) []*archive {
	list := []*archive{root(t).file("base", "0")}
	for i := 1; i < 100; i++ {
		a := newArchive(t).file(fmt.Sprintf("l/%d", i), strings.Repeat("x", i*100)).file("base", fmt.Sprint(i))
		if i%3 == 0 {
			a.file(fmt.Sprintf("l/.wh.%d", i-1), "").link(fmt.Sprintf("h%d", i), fmt.Sprintf("l/%d", i-2))
		}
		list = append(list, a)
	}
	return list
}

func wideLayers(t testing.TB) []*archive {
	a := root(t).dir("wide")
	for i := range 65600 {
		a.file(fmt.Sprintf("wide/file-%d", i*7919%65600), "")
	}
	return []*archive{a}
}

func holeLayers(t testing.TB) []*archive {
	z := func(n int) string { return strings.Repeat("\x00", n) }
	return []*archive{root(t).file("zeros", z(1<<20)).file("few", z(100)).file("middle", "a"+z(3<<20)+"b").file("end", z(1<<20+5)+"x").
		file("begin", "x"+z(1<<20)).file("stripes", strings.Repeat(z(65536)+strings.Repeat("y", 65536), 9)+z(77)).
		file("wide", strings.Repeat(z(4<<20)+strings.Repeat("q", 4<<20), 2)).file("after", "intact")}
}

func deepLayers(t testing.TB) []*archive {
	a, p := root(t), "deep"
	for i := range 200 {
		p += fmt.Sprintf("/%d", i)
	}
	a.file(p+"/leaf", "leaf")
	long := strings.Repeat(strings.Repeat("p", 250)+"/", 14) + "end"
	return []*archive{a.file(long, "long").link("short", long)}
}

// randomLayers throws many small operations at few names, so that they meet.
func randomLayers(t testing.TB) []*archive {
	r := rand.New(rand.NewSource(1))
	name := func() string {
		parts := make([]string, 1+r.Intn(3))
		for i := range parts {
			parts[i] = string(rune('a' + r.Intn(4)))
		}
		return strings.Join(parts, "/")
	}
	list := []*archive{root(t)}
	for _, d := range []string{"a", "b", "c", "d"} {
		list[0].dir(d).file(d+"/a", d).dir(d+"/b").file(d+"/b/a", "x"+d).dir(d+"/c").symlink(d+"/d", "../a")
	}
	for layer := range 12 {
		a := newArchive(t)
		for i := range 12 {
			top := string(rune('a' + r.Intn(4)))
			switch r.Intn(6) {
			case 0:
				a.file(fmt.Sprintf("%s/.wh.%c", top, 'a'+r.Intn(3)), "")
			case 1:
				a.file(top+"/b/.wh..wh..opq", "")
			case 2:
				a.dir(top + "/b")
			case 3:
				a.file(top+"/b/"+strings.ReplaceAll(name(), "/", "-"), fmt.Sprint(layer, i))
			case 4:
				a.dir(top+"/c").file(fmt.Sprintf("%s/c/%d", top, r.Intn(5)), fmt.Sprint(layer, i))
			case 5:
				a.dir(top+"/b").file(top+"/b/t", "t").link(fmt.Sprintf("%s/c/l%d", top, r.Intn(3)), top+"/b/t")
			}
		}
		list = append(list, a)
	}
	return list
}

func busyboxLayers(t testing.TB) []*archive {
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("ability missing: busybox")
	}
	a := root(t).dir("bin").add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, string(b))
	for i := range 300 {
		a.link(fmt.Sprintf("bin/applet%d", i), "bin/busybox")
	}
	return []*archive{a.dir("tmp").symlink("sh", "bin/busybox")}
}
