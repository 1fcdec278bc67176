// SPDX-License-Identifier: Apache-2.0

// Command mkimage makes an image, signed by nobody: mkimage [FLAGS] KIND
// oci:DIR:TAG writes it into an OCI layout, mkimage --push KIND HOST/NAME:TAG to
// a registry. Scripts, the demonstration and the benchmarks share it.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/tests/imagetest"
)

type options struct {
	health                                                                    string
	entrypoint, cmd, user, workdir, stop, env, volumes, expose, labels, apart string
	page, archive, saved, platforms, base                                     string
	docker, push                                                              bool
	layers, files                                                             int
	size                                                                      int64
}

func main() {
	var o options
	flag.StringVar(&o.entrypoint, "entrypoint", "", "words of the entrypoint")
	flag.StringVar(&o.cmd, "cmd", "", "words of the command")
	flag.StringVar(&o.user, "user", "", "user")
	flag.StringVar(&o.workdir, "workdir", "", "working directory")
	flag.StringVar(&o.stop, "stop-signal", "", "stop signal")
	flag.StringVar(&o.env, "env", "", "variables, separated by commas")
	flag.StringVar(&o.volumes, "volumes", "", "volumes, separated by commas")
	flag.StringVar(&o.expose, "expose", "", "ports, separated by commas")
	flag.StringVar(&o.labels, "labels", "", "labels K=V, separated by commas")
	flag.StringVar(&o.apart, "apart", "", "with tar: prefixes that get a layer each, separated by commas")
	flag.StringVar(&o.base, "base", "", "with tar: archive of the lower layer; the upper one is what differs")
	flag.StringVar(&o.health, "health", "", "Healthcheck of Docker's configurations, as JSON")
	flag.StringVar(&o.page, "page", "", "with web: the page it serves")
	flag.StringVar(&o.archive, "archive", "", "also write the layout as this OCI archive")
	flag.StringVar(&o.saved, "saved", "", "also write it as this archive of docker save, compressed if it ends in .gz")
	flag.StringVar(&o.platforms, "platforms", "", "make an index of these platforms, separated by commas")
	flag.BoolVar(&o.docker, "docker", false, "Docker's schema 2 instead of OCI")
	flag.BoolVar(&o.push, "push", false, "to a registry on loopback")
	flag.IntVar(&o.layers, "layers", 8, "with big: layers")
	flag.IntVar(&o.files, "files", 20000, "with big: files")
	flag.Int64Var(&o.size, "size", 300<<20, "with big: bytes")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: mkimage [FLAGS] inspect|busybox|web|big|tar=FILE|attack=NAME REF\n       mkimage --push oci:DIR:TAG REF\n       mkimage attacks")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 1 && flag.Arg(0) == "attacks" {
		for _, a := range imagetest.Attacks() {
			fmt.Println(a.Name, a.Refused)
		}
		return
	}
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	d, err := write(flag.Arg(0), flag.Arg(1), o)
	if err != nil {
		fmt.Fprintf(os.Stderr, "mkimage: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(d.Digest)
}

func write(kind, target string, o options) (ispec.Descriptor, error) {
	if o.page == "" {
		o.page = fmt.Sprintf("hello from %s\n", target)
	}
	if from, ok := strings.CutPrefix(kind, "oci:"); ok && o.push {
		dir, tag := place(from)
		return pushLayout(dir, tag, target)
	}
	image, err := makeImage(kind, o)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	configure(&image, o)
	if o.push {
		return push(image, target, o)
	}
	dir, ref := place(target)
	d, err := writeLayout(image, dir, ref, o)
	if err == nil && o.archive != "" {
		err = imagetest.Layout(dir).Archive(o.archive)
	}
	if err == nil && o.saved != "" {
		err = save(image, ref, o.saved)
	}
	return d, err
}

func save(image imagetest.Image, tag, name string) error {
	p, err := image.Pack()
	if err != nil {
		return err
	}
	compression := ""
	if strings.HasSuffix(name, ".gz") {
		compression = "gzip"
	}
	return imagetest.DockerArchive(name, "old", compression, imagetest.Saved{Packed: p, Names: []string{tag + ":1"}})
}

// place splits oci:DIR:TAG.
func place(s string) (dir, tag string) {
	dir, tag, _ = strings.Cut(strings.TrimPrefix(s, "oci:"), ":")
	return dir, tag
}

func writeLayout(image imagetest.Image, dir, ref string, o options) (ispec.Descriptor, error) {
	if o.platforms == "" {
		return image.Write(dir, ref)
	}
	var images []imagetest.Image
	for p := range strings.SplitSeq(o.platforms, ",") {
		i := image
		parts := strings.SplitN(p, "/", 3)
		i.Config.OS, i.Config.Architecture = parts[0], parts[1]
		if len(parts) > 2 {
			i.Config.Variant = parts[2]
		}
		images = append(images, i)
	}
	return imagetest.WriteIndex(dir, ref, images...)
}

func makeImage(kind string, o options) (imagetest.Image, error) {
	kind, name, _ := strings.Cut(kind, "=")
	switch kind {
	case "inspect":
		return program("inspect", imagetest.Program)
	case "web":
		return program("web", func(web string) (imagetest.Image, error) { return imagetest.Web(web, o.page) })
	case "busybox", "big", "attack":
		busybox, err := exec.LookPath("busybox")
		if err != nil {
			return imagetest.Image{}, err
		}
		image, err := program("inspect", func(inspect string) (imagetest.Image, error) {
			return imagetest.Busybox(busybox, inspect)
		})
		if err != nil || kind == "busybox" {
			return image, err
		}
		if kind == "big" {
			return image.Big(o.layers, o.files, o.size), nil
		}
		a, err := imagetest.Find(name)
		if err != nil {
			return imagetest.Image{}, err
		}
		return a.Image(image), nil
	case "tar":
		layers, err := fromTar(name, o)
		return imagetest.Image{Layers: layers}, err
	}
	return imagetest.Image{}, fmt.Errorf("no kind of image %q", kind)
}

// fromTar splits an archive into layers, by path or by what a base lacks.
func fromTar(name string, o options) ([]imagetest.Layer, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if o.base == "" {
		return imagetest.FromTar(f, words(o.apart)...)
	}
	b, err := os.Open(o.base)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	lower, err := imagetest.ReadTar(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.base, err)
	}
	full, err := imagetest.ReadTar(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return []imagetest.Layer{
		{Files: lower, Compression: "gzip"},
		{Files: imagetest.Diff(lower, full), Compression: "zstd"},
	}, nil
}

// program makes an image of one of the programs of tests/cmd: the one beside
// this executable, else, under "go run", one that is built now.
func program(name string, image func(string) (imagetest.Image, error)) (imagetest.Image, error) {
	self, err := os.Executable()
	if err != nil {
		return imagetest.Image{}, err
	}
	beside := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(beside); err == nil {
		return image(beside)
	}
	dir, err := os.MkdirTemp("", "mkimage")
	if err != nil {
		return imagetest.Image{}, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir, "github.com/gantryrun/gantry/tests/cmd/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return imagetest.Image{}, fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return image(filepath.Join(dir, name))
}

func configure(image *imagetest.Image, o options) {
	if o.health != "" {
		image.EditConfig = func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"config":{`), []byte(`"config":{"Healthcheck":`+o.health+`,`), 1)
		}
	}
	c := &image.Config.Config
	if o.entrypoint != "" {
		c.Entrypoint = strings.Fields(o.entrypoint)
	}
	if o.cmd != "" {
		c.Cmd = strings.Fields(o.cmd)
	}
	if o.user != "" {
		c.User = o.user
	}
	if o.workdir != "" {
		c.WorkingDir = o.workdir
	}
	if o.stop != "" {
		c.StopSignal = o.stop
	}
	c.Env = append(c.Env, words(o.env)...)
	c.Volumes = with(c.Volumes, words(o.volumes))
	c.ExposedPorts = with(c.ExposedPorts, words(o.expose))
	for _, l := range words(o.labels) {
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		k, v, _ := strings.Cut(l, "=")
		c.Labels[k] = v
	}
	image.Docker = o.docker
}

// with adds names to a set, which stays nil while it is empty.
func with(set map[string]struct{}, names []string) map[string]struct{} {
	for _, name := range names {
		if set == nil {
			set = map[string]struct{}{}
		}
		set[name] = struct{}{}
	}
	return set
}

// words splits a list at its commas.
func words(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
