// SPDX-License-Identifier: Apache-2.0

package imagetest

import (
	"archive/tar"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Dir is a directory entry.
func Dir(path string, mode int64) File {
	return File{Path: path, Type: tar.TypeDir, Mode: mode}
}

// Symlink is a symbolic link entry.
func Symlink(path, target string) File {
	return File{Path: path, Type: tar.TypeSymlink, Link: target, Mode: 0o777}
}

// Accounts are the files that users and groups are looked up in: user "web"
// is 1000:1000 and also in group "extra" (2000).
func Accounts() []File {
	return []File{
		Dir("etc", 0o755),
		{Path: "etc/passwd", Body: []byte("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")},
		{Path: "etc/group", Body: []byte("root:x:0:\nweb:x:1000:\nextra:x:2000:web\nnogroup:x:65534:\n")},
	}
}

// skeleton is what every root should have besides its programs.
func skeleton() []File {
	files := Accounts()
	for _, d := range []string{"bin", "dev", "proc", "sys", "run", "var", "home", "home/web", "srv"} {
		files = append(files, Dir(d, 0o755))
	}
	return append(files, Dir("tmp", 0o1777), Dir("root", 0o700))
}

// Program is an image with one static executable at /bin/NAME, which it runs.
func Program(executable string) (Image, error) {
	b, err := os.ReadFile(executable)
	if err != nil {
		return Image{}, err
	}
	name := "bin/" + filepath.Base(executable)
	files := append(skeleton(), File{Path: name, Mode: 0o755, Body: b})
	return Image{
		Layers: []Layer{{Files: files, Compression: "gzip"}},
		Config: ispec.Image{Config: ispec.ImageConfig{Entrypoint: []string{"/" + name}, Env: []string{"PATH=/bin"}}},
	}, nil
}

// Busybox is an image of busybox with the usual links, and a shell as its
// command; extra programs go beside it.
func Busybox(busybox string, extra ...string) (Image, error) {
	b, err := os.ReadFile(busybox)
	if err != nil {
		return Image{}, err
	}
	// Debian ships it readable to root alone beyond others' execute bit.
	files := append(skeleton(), File{Path: "bin/busybox", Mode: 0o755, Body: b})
	for applet := range strings.FieldsSeq(applets) {
		files = append(files, Symlink("bin/"+applet, "busybox"))
	}
	image := Image{
		Layers: []Layer{{Files: files, Compression: "gzip"}},
		Config: ispec.Image{Config: ispec.ImageConfig{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}}},
	}
	var more []File
	for _, name := range extra {
		b, err := os.ReadFile(name)
		if err != nil {
			return Image{}, err
		}
		more = append(more, File{Path: "bin/" + filepath.Base(name), Mode: 0o755, Body: b})
	}
	if len(more) > 0 {
		image.Layers = append(image.Layers, Layer{Files: more, Compression: "gzip"})
	}
	return image, nil
}

const applets = `sh ash cat ls echo env id sleep true false kill ps mount umount mkdir rm touch ln chmod chown stat
	head tail grep sed awk wc dd df find xargs sort uname hostname ip nc wget httpd test [ printf seq sync tr cut date
	readlink realpath md5sum sha256sum tar gzip stty tty yes expr basename dirname cmp diff nohup setsid`

// Web is an image of the given server (tests/cmd/web) with one page.
func Web(server, page string) (Image, error) {
	b, err := os.ReadFile(server)
	if err != nil {
		return Image{}, err
	}
	return Image{
		Layers: []Layer{
			{Files: append(skeleton(), File{Path: "web", Mode: 0o755, Body: b}), Compression: "gzip"},
			{Files: []File{Dir("srv", 0o755), {Path: "srv/index.html", Body: []byte(page)}}, Compression: "zstd"},
		},
		Config: ispec.Image{Config: ispec.ImageConfig{
			Entrypoint: []string{"/web"}, Cmd: []string{"/srv"}, Env: []string{"PORT=8080"}, User: "web", StopSignal: "SIGTERM",
		}},
	}, nil
}

// Big adds n layers of files to an image: in all so many files and bytes, half
// of them compressible, the same for the same numbers.
func (i Image) Big(layers, files int, size int64) Image {
	random := rand.New(rand.NewSource(1))
	each := int(size) / files
	for n := range layers {
		var l Layer
		l.Compression = "gzip"
		for k := range files / layers {
			dir := fmt.Sprintf("data/layer%d/%03d", n, k/50)
			if k%50 == 0 {
				l.Files = append(l.Files, Dir(dir, 0o755))
			}
			body := make([]byte, each)
			// rand.Rand's Read returns no error.
			_, _ = io.ReadFull(random, body[:each/2])
			l.Files = append(l.Files, File{Path: fmt.Sprintf("%s/%05d", dir, k), Body: body})
		}
		i.Layers = append(i.Layers, l)
	}
	return i
}

// FromTar splits the entries of an archive into layers by their first path
// element: those named go into a layer each, the rest into the first.
func FromTar(r io.Reader, apart ...string) ([]Layer, error) {
	layers := make([]Layer, len(apart)+1)
	for i := range layers {
		layers[i].Compression = "gzip"
	}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return layers, nil
		}
		if err != nil {
			return nil, err
		}
		f := File{
			Path: h.Name, Type: h.Typeflag, Mode: h.Mode, UID: h.Uid, GID: h.Gid, Link: h.Linkname,
			Major: h.Devmajor, Minor: h.Devminor, Time: h.ModTime,
		}
		if f.Body, err = io.ReadAll(t); err != nil {
			return nil, err
		}
		at := 0
		for i, prefix := range apart {
			if strings.HasPrefix(strings.TrimPrefix(h.Name, "./"), prefix) && h.Typeflag != tar.TypeLink {
				at = i + 1
			}
		}
		if h.Typeflag == tar.TypeLink { // after what it names
			at = len(apart)
		}
		layers[at].Files = append(layers[at].Files, f)
	}
}
