// SPDX-License-Identifier: Apache-2.0

package layer_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/image/tree/index"
	"github.com/gantryrun/gantry/image/tree/layer"
)

const (
	plain = "application/vnd.oci.image.layer.v1.tar"
	gz    = plain + "+gzip"
	zst   = plain + "+zstd"
)

// tarOf makes a tar of headers; a body goes with a header by its Size.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1, 0)
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte{'x'}, int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pack(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// convert converts into files of a test and returns the open index.
func convert(t testing.TB, r io.Reader, mediaType string, diffID digest.Digest, lim layer.Limits) (*os.File, layer.Summary, error) {
	t.Helper()
	data, idx := file(t), file(t)
	sum, err := layer.Convert(r, mediaType, diffID, lim, data, idx)
	return idx, sum, err
}

func file(t testing.TB) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// merged converts and merges layers, each given as a plain tar.
func merged(t testing.TB, tars ...[]byte) (*index.Image, error) {
	t.Helper()
	var in []io.ReaderAt
	for _, b := range tars {
		idx, _, err := convert(t, bytes.NewReader(b), plain, digest.FromBytes(b), layer.Limits{})
		if err != nil {
			return nil, err
		}
		in = append(in, idx)
	}
	return index.Merge(in, layer.Limits{})
}

// paths lists a merged tree.
func paths(img *index.Image) map[string]*index.Inode {
	all := map[string]*index.Inode{}
	var visit func(prefix string, d *index.Inode)
	visit = func(prefix string, d *index.Inode) {
		for name, c := range d.Children {
			all[prefix+name] = c.Inode
			if c.Inode.Kind == index.Dir {
				visit(prefix+name+"/", c.Inode)
			}
		}
	}
	visit("", img.Root)
	return all
}

func link(kind byte, name, target string) tar.Header {
	return tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o777}
}

// The parent of a name is looked up anew for every entry: what was a directory
// a moment ago may be a symbolic link now.
func TestCVE_2025_47290_ParentSwappedForALinkBetweenEntries(t *testing.T) {
	img, err := merged(t, tarOf(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755}, tar.Header{Name: "d/first"},
		link(tar.TypeSymlink, "d", "/etc"), tar.Header{Name: "d/passwd"}))
	if err != nil {
		t.Fatal(err)
	}
	all := paths(img)
	if all["etc/passwd"] == nil || all["d"].Kind != index.Symlink || all["d/first"] != nil {
		t.Errorf("tree is %v", all)
	}
}

// The root keeps its type, whatever names it.
func TestCVE_2021_29136_RootEntryIsNotADirectory(t *testing.T) {
	for _, name := range []string{".", "/.", "..", "a/.."} {
		for _, h := range []tar.Header{link(tar.TypeSymlink, name, "/etc"), link(tar.TypeLink, name, "etc"), {Typeflag: tar.TypeFifo, Name: name}} {
			img, err := merged(t, tarOf(t, h))
			if err == nil {
				t.Errorf("%q of type %c: accepted, the root is %+v", name, h.Typeflag, img.Root)
			}
		}
	}
}

// Links lead to files of this tree or fail; none leads out of it.
func TestCVE_2026_17106_LinksCannotEscape(t *testing.T) {
	for _, target := range []string{"/etc/passwd", "../../../../etc/passwd", "up/etc/passwd", "up/../../etc/passwd"} {
		up := link(tar.TypeSymlink, "up", "../../../../..")
		if _, err := merged(t, tarOf(t, up, link(tar.TypeLink, "mine", target))); err == nil {
			t.Errorf("hard link to %s: accepted", target)
		}
		own := tar.Header{Name: "etc/passwd", Mode: 0o600}
		img, err := merged(t, tarOf(t, up, own, link(tar.TypeLink, "mine", target)))
		if err != nil {
			t.Errorf("hard link to our own %s: %v", target, err)
		} else if all := paths(img); all["mine"] != all["etc/passwd"] {
			t.Errorf("hard link to %s is another file", target)
		}
	}
}

