// SPDX-License-Identifier: Apache-2.0

package badinput

import (
	"debug/elf"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/imagetest"
)

func rows() []row {
	var all []row
	for _, part := range [][]row{commandRows(), referenceRows(), registryRows(), contentRows(), trustRows(), appRows(), networkRows(), permissionRows(), hostRows()} {
		all = append(all, part...)
	}
	return all
}

// says is a row that needs nothing but the command line.
func says(group, name string, args ...string) row {
	return row{group: group, name: name, do: func(*fixture) []string { return args }}
}

func commandRows() []row {
	const group = "The command line"
	const image = "registry.example.com/acme/web:1"
	return []row{
		says(group, "unknown command", "launch", image),
		says(group, "a command spelt wrongly", "trst", "ls"),
		says(group, "a command below another spelt wrongly", "network", "crate", "back"),
		says(group, "a command of podman that is called something else", "pull", image),
		says(group, "a command of podman that there is not", "cp", "web:/etc/hosts", "."),
		says(group, "too many arguments", "inspect", "web", "db"),
		says(group, "an argument that is missing", "exec"),
		says(group, "a flag that is missing", "trust", "add", "acme.pub"),
		says(group, "a number that is none", "logs", "--tail=many", "web"),
		says(group, "a number that is too large", "stop", "--time=99999999999999999999", "web"),
		says(group, "a time that is too long", "stop", "--time=9223372037", "web"),
		says(group, "a state that pods do not have", "list", "--filter=state=stopped"),
		says(group, "a template without such a field", "image", "ls", "--format", "{{.Nickname}}"),
		says(group, "unknown flag", "run", "--no-such-flag", image),
		says(group, "a flag of podman that gantry does not have", "run", "--restart=always", image),
		says(group, "no image", "run"),
		says(group, "two spellings of one flag", "run", "--net=host", "--network=none", image),
		says(group, "privileged", "run", "--privileged", image),
		says(group, "size", "run", "--memory=12x", image),
		says(group, "capability", "run", "--cap-add=FOO", image),
		says(group, "a replacement of no pod", "run", "--replace", image),
		says(group, "ulimit", "run", "--ulimit=bad", image),
		says(group, "volume that does not exist", "run", "--volume=/nowhere:/data", image),
		says(group, "name of a volume", "run", "--volume=a/b:/data", image),
		says(group, "two mounts at one place", "run", "--volume=db:/data", "--tmpfs=/data", image),
		says(group, "mount over /proc", "run", "--volume=db:/proc/self", image),
		says(group, "image mounted writable", "run", "--mount=type=image,src=tools,dst=/tools,rw", image),
		says(group, "files of the host given away", "run", "--volume=/etc:/etc:U", image),
		says(group, "no such volume", "volume", "rm", "db"),
		says(group, "volume on another file system", "volume", "create", "--opt=type=nfs", "db"),
		says(group, "pull policy", "run", "--pull=sometimes", image),
		says(group, "platform", "run", "--platform=What", image),
		says(group, "insecure option", "run", "--insecure-options=everything", image),
		says(group, "standard input without a name", "fetch", "-"),
		says(group, "no such pod", "stop", "nobody"),
		says(group, "no such image", "image", "rm", image),
	}
}

