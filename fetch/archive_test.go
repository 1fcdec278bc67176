// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/signature"
	"github.com/gantryrun/gantry/tests/imagetest"
)

// saved is an image whose layers are plain or gzip, one of them twice.
func saved(t *testing.T, names ...string) imagetest.Saved {
	t.Helper()
	p := sample(t, 2, func(i *imagetest.Image) {
		i.Config.Config.Env = []string{"NAME=" + strings.Join(names, ",")}
		i.Layers[1].Compression = ""
		i.Layers = append(i.Layers, i.Layers[0])
	})
	return imagetest.Saved{Packed: p, Names: names}
}

func dockerArchive(t *testing.T, style, compression string, images ...imagetest.Saved) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "saved.tar")
	check(t, imagetest.DockerArchive(name, style, compression, images...))
	return name
}

// Guards: archives of docker save, old and new, plain and compressed; the same
// parts always make the same manifest; nothing is left of what was unpacked.
func TestFetchFromDockerArchives(t *testing.T) {
	one := saved(t, "web:1")
	var digests []string
	for _, style := range []string{"old", "hybrid"} {
		for _, compression := range []string{"", "gzip", "zstd"} {
			t.Run(style+"-"+compression, func(t *testing.T) {
				h := newHouse(t)
				file := dockerArchive(t, style, compression, one)
				h.trust("docker-archive:"+file, "insecure")
				res, err := h.fetch("docker-archive:" + file)
				check(t, err)
				if len(res.Tree.Layers) != 3 || res.Receipt.Insecure || !res.Receipt.Verdict.Accepted {
					t.Errorf("got %+v", res.Receipt)
				}
				if style == "old" {
					digests = append(digests, string(res.Image.Descriptor.Digest))
				}
				pinned := "docker-archive:" + file + ":web:1@" + string(res.Image.Descriptor.Digest)
				_, err = h.fetch(pinned)
				check(t, err)
				for _, name := range filesBelow(t, filepath.Join(h.dir, "store")) {
					if strings.HasPrefix(name, "archive-") || strings.HasPrefix(name, "ingest/sha") {
						t.Errorf("%s was left behind", name)
					}
				}
			})
		}
	}
	if digests = slices.Compact(digests); len(digests) != 1 {
		t.Errorf("one image got the digests %v", digests)
	}
}

// Guards: which of several images is meant.
func TestDockerArchiveOfSeveral(t *testing.T) {
	h := newHouse(t)
	file := "docker-archive:" + dockerArchive(t, "old", "", saved(t, "web:1", "r.example:5000/a/web:2"), saved(t, "db:1"), saved(t))
	insecure := func(r *Request) { r.Insecure.Image = true }
	for ref, want := range map[string]string{":web:1": "web:1", ":r.example:5000/a/web:2": "web:1", ":docker.io/library/db:1": "db:1", ":@1": "db:1"} {
		res, err := h.fetch(file+ref, insecure)
		check(t, err)
		if !strings.HasPrefix(res.Image.Config.Config.Env[0], "NAME="+want) {
			t.Errorf("%s: got the image with %v", ref, res.Image.Config.Config.Env)
		}
	}
	for ref, want := range map[string]string{
		"": "holds 3 images; name one after a colon: web:1, r.example:5000/a/web:2, db:1, @2", ":db:2": `no image named "docker.io/library/db:2"`, ":@3": "has no image @3; it holds 3",
	} {
		_, err := h.fetch(file+ref, insecure)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", ref, err, want)
		}
	}
}

// Guards: without a rule that accepts it unsigned nothing of an archive runs,
// and the refusal says why no key will do.
func TestDockerArchiveIsNotTrusted(t *testing.T) {
	h := newHouse(t)
	file := dockerArchive(t, "old", "", saved(t, "web:1"))
	h.trust("docker-archive:"+file, "sigstore-key")
	_, err := h.fetch("docker-archive:" + file)
	if !errors.Is(err, signature.ErrUntrusted) || !strings.Contains(err.Error(), "an archive of docker save carries no signatures") {
		t.Fatalf("got %v", err)
	}
	h.nothingNamed("docker-archive:" + file)
}

