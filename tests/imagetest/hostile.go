// SPDX-License-Identifier: Apache-2.0

package imagetest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Attack is an image that no honest builder makes. It is refused when fetched,
// or it starts and has done no harm.
type Attack struct {
	Name    string
	Refused bool // by fetch
	Image   func(base Image) Image
}

// Attacks lists them by what they are named after.
func Attacks() []Attack {
	return []Attack{
		{"tar-dot-dot", false, withFiles(File{Path: "../../../../tmp/gantry-escape", Body: []byte("out")})},
		{"tar-absolute", false, withFiles(File{Path: "/srv/absolute", Body: []byte("in")})},
		{"CVE-2021-29136", true, withFiles(Symlink(".", "/tmp"), File{Path: "gantry-escape", Body: []byte("out")})},
		{"CVE-2021-32760", true, withFiles(File{Path: "link", Type: tar.TypeLink, Link: "../../../../etc/shadow", Mode: 0o666})},
		{"symlink-then-write", false, withFiles(Symlink("out", "/tmp"), File{Path: "out/gantry-escape", Body: []byte("out")})},
		{"hardlink-to-nothing", true, withFiles(File{Path: "link", Type: tar.TypeLink, Link: "no/such/file"})},
		{"whiteout-dot-dot", true, withFiles(File{Path: ".wh..."}, File{Path: "a/.wh.."})},
		{"CVE-2022-4318", true, withConfig(func(c *ispec.ImageConfig) { c.Env = append(c.Env, "HOME=/\nroot2::0:0::/:/bin/sh") })},
		{"CVE-2026-57231-no-equals", true, withConfig(func(c *ispec.ImageConfig) { c.Env = append(c.Env, "SECRET_OF_THE_HOST") })},
		{"CVE-2026-57231-star", true, withConfig(func(c *ispec.ImageConfig) { c.Env = append(c.Env, "*") })},
		{"CVE-2024-40635", true, withConfig(func(c *ispec.ImageConfig) { c.User = "4294967296:4294967296" })},
		{"CVE-2026-46680", true, withConfig(func(c *ispec.ImageConfig) { c.User = "-1" })},
		{"CVE-2024-21626", false, withConfig(func(c *ispec.ImageConfig) { c.WorkingDir = "/proc/self/fd/8" })},
		{"CVE-2026-53488", false, withConfig(func(c *ispec.ImageConfig) {
			c.Labels = map[string]string{"containerd.io/restart.loguri": "binary:///bin/sh?-c=touch+/tmp/gantry-escape"}
		})},
		{"CVE-2021-41190", true, editManifest(func(m map[string]any) {
			m["manifests"] = []any{map[string]any{"mediaType": ispec.MediaTypeImageManifest, "digest": digest.FromString("x"), "size": 1}}
		})},
		{"CVE-2024-3727", true, editManifest(func(m map[string]any) {
			m["config"] = map[string]any{"mediaType": ispec.MediaTypeImageConfig, "digest": "sha256:../../../../../../etc/passwd", "size": 10}
		})},
		{"CVE-2020-15157", true, editManifest(func(m map[string]any) {
			layers, _ := m["layers"].([]any)
			for _, l := range layers {
				if l, ok := l.(map[string]any); ok {
					l["urls"] = []string{"http://127.0.0.1:1/layer"}
					l["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
				}
			}
		})},
		{"negative-size", true, editManifest(func(m map[string]any) {
			layers, _ := m["layers"].([]any)
			for _, l := range layers {
				if l, ok := l.(map[string]any); ok {
					l["size"] = -1
				}
			}
		})},
		{"size-lies", true, editManifest(func(m map[string]any) {
			layers, _ := m["layers"].([]any)
			for _, l := range layers {
				if l, ok := l.(map[string]any); ok {
					l["size"] = 1 << 40
				}
			}
		})},
		{"no-layers", true, func(Image) Image { return Image{} }},
		{"diff-id-lies", true, func(base Image) Image {
			base.EditConfig = func(b []byte) []byte {
				var c map[string]any
				if json.Unmarshal(b, &c) != nil {
					return b
				}
				if fs, ok := c["rootfs"].(map[string]any); ok {
					ids, _ := fs["diff_ids"].([]any)
					for i := range ids {
						ids[i] = digest.FromString("another layer")
					}
				}
				out, _ := json.Marshal(c)
				return out
			}
			return base
		}},
		{"layer-truncated", true, editLayer(func(b []byte) []byte { return b[:len(b)/2] })},
		{"CVE-2017-14992", true, func(base Image) Image {
			base.Layers = append(base.Layers, Layer{Raw: bomb(), Type: ispec.MediaTypeImageLayerZstd})
			return base
		}},
		{"CVE-2022-2879", true, func(base Image) Image {
			base.Layers = append(base.Layers, Layer{Raw: hugeHeader(), Compression: "gzip"})
			return base
		}},
		{"name-too-long", true, withFiles(File{Path: strings.Repeat("a", 300), Body: []byte("x")})},
		{"path-too-deep", true, withFiles(File{Path: strings.Repeat("d/", 3000) + "f", Body: []byte("x")})},
		{"device-node", false, withFiles(File{Path: "srv/mem", Type: tar.TypeChar, Major: 1, Minor: 1, Mode: 0o666})},
		{"CVE-2019-16884", false, withConfig(func(c *ispec.ImageConfig) { c.Volumes = map[string]struct{}{"/proc": {}} })},
		{"CVE-2024-9676", false, func(base Image) Image {
			base = withFiles(Symlink("etc/passwd", "/proc/self/fd/0"), Symlink("etc/group", "/dev/zero"))(base)
			base.Config.Config.User = "root"
			return base
		}},
		{"CVE-2026-47262", false, func(base Image) Image {
			base = withFiles(File{Path: "etc/group", Body: bytes.Repeat([]byte("g:x:1:\n"), 3<<20)})(base)
			base.Config.Config.User = "0:nosuchgroup"
			return base
		}},
		{"CVE-2019-19921", false, withFiles(Symlink("proc", "/tmp"))},
		{"CVE-2026-41579", false, withFiles(Symlink("dev", "/tmp"))},
		{"CVE-2019-18837", false, withFiles(Symlink("sys", "/../../tmp"), Symlink("run", "../../../../tmp"))},
	}
}

func withFiles(files ...File) func(Image) Image {
	return func(base Image) Image {
		base.Layers = append(base.Layers, Layer{Files: files, Compression: "gzip"})
		return base
	}
}

func withConfig(edit func(*ispec.ImageConfig)) func(Image) Image {
	return func(base Image) Image {
		edit(&base.Config.Config)
		return base
	}
}

func editManifest(edit func(map[string]any)) func(Image) Image {
	return func(base Image) Image {
		base.EditManifest = func(b []byte) []byte {
			var m map[string]any
			if json.Unmarshal(b, &m) != nil {
				return b
			}
			edit(m)
			out, _ := json.Marshal(m)
			return out
		}
		return base
	}
}

// editLayer spoils the archive before it is compressed and described, so that
// only its reader can notice.
func editLayer(edit func([]byte) []byte) func(Image) Image {
	return func(base Image) Image {
		raw, err := Tar([]File{{Path: "srv/data", Body: bytes.Repeat([]byte("data"), 4096)}})
		if err == nil {
			base.Layers = append(base.Layers, Layer{Raw: edit(raw), Compression: "gzip"})
		}
		return base
	}
}

// bomb is eight gigabytes of a layer in less than one megabyte of zstd: frames
// may follow each other, so one is made once and repeated. DEFLATE cannot do
// more than a thousand to one, which costs a reader no more than it says.
func bomb() []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		return nil
	}
	var head bytes.Buffer
	if tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "srv/zero", Mode: 0o644, Size: 8 << 30, Format: tar.FormatPAX}) != nil {
		return nil
	}
	one := w.EncodeAll(make([]byte, 64<<20), nil)
	return append(w.EncodeAll(head.Bytes(), nil), bytes.Repeat(one, 128)...)
}

// hugeHeader is an archive whose extended header takes 64 MiB of memory from a
// reader that keeps what it reads.
func hugeHeader() []byte {
	record := fmt.Sprintf("%d comment=%s\n", 64<<20, strings.Repeat("x", 64<<20-len("67108864 comment=\n")))
	b, err := Tar([]File{{Path: "PaxHeaders/f", Body: []byte(record)}})
	if err != nil {
		return nil
	}
	retype(b[:512], tar.TypeXHeader)
	end, err := Tar([]File{{Path: "f", Body: []byte("x")}})
	if err != nil {
		return nil
	}
	return append(b[:512+64<<20], end...)
}

// retype changes the type of a header block and mends its checksum.
func retype(block []byte, kind byte) {
	block[156] = kind
	copy(block[148:156], "        ")
	sum := 0
	for _, c := range block {
		sum += int(c)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// Find returns the attack of that name.
func Find(name string) (Attack, error) {
	for _, a := range Attacks() {
		if a.Name == name {
			return a, nil
		}
	}
	return Attack{}, fmt.Errorf("no attack %q", name)
}