func referenceRows() []row {
	const group = "References"
	return []row{
		says(group, "capital letters", "fetch", "registry.example.com/Acme/web"),
		says(group, "a short digest", "fetch", "nginx@sha256:abc"),
		says(group, "a digest alone", "fetch", "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
		says(group, "another tool's transport", "fetch", "containers-storage:web"),
		says(group, "a URL", "fetch", "https://registry.example.com/acme/web"),
		{group: group, name: "a directory that is no layout", do: func(f *fixture) []string {
			f.write("empty/file", "")
			return []string{"fetch", "oci:" + filepath.Join(f.Dir, "empty")}
		}},
		says(group, "a file that is not there", "fetch", "docker-archive:/nowhere/web.tar"),
		{group: group, name: "a file that is no archive", do: func(f *fixture) []string {
			return []string{"fetch", "docker-archive:" + f.write("text", strings.Repeat("hello", 300))}
		}},
		{group: group, name: "an archive of the other kind", do: func(f *fixture) []string {
			f.Add("app", f.program())
			if err := imagetest.Layout(filepath.Join(f.Dir, "oci")).Archive(filepath.Join(f.Dir, "web.tar")); err != nil {
				f.t.Fatal(err)
			}
			return []string{"fetch", "docker-archive:" + filepath.Join(f.Dir, "web.tar")}
		}},
		{group: group, name: "not in the archive", do: func(f *fixture) []string {
			name := filepath.Join(f.Dir, "web.tar")
			if err := imagetest.DockerArchive(name, "old", "", imagetest.Saved{Packed: f.pack(f.program()), Names: []string{"web:1", "web:2"}}); err != nil {
				f.t.Fatal(err)
			}
			return []string{"fetch", "docker-archive:" + name + ":db:1"}
		}},
	}
}

// badRegistry is a row of a registry that behaves so.
func badRegistry(name string, b bad) row {
	return row{group: "Registries", name: name, do: func(f *fixture) []string {
		f.serve(f.pack(f.program()), b, false)
		return []string{"fetch", "--quiet", f.image}
	}}
}

func registryRows() []row {
	const group = "Registries"
	return []row{
		says(group, "no such host", "fetch", "registry.invalid/a/app:1"),
		says(group, "nobody listens", "fetch", "127.0.0.1:1/a/app:1"),
		badRegistry("401 without a credential", status(http.StatusUnauthorized, "")),
		{group: group, name: "401 with one", do: func(f *fixture) []string {
			f.serve(f.pack(f.program()), status(http.StatusUnauthorized, `{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}`), false)
			file := f.write("auth.json", `{"auths":{"`+f.registry+`":{"auth":"bWU6c2VjcmV0"}}}`)
			return []string{"fetch", "--quiet", "--authfile=" + file, f.image}
		}},
		{group: group, name: "a credential helper that is not installed", do: func(f *fixture) []string {
			f.serve(f.pack(f.program()), nil, false)
			file := f.write("auth.json", `{"credHelpers":{"`+f.registry+`":"keeper"}}`)
			return []string{"fetch", "--quiet", "--authfile=" + file, f.image}
		}},
		badRegistry("403", status(http.StatusForbidden, `{"errors":[{"code":"DENIED","message":"not yours"}]}`)),
		{group: group, name: "404", do: func(f *fixture) []string {
			f.serve(f.pack(f.program()), nil, false)
			return []string{"fetch", "--quiet", f.registry + "/a/app:2"}
		}},
		badRegistry("429", status(http.StatusTooManyRequests, "")),
		badRegistry("500", status(http.StatusInternalServerError, "oops")),
		badRegistry("503", status(http.StatusServiceUnavailable, "")),
		badRegistry("501", status(http.StatusNotImplemented, "")),
		badRegistry("a connection that is cut", only("/blobs/", hangUp)),
		badRegistry("a redirect away", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", "http://192.0.2.1"+r.URL.Path)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return r.URL.Path != "/v2/" // that is only asked whether it is a registry
		}),
		{group: group, name: "a certificate of nobody known", do: func(f *fixture) []string {
			f.serve(f.pack(f.program()), nil, true)
			return []string{"fetch", "--quiet", f.image}
		}},
		mirrored("a mirror that has other bytes under a digest", true, answer("application/vnd.oci.image.manifest.v1+json", []byte(`{"schemaVersion":2}`))),
		mirrored("a mirror that sends elsewhere", true, func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", "http://192.0.2.1"+r.URL.Path)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return r.URL.Path != "/v2/"
		}),
		mirrored("a mirror that has no such image, nor has the source", false, status(http.StatusNotFound, "")),
		registriesFile("a key of registries.d that is none", "Mirrors=mirror.example.com"),
		registriesFile("a registry that is not to be asked", "Blocked=yes"),
		registriesFile("an authority that is no certificate", "Authority=/etc/hostname"),
		says(group, "never, and not here", "run", "--pull=never", "registry.example.com/acme/web:1"),
	}
}