// Names are confined lexically before anything is looked up.
func TestCVE_2021_32760_NamesCannotEscape(t *testing.T) {
	for name, want := range map[string]string{"../../x": "x", "/abs": "abs", "a/../../x": "x", "./././y": "y", "a//b": "a/b"} {
		img, err := merged(t, tarOf(t, tar.Header{Name: name}))
		if err != nil || paths(img)[want] == nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// User and group numbers that do not fit 32 bits, or are "none", are refused.
func TestCVE_2024_40635_OwnersAreInRange(t *testing.T) {
	for _, id := range []int{1<<32 - 1, 1 << 32, 1<<32 + 1, 1 << 40, -1, -1 << 31} {
		h := tar.Header{Name: "f", Uid: id, Format: tar.FormatGNU}
		b := tarOf(t, h)
		if _, err := merged(t, b); err == nil {
			t.Errorf("uid %d: accepted", id)
		}
		h.Uid, h.Gid = 0, id
		if _, err := merged(t, tarOf(t, h)); err == nil {
			t.Errorf("gid %d: accepted", id)
		}
	}
	img, err := merged(t, tarOf(t, tar.Header{Name: "f", Uid: 1<<32 - 2, Gid: 1 << 31, Format: tar.FormatGNU}))
	if err != nil || paths(img)["f"].UID != 1<<32-2 || paths(img)["f"].GID != 1<<31 {
		t.Errorf("the largest: %v", err)
	}
}

// Device numbers are not cut to fit.
func TestDeviceNumbersAreInRange(t *testing.T) {
	for _, n := range [][2]int64{{1 << 12, 0}, {0, 1 << 20}, {-1, 0}, {1 << 33, 1}} {
		h := tar.Header{Typeflag: tar.TypeChar, Name: "c", Devmajor: n[0], Devminor: n[1], Format: tar.FormatGNU}
		if _, err := merged(t, tarOf(t, h)); err == nil {
			t.Errorf("device %v: accepted", n)
		}
	}
}

// A layer of nothing but highly compressible bytes ends at the limit, in
// bounded memory.
func TestCVE_2017_14992_GzipBomb(t *testing.T) {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	w := tar.NewWriter(z)
	const size = 256 << 20
	_ = w.WriteHeader(&tar.Header{Name: "bomb", Size: size, Mode: 0o644})
	zeros := make([]byte, 1<<20)
	for range size >> 20 {
		_, _ = w.Write(zeros)
	}
	_, _ = w.Close(), z.Close()
	for name, lim := range map[string]layer.Limits{"bytes": {Bytes: 16 << 20}, "ratio": {Ratio: 50}} {
		used := allocated(func() {
			if _, _, err := convert(t, bytes.NewReader(out.Bytes()), gz, digest.FromString("x"), lim); !errors.Is(err, layer.ErrLimit) {
				t.Errorf("%s: %v", name, err)
			}
		})
		if used > 32<<20 {
			t.Errorf("%s: allocated %d MiB", name, used>>20)
		}
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A file's size in a PAX header says nothing until the bytes are there.
func TestCVE_2022_2879_HeadersAreBounded(t *testing.T) {
	huge := strings.Repeat("n", 2<<20)
	b := rawPAX("path", huge)
	used := allocated(func() {
		if _, _, err := convert(t, bytes.NewReader(b), plain, digest.FromBytes(b), layer.Limits{}); err == nil {
			t.Error("a header of two megabytes: accepted")
		}
	})
	if used > 32<<20 {
		t.Errorf("allocated %d MiB", used>>20)
	}
}

// A sparse map of any length is read in bounded memory or refused.
func TestCVE_2025_58183_SparseMapIsBounded(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		var sparse bytes.Buffer
		const entries = 4_000_000
		fmt.Fprintf(&sparse, "%d\n", entries)
		for range entries {
			sparse.WriteString("0\n0\n")
		}
		b := rawSparse(sparse.Bytes())
		mediaType, diffID := plain, digest.FromBytes(b)
		if compressed {
			b, mediaType = pack(t, b), gz
		}
		used := allocated(func() {
			if _, _, err := convert(t, bytes.NewReader(b), mediaType, diffID, layer.Limits{}); err == nil {
				t.Error("accepted")
			}
		})
		if used > 48<<20 {
			t.Errorf("allocated %d MiB", used>>20)
		}
	}
}

// A million empty gzip members neither exhaust the stack nor the memory.
func TestCVE_2022_30631_EmptyGzipMembers(t *testing.T) {
	var member bytes.Buffer
	_ = gzip.NewWriter(&member).Close()
	b := bytes.Repeat(member.Bytes(), 200_000)
	b = append(b, pack(t, tarOf(t))...)
	if _, _, err := convert(t, bytes.NewReader(b), gz, digest.FromBytes(tarOf(t)), layer.Limits{}); err != nil {
		t.Error(err)
	}
}

// A zstd frame may ask for a window of gigabytes.
func TestZstdWindowIsCapped(t *testing.T) {
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, zstd.WithWindowSize(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(make([]byte, 80<<20))
	_ = z.Close()
	if _, _, err := convert(t, &out, zst, digest.FromString("x"), layer.Limits{}); !errors.Is(err, zstd.ErrWindowSizeExceeded) {
		t.Errorf("a window of 64 MiB: %v", err)
	}
}

// What the config says is what the tar must hash to, for every compression.
func TestDiffIDIsChecked(t *testing.T) {
	b := tarOf(t, tar.Header{Name: "f", Size: 10})
	var packed bytes.Buffer
	z, _ := zstd.NewWriter(&packed)
	_, _ = z.Write(b)
	_ = z.Close()
	for mediaType, in := range map[string][]byte{
		plain: b, gz: pack(t, b), zst: packed.Bytes(),
		"application/vnd.docker.image.rootfs.diff.tar.gzip": pack(t, b),
	} {
		if _, _, err := convert(t, bytes.NewReader(in), mediaType, digest.FromBytes(b), layer.Limits{}); err != nil {
			t.Errorf("%s: %v", mediaType, err)
		}
		if _, _, err := convert(t, bytes.NewReader(in), mediaType, digest.FromString("other"), layer.Limits{}); !errors.Is(err, layer.ErrDiffID) {
			t.Errorf("%s with another diff ID: %v", mediaType, err)
		}
		if _, _, err := convert(t, bytes.NewReader(in[:len(in)-7]), mediaType, digest.FromBytes(b), layer.Limits{}); err == nil {
			t.Errorf("%s cut: accepted", mediaType)
		}
		if _, _, err := convert(t, bytes.NewReader(append(bytes.Clone(in), "garbage"...)), mediaType, digest.FromBytes(b), layer.Limits{}); err == nil {
			t.Errorf("%s with garbage at its end: accepted", mediaType)
		}
	}
	for _, mediaType := range []string{"", "application/json", "text/x-tar+xz"} {
		if _, _, err := convert(t, bytes.NewReader(b), mediaType, digest.FromBytes(b), layer.Limits{}); err == nil {
			t.Errorf("media type %q: accepted", mediaType)
		}
	}
}

// Bytes behind the end of an archive are a second archive to another reader.
func TestDataAfterTheEndIsRefused(t *testing.T) {
	b := append(tarOf(t, tar.Header{Name: "one"}), tarOf(t, tar.Header{Name: "two"})...)
	if _, err := merged(t, b); !errors.Is(err, layer.ErrArchive) {
		t.Errorf("Convert = %v", err)
	}
	padded := append(tarOf(t, tar.Header{Name: "one"}), make([]byte, 10240)...)
	if _, err := merged(t, padded); err != nil {
		t.Errorf("padding: %v", err)
	}
}

// Names, markers and types that mean nothing are refused by name.
func TestRefusedEntries(t *testing.T) {
	long := strings.Repeat("n", 256)
	for name, h := range map[string]tar.Header{
		"whiteout of nothing":       {Name: "a/.wh."},
		"whiteout of dot":           {Name: ".wh.."},
		"whiteout of dot-dot":       {Name: "a/.wh..."},
		"whiteout as a parent":      {Name: ".wh.a/b"},
		"name too long":             {Name: long},
		"path too long":             {Name: strings.Repeat("abcdefghi/", 450) + "f"},
		"too deep":                  {Name: strings.Repeat("a/", 600) + "f"},
		"unknown type":              {Name: "f", Typeflag: 'Z'},
		"link to itself":            link(tar.TypeLink, "f", "f"),
		"link to a directory":       link(tar.TypeLink, "f", "/"),
		"link target too long":      link(tar.TypeSymlink, "f", strings.Repeat("t", 4096)),
		"below a symbolic loop":     {Name: "loop/f"},
		"below a file":              {Name: "plain/f"},
		"time out of range":         {Name: "f", ModTime: time.Unix(1<<41, 0), Format: tar.FormatPAX},
		"too many xattrs":           {Name: "f", Format: tar.FormatPAX, PAXRecords: manyXattrs(200, 1)},
		"xattrs too large":          {Name: "f", Format: tar.FormatPAX, PAXRecords: manyXattrs(100, 2000)},
		"xattr with a huge name":    {Name: "f", Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user." + long: "v"}},
		"xattr with a huge content": {Name: "f", Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", 65536)}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			_, err := merged(t, tarOf(t, link(tar.TypeSymlink, "loop", "loop"), tar.Header{Name: "plain"}, h))
			if err == nil {
				t.Error("accepted")
			} else if len(err.Error()) > 1000 {
				t.Errorf("the message has %d bytes", len(err.Error()))
			}
		})
	}
}

func manyXattrs(n, size int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprintf("SCHILY.xattr.user.%d", i)] = strings.Repeat("v", size)
	}
	return m
}

// An image cannot speak to the overlayfs that has its tree below it, nor label
// files for a host's policy.
func TestHostXattrsAreLeftOut(t *testing.T) {
	records := map[string]string{"SCHILY.xattr.user.kept": "1"}
	for _, name := range []string{"trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.metacopy", "security.selinux", "system.nfs4_acl", "weird.name"} {
		records["SCHILY.xattr."+name] = "y"
	}
	b := tarOf(t, tar.Header{Name: "f", Format: tar.FormatPAX, PAXRecords: records})
	idx, sum, err := convert(t, bytes.NewReader(b), plain, digest.FromBytes(b), layer.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Merge([]io.ReaderAt{idx}, layer.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if x := paths(img)["f"].Xattrs; len(x) != 1 || x[0].Name != "user.kept" || sum.Skipped != 6 {
		t.Errorf("kept %v, skipped %d", x, sum.Skipped)
	}
}

// TestNoDevices leaves device nodes out when policy says so.
func TestNoDevices(t *testing.T) {
	b := tarOf(t, tar.Header{Typeflag: tar.TypeBlock, Name: "sda", Devmajor: 8}, tar.Header{Typeflag: tar.TypeFifo, Name: "fifo"})
	_, sum, err := convert(t, bytes.NewReader(b), plain, digest.FromBytes(b), layer.Limits{NoDevices: true})
	if err != nil || sum.Entries != 1 || sum.Skipped != 1 {
		t.Errorf("%+v, %v", sum, err)
	}
}

// rawPAX is an extended header with one record, which Go's writer would refuse.
func rawPAX(key, value string) []byte {
	n := len(key) + len(value) + 3
	for n != len(fmt.Sprint(n))+len(key)+len(value)+3 {
		n = len(fmt.Sprint(n)) + len(key) + len(value) + 3
	}
	return append(rawEntry("pax", 'x', fmt.Appendf(nil, "%d %s=%s\n", n, key, value)), rawEntry("f", '0', nil)...)
}

// rawSparse is a file of PAX sparse format 1.0 with this map.
func rawSparse(sparse []byte) []byte {
	var records []byte
	for _, r := range []string{"22 GNU.sparse.major=1\n", "22 GNU.sparse.minor=0\n", "30 GNU.sparse.realsize=000001\n"} {
		records = append(records, r...)
	}
	b := append(rawEntry("pax", 'x', records), rawEntry("sparse", '0', sparse)...)
	return append(b, make([]byte, 1024)...)
}

func rawEntry(name string, kind byte, body []byte) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00", len(body)))
	copy(h[136:], "00000000001\x00")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	h = append(h, body...)
	return append(h, make([]byte, (512-len(body)%512)%512)...)
}