// Guards: an archive through a pipe, of either kind, under a name of its own,
// is judged as that name: by its signatures if it has some.
func TestFetchFromStandardInput(t *testing.T) {
	const name = "registry.example/acme/web:1"
	h := newHouse(t)
	dir := layoutOf(t, sample(t, 2), "v1")
	h.signLayout(dir, "v1", false, false)
	h.trust("registry.example/acme", "sigstore-key")
	piped := func(file string) func(*Request) {
		return func(r *Request) {
			r.From = image.Reference{Transport: image.AnyArchive, Path: image.Stdin}
			r.Stdin, r.Pull = pipe(t, file), Always
		}
	}
	docker := dockerArchive(t, "old", "gzip", saved(t, "web:1"))
	if _, err := h.fetch(name, piped(docker)); !errors.Is(err, signature.ErrUntrusted) {
		t.Fatalf("docker save: got %v", err)
	}
	h.nothingNamed(name)
	res, err := h.fetch(name, piped(archiveOf(t, dir)))
	check(t, err)
	if res.Image.Reference.String() != name || res.Receipt.Name != "registry.example/acme/web" || len(res.Receipt.Verdict.By) != 1 {
		t.Errorf("got %+v", res.Receipt)
	}
	res, err = h.fetch(name, piped(docker), func(r *Request) { r.Insecure.Image = true })
	check(t, err)
	if !res.Receipt.Insecure {
		t.Errorf("got %+v", res.Receipt)
	}
}

// pipe writes a file into a pipe.
func pipe(t *testing.T, file string) *os.File {
	t.Helper()
	b, err := os.ReadFile(file)
	check(t, err)
	r, w, err := os.Pipe()
	check(t, err)
	t.Cleanup(func() { r.Close() })
	go func() {
		_, _ = io.Copy(w, bytes.NewReader(b))
		w.Close()
	}()
	return r
}

// Guards: what is wrong with an archive is said, and nothing of it is kept.
func TestOddDockerArchives(t *testing.T) {
	p := saved(t, "web:1").Packed
	config := p.Blobs[len(p.Blobs)-1]
	list := func(text string) imagetest.File {
		return imagetest.File{Path: "manifest.json", Body: []byte(text)}
	}
	good := imagetest.File{Path: "c.json", Body: config.Bytes}
	for name, tt := range map[string]struct {
		files []imagetest.File
		want  string
	}{
		"empty":             {nil, "holds no manifest.json: it is not an archive of docker save"},
		"oci":               {[]imagetest.File{{Path: "index.json", Body: []byte("{}")}}, "it is an OCI archive, which is written oci-archive:FILE"},
		"very old":          {[]imagetest.File{{Path: "repositories", Body: []byte("{}")}}, "Docker before 1.10"},
		"garbage":           {[]imagetest.File{list("[{")}, "unexpected end of JSON"},
		"no image":          {[]imagetest.File{list("[]")}, "holds no image"},
		"no layer":          {[]imagetest.File{list(`[{"Config":"c.json"}]`)}, "0 layers"},
		"config missing":    {[]imagetest.File{list(`[{"Config":"c.json","Layers":["l"]}]`)}, `lacks the configuration "c.json"`},
		"config outside":    {[]imagetest.File{list(`[{"Config":"../../etc/passwd","Layers":["l"]}]`)}, `lacks the configuration "../../etc/passwd"`},
		"layer missing":     {[]imagetest.File{good, list(`[{"Config":"c.json","Layers":["a","b","c"]}]`)}, `lacks the layer "a"`},
		"layers do not fit": {[]imagetest.File{good, list(`[{"Config":"c.json","Layers":["a"]}]`)}, "diff"},
		"layer is another": {[]imagetest.File{
			good, {Path: "a", Body: []byte("hello")}, list(`[{"Config":"c.json","Layers":["a","a","a"]}]`),
		}, "layer sha256:"},
		"link to itself": {[]imagetest.File{
			good, {Path: "a", Type: '2', Link: "a"}, list(`[{"Config":"c.json","Layers":["a","a","a"]}]`),
		}, `lacks the layer "a"`},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			b, err := imagetest.Tar(tt.files)
			check(t, err)
			file := filepath.Join(t.TempDir(), "x.tar")
			check(t, os.WriteFile(file, b, 0o600))
			_, err = h.fetch("docker-archive:"+file, func(r *Request) { r.Insecure.Image = true })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			h.nothingNamed("docker-archive:" + file)
		})
	}
}

// Guards: a compressed archive is bounded like a layer.
func TestBombingArchive(t *testing.T) {
	h := newHouse(t)
	file := dockerArchive(t, "old", "zstd", imagetest.Saved{Packed: sample(t, 1, func(i *imagetest.Image) {
		i.Layers[0].Raw = make([]byte, 200<<20)
	})})
	_, err := h.fetch("docker-archive:"+file, func(r *Request) { r.Insecure.Image = true })
	if err == nil || !strings.Contains(err.Error(), "times as much") {
		t.Fatalf("got %v", err)
	}
	h.nothingNamed("docker-archive:" + file)
}