// mirrored is a row of an image whose registry is not there, and whose mirror is
// bad.
func mirrored(name string, pinned bool, b bad) row {
	return row{group: "Registries", name: name, do: func(f *fixture) []string {
		p := f.pack(f.program())
		f.serve(p, b, false)
		f.Must("trust", "add", "--prefix", "registry.invalid", "--accept", "insecure")
		f.write("etc/registries.d/10-mirror.conf", "[Registry]\nName=registry.invalid\nMirror="+f.registry+"\n")
		ref := "registry.invalid/a/app:1"
		if pinned {
			ref = "registry.invalid/a/app@" + string(p.Manifest.Descriptor.Digest)
		}
		return []string{"fetch", "--quiet", ref}
	}}
}

// registriesFile is a row of a drop-in file about a registry, with such a line.
func registriesFile(name, line string) row {
	return row{group: "Registries", name: name, do: func(f *fixture) []string {
		f.Must("trust", "add", "--prefix", "registry.invalid", "--accept", "insecure")
		f.write("etc/registries.d/10-site.conf", "[Registry]\nName=registry.invalid\n"+line+"\n")
		return []string{"fetch", "--quiet", "registry.invalid/a/app:1"}
	}}
}

// attack is a row of an image of imagetest, signed by a trusted key.
func attack(name, of string) row {
	return row{group: "Content", name: name, do: func(f *fixture) []string {
		a, err := imagetest.Find(of)
		if err != nil {
			f.t.Fatal(err)
		}
		f.Add("app", a.Image(f.program()))
		f.Must("trust", "add", "--prefix", "oci:"+f.Dir, "--accept", "insecure")
		f.must("rm", "-r", filepath.Join(f.Dir, "etc", "trust.d"))
		f.Must("trust", "add", "--prefix", "oci:"+f.Dir, "--accept", "insecure")
		return []string{"fetch", "--quiet", f.Ref("app")}
	}}
}

// spoiled is a row of a registry that has something else than it says.
func spoiled(name string, b func(p imagetest.Packed) bad) row {
	return row{group: "Content", name: name, do: func(f *fixture) []string {
		p := f.pack(f.program())
		f.serve(p, b(p), false)
		return []string{"fetch", "--quiet", f.image}
	}}
}

func contentRows() []row {
	layer := func(p imagetest.Packed) string { return string(p.Blobs[0].Descriptor.Digest) }
	return []row{
		spoiled("wrong digest", func(p imagetest.Packed) bad {
			return only(layer(p), answer("", make([]byte, p.Blobs[0].Descriptor.Size)))
		}),
		spoiled("wrong size", func(p imagetest.Packed) bad { return only(layer(p), answer("", []byte("short"))) }),
		spoiled("endless", func(p imagetest.Packed) bad { return only(layer(p), endless) }),
		spoiled("a manifest of another digest", func(p imagetest.Packed) bad {
			return only("/manifests/", answer(p.Manifest.Descriptor.MediaType, []byte("{}")))
		}),
		spoiled("wrong media type", func(p imagetest.Packed) bad {
			return only("/manifests/", answer("text/html", []byte("<html>log in</html>")))
		}),
		spoiled("another platform only", func(p imagetest.Packed) bad {
			return only("/manifests/1", answer("application/vnd.oci.image.index.v1+json", foreignIndex(p)))
		}),
		attack("a manifest that is also an index", "CVE-2021-41190"),
		attack("no layers", "no-layers"),
		attack("a digest that is a path", "CVE-2024-3727"),
		attack("a layer that is elsewhere", "CVE-2020-15157"),
		attack("a bomb", "CVE-2017-14992"),
		attack("a header without end", "CVE-2022-2879"),
		attack("a layer cut short", "layer-truncated"),
		attack("a wrong diff ID", "diff-id-lies"),
		attack("a root that is a link", "CVE-2021-29136"),
		attack("a hard link out of the image", "CVE-2021-32760"),
		attack("a hard link to nothing", "hardlink-to-nothing"),
		attack("a whiteout of the directory above", "whiteout-dot-dot"),
		attack("a name too long", "name-too-long"),
		attack("a path too deep", "path-too-deep"),
		attack("a variable that asks for the host's", "CVE-2026-57231-no-equals"),
		attack("a line break in a variable", "CVE-2022-4318"),
		attack("a user out of range", "CVE-2024-40635"),
	}
}

func trustRows() []row {
	const group = "Trust"
	return []row{
		{group: group, name: "no rule", do: func(f *fixture) []string {
			f.must("sh", "-c", "rm "+filepath.Join(f.Dir, "etc/trust.d/*"))
			f.Add("app", f.program())
			return []string{"fetch", "--quiet", f.Ref("app")}
		}},
		{group: group, name: "no signature", do: func(f *fixture) []string {
			f.Add("app", f.program())
			return []string{"fetch", "--quiet", f.Ref("app")}
		}},
		{group: group, name: "docker save has no signatures", do: func(f *fixture) []string {
			name := filepath.Join(f.Dir, "web.tar")
			if err := imagetest.DockerArchive(name, "old", "", imagetest.Saved{Packed: f.pack(f.program()), Names: []string{"web:1"}}); err != nil {
				f.t.Fatal(err)
			}
			f.Must("trust", "add", "--prefix", "registry.example.com/acme", f.Key()+".pub")
			return []string{"fetch", "--quiet", "docker-archive:" + name, "--as", "registry.example.com/acme/web:1"}
		}},
		{group: group, name: "a name that no rule accepts", do: func(f *fixture) []string {
			return []string{"image", "tag", f.fetched(f.program()), "registry.example.com/acme/web:1"}
		}},
		{group: group, name: "a rule that cannot be read", do: func(f *fixture) []string {
			ref := f.fetched(f.program())
			f.write("etc/trust.d/50-acme.conf", "[Trust]\nPrefx=registry.example.com/acme\nAccept=insecure\n")
			return []string{"run", "--pull=never", ref}
		}},
		{group: group, name: "a rule that anybody may change", do: func(f *fixture) []string {
			ref := f.fetched(f.program())
			rules, err := filepath.Glob(filepath.Join(f.Dir, "etc/trust.d/*.conf"))
			if err != nil || len(rules) != 1 {
				f.t.Fatal(rules, err)
			}
			f.must("chmod", "0666", rules[0])
			f.shown = []string{"run", "--pull=never", ref}
			return f.shown
		}},
		{group: group, name: "files changed in the store", needs: []ability.Ability{ability.Erofs}, do: func(f *fixture) []string {
			ref := f.fetched(f.program())
			f.must("sh", "-c", "for f in "+filepath.Join(f.Dir, "lib/trees/images/*.erofs")+"; do cp $f $f.new; chmod u+w $f.new; printf x | dd of=$f.new bs=1 seek=2000 conv=notrunc status=none; mv $f.new $f; done")
			return []string{"run", "--pull=never", ref}
		}},
	}
}

// app is a row of an image that is fine but for this.
func app(name string, edit func(f *fixture, i *imagetest.Image), args ...string) row {
	return row{group: "The app", name: name, do: func(f *fixture) []string {
		i := f.program(
			imagetest.File{Path: "bin/data", Mode: 0o644, Body: []byte("text")},
			imagetest.File{Path: "bin/script", Mode: 0o755, Body: []byte("#!/no/such/interpreter\n")},
			imagetest.File{Path: "bin/foreign", Mode: 0o755, Body: foreignProgram()},
			imagetest.File{Path: "bin/linked", Mode: 0o755, Body: linkedProgram(f.Program("inspect"))},
			imagetest.File{Path: "bin/nothing", Mode: 0o755},
		)
		if edit != nil {
			edit(f, &i)
		}
		var flags []string
		for len(args) > 0 && strings.HasPrefix(args[0], "-") {
			flags, args = append(flags, args[0]), args[1:]
		}
		return append(append(append([]string{"run", "--rm", "--net=none"}, flags...), f.fetched(i)), args...)
	}}
}

func bare(_ *fixture, i *imagetest.Image) { i.Config.Config.Entrypoint = nil }

func appRows() []row {
	return []row{
		app("no such user", nil, "--user=jane"),
		app("no such group", nil, "--user=0:staff2"),
		app("no command", func(_ *fixture, i *imagetest.Image) { i.Config.Config.Entrypoint, i.Config.Config.Cmd = nil, nil }),
		app("an empty command", bare, ""),
		app("no such command", bare, "no-such-command"),
		app("no such file", bare, "/bin/no-such-file"),
		app("not executable", bare, "/bin/data"),
		app("a directory", bare, "/bin"),
		app("a program of another architecture", bare, "/bin/foreign"),
		app("an empty program", bare, "/bin/nothing"),
		app("an interpreter that is missing", bare, "/bin/script"),
		app("a dynamic loader that is missing", bare, "/bin/linked"),
		app("a working directory that is a file", nil, "--workdir=/bin/data"),
		app("a volume over a file", func(f *fixture, _ *imagetest.Image) {}, "--tmpfs=/bin/data"),
	}
}

// foreignProgram is the head of an executable for a machine nobody has.
func foreignProgram() []byte {
	b := make([]byte, 64)
	copy(b, elf.ELFMAG)
	b[elf.EI_CLASS], b[elf.EI_DATA], b[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	b[16], b[18], b[20] = byte(elf.ET_EXEC), byte(elf.EM_VAX), 1
	return b
}

// linkedProgram is a program that names a loader: the interpreter of the
// first loadable segment's place.
func linkedProgram(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	f, err := elf.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	// The last program header becomes PT_INTERP with its text at the end.
	at := int(b[32]) + (len(f.Progs)-1)*56
	text := []byte("/lib/no-such-loader.so\x00")
	put := func(off int, v uint64, n int) {
		for i := range n {
			b[at+off+i] = byte(v >> (8 * i))
		}
	}
	put(0, uint64(elf.PT_INTERP), 4)
	put(4, uint64(elf.PF_R), 4)
	put(8, uint64(len(b)), 8)
	put(32, uint64(len(text)), 8)
	put(40, uint64(len(text)), 8)
	return append(b, text...)
}

func hostRows() []row {
	const group = "The host"
	lacks := func(name, calls string) row {
		return row{group: group, name: name, do: func(f *fixture) []string {
			ref := f.fetched(f.program())
			f.lacks = calls
			return []string{"run", "--rm", "--net=none", ref, "exit", "0"}
		}}
	}
	return []row{
		{group: group, name: "a store of a newer version", do: func(f *fixture) []string {
			ref := f.fetched(f.program())
			f.write("lib/store/version", "99\n")
			return []string{"run", "--rm", ref}
		}},
		{group: group, name: "a store of a newer version, to fetch into", do: func(f *fixture) []string {
			f.Must("image", "ls")
			f.write("lib/store/version", "99\n")
			return []string{"fetch", "registry.example.com/acme/web:1"}
		}},
		{group: group, name: "a store whose index is damaged", do: func(f *fixture) []string {
			ref := f.fetched(f.program())
			f.write("lib/store/index.json", `{"schemaVersion":2,"mani`)
			return []string{"run", "--rm", ref}
		}},
		{group: group, name: "a full disk, to fetch to", do: func(f *fixture) []string {
			f.Add("app", f.program(imagetest.File{Path: "big", Body: noise(8 << 20)}))
			f.small(4 << 20)
			return []string{"fetch", "--quiet", "--insecure-options=image", f.Ref("app")}
		}},
		{group: group, name: "a full disk, to prepare a pod on", do: func(f *fixture) []string {
			f.small(32 << 20)
			ref := f.fetched(f.program())
			fill(f, filepath.Join(f.Dir, "lib/ballast"))
			return []string{"run", "--rm", "--net=none", ref, "exit", "0"}
		}},
		{group: group, name: "a file system without a free inode", do: func(f *fixture) []string {
			f.Add("app", f.program())
			f.small(32<<20, "nr_inodes=16")
			return []string{"fetch", "--quiet", "--insecure-options=image", f.Ref("app")}
		}},
		{group: group, name: "a full disk, to copy into a volume on", do: func(f *fixture) []string {
			f.small(32 << 20)
			i := f.program(imagetest.File{Path: "data/big", Mode: 0o644, Body: noise(2 << 20)})
			i.Config.Config.Volumes = map[string]struct{}{"/data": {}}
			ref := f.fetched(i)
			fillTo(f, filepath.Join(f.Dir, "lib/ballast"), 1<<20)
			return []string{"run", "--rm", "--net=none", "--volume=db:/data", ref, "exit", "0"}
		}},
		{group: group, name: "too few open files", do: func(f *fixture) []string {
			ref := f.fetched(f.program())
			f.before = []string{"sh", "-c", `ulimit -n 10; exec "$0" "$@"`}
			return []string{"run", "--rm", "--net=none", ref, "exit", "0"}
		}},
		{group: group, name: "a file system that is read-only", do: func(f *fixture) []string {
			f.Add("app", f.program())
			f.small(4 << 20)
			if err := unix.Mount("none", filepath.Join(f.Dir, "lib"), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				f.t.Fatal(err)
			}
			return []string{"fetch", "--quiet", "--insecure-options=image", f.Ref("app")}
		}},
		{group: group, name: "a name that is taken", do: func(f *fixture) []string {
			ref := f.fetched(f.program())
			f.Must("prepare", "--name=web", ref)
			return []string{"run", "--name=web", ref}
		}},
		{group: group, name: "an image that is used", do: func(f *fixture) []string {
			ref := f.fetched(f.program())
			f.Must("prepare", ref)
			return []string{"image", "rm", ref}
		}},
		lacks("a kernel without clone3", "clone3"),
		lacks("a kernel without fsopen", "fsopen"),
		lacks("a kernel without openat2", "openat2"),
		lacks("a kernel without open_tree", "open_tree"),
		lacks("a kernel without mount_setattr", "mount_setattr"),
	}
}

// small puts the store on a file system of so many bytes.
func (f *fixture) small(size int, options ...string) {
	f.t.Helper()
	lib := filepath.Join(f.Dir, "lib")
	if err := os.MkdirAll(lib, 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := unix.Mount("none", lib, "tmpfs", 0, strings.Join(append(options, fmt.Sprintf("mode=0700,size=%d", size)), ",")); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = unix.Unmount(lib, unix.MNT_DETACH) })
}

// fill leaves no byte.
func fill(f *fixture, name string) {
	f.t.Helper()
	w, err := os.Create(name)
	if err != nil {
		f.t.Fatal(err)
	}
	defer w.Close()
	for b := noise(4096); ; {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

// fillTo leaves that many bytes.
func fillTo(f *fixture, name string, left uint64) {
	f.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(name), &st); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(name, noise(int(st.Bavail*uint64(st.Bsize)-left)), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// noise is bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}
