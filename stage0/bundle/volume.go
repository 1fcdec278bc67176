// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/hint"
)

// Mount says of a mount what a runtime specification has no place for. Dest
// names it among Spec.Mounts. Of Dir, Volume and Image at most one is set;
// none: a path of the host.
type Mount struct {
	Dest   string `json:"dest"`
	Dir    string `json:"dir,omitempty"`    // a directory of the pod's, below its own
	Volume string `json:"volume,omitempty"` // a named volume
	Image  string `json:"image,omitempty"`  // the read-only tree of another image
	Sub    string `json:"sub,omitempty"`    // what of it is mounted, below it
	NoFill bool   `json:"noFill,omitempty"` // a volume does not begin with what the image has at Dest
	Chown  bool   `json:"chown,omitempty"`  // its files are given to the app's user first
}

// Shared is a mount of another pod that --volumes-from takes over.
type Shared struct {
	Spec  specs.Mount
	Mount Mount
}

// maxVolumeName is what a file system allows a name, less what we put before
// it while a volume comes and goes.
const maxVolumeName = 128

// CheckVolumeName says whether a volume can be called that.
func CheckVolumeName(name string) error {
	if name == "" || len(name) > maxVolumeName {
		return fmt.Errorf("volume name %q: between 1 and %d characters are allowed", name, maxVolumeName)
	}
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '-' && c != '.' && c != '_') {
			return fmt.Errorf("volume name %q: use letters, digits, '_', '.' and '-', and begin with a letter or digit", name)
		}
	}
	return nil
}

// parseVolume reads [SOURCE:]DEST[:OPTIONS]. A source that begins with "/" or
// "." is a host path, any other the name of a volume; DEST alone is a fresh
// directory of the pod.
func (b *builder) parseVolume(s string) (specs.Mount, error) {
	parts := strings.Split(s, ":")
	switch {
	case len(parts) > 3 || slices.Contains(parts, ""):
		return specs.Mount{}, fmt.Errorf("write [SOURCE:]DEST[:OPTIONS]")
	case len(parts) == 1:
		return b.freshVolume(s)
	}
	var options []string
	if len(parts) == 3 {
		options = strings.Split(parts[2], ",")
	}
	if isPath(parts[0]) {
		return b.bind(parts[0], parts[1], options)
	}
	return b.namedVolume(parts[0], parts[1], "", options)
}

// isPath tells a path from the name of a volume.
func isPath(source string) bool {
	return path.IsAbs(source) || source == "." || source == ".." || strings.HasPrefix(source, "./") || strings.HasPrefix(source, "../")
}

// freshVolume is a directory of the pod, gone with it, that begins with what
// the image has there.
func (b *builder) freshVolume(dest string) (specs.Mount, error) {
	dest, err := destination(dest)
	if err != nil {
		return specs.Mount{}, err
	}
	v := Volume{Dir: "volumes/" + strconv.Itoa(len(b.r.Volumes)), Dest: dest}
	b.r.Volumes = append(b.r.Volumes, v)
	b.r.Mounts = append(b.r.Mounts, Mount{Dest: dest, Dir: v.Dir})
	return specs.Mount{Destination: dest, Type: "bind", Source: path.Join(b.Pod.Dir, v.Dir), Options: b.owned([]string{"rbind", "nosuid", "nodev", "rprivate", "copyup"})}, nil
}

// namedVolume is a directory that outlives the pod; one that does not exist
// is made.
func (b *builder) namedVolume(name, dest, sub string, options []string) (specs.Mount, error) {
	if err := CheckVolumeName(name); err != nil {
		return specs.Mount{}, hint.With(err, "a path of the host begins with / or ./")
	}
	m := Mount{Volume: name}
	var err error
	if m.Dest, err = destination(dest); err != nil {
		return specs.Mount{}, err
	}
	if m.Sub, err = subpath(sub); err != nil {
		return specs.Mount{}, err
	}
	o, err := b.bindOptions(options)
	if err != nil {
		return specs.Mount{}, err
	}
	m.Chown, m.NoFill = o.chown, o.noFill
	if !slices.Contains(o.words, "idmap") {
		o.words = b.owned(o.words) // on the disk are the ids that images have: pods of any ids share them
	}
	b.r.Mounts = append(b.r.Mounts, m)
	return o.mount(m.Dest, path.Join(b.Host.Volumes, name, VolumeData, m.Sub)), nil
}

// VolumeData is the directory of a volume's that apps see.
const VolumeData = "data"

// imageMount is the root of another image, read-only: it is proven at every
// launch as the pod's own is, and nothing that could change it is proven.
func (b *builder) imageMount(ref, dest, sub string, options []string) (specs.Mount, error) {
	m := Mount{Image: ref}
	if err := clean("source", ref); err != nil {
		return specs.Mount{}, err
	}
	var err error
	if m.Dest, err = destination(dest); err != nil {
		return specs.Mount{}, err
	}
	if m.Sub, err = subpath(sub); err != nil {
		return specs.Mount{}, err
	}
	if slices.Contains(options, "rw") {
		return specs.Mount{}, fmt.Errorf("an image cannot be mounted writable: what is proven of it would be gone")
	}
	o, err := b.bindOptions(options)
	if err != nil {
		return specs.Mount{}, err
	}
	if o.chown || o.fillSaid || slices.Contains(o.words, "idmap") {
		return specs.Mount{}, fmt.Errorf("the files of an image are mounted as they are: only ro, noexec and the like are options of type=image")
	}
	if !slices.Contains(o.words, "ro") && !slices.Contains(o.words, "rro") {
		o.words = append(o.words, "ro")
	}
	o.words = b.owned(o.words)
	b.r.Mounts = append(b.r.Mounts, m)
	return o.mount(m.Dest, ref), nil
}

// subpath checks what of a volume or an image is to be mounted. It is looked
// up below the volume when the pod starts (CVE-2017-1002101).
func subpath(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if err := clean("subpath", s); err != nil {
		return "", err
	}
	if slices.Contains(strings.Split(s, "/"), "..") {
		return "", fmt.Errorf("subpath %q: it must not go upwards", s)
	}
	return strings.TrimPrefix(path.Clean("/"+s), "/"), nil
}

// bind makes a bind mount as podman does: recursive, private, without devices
// and setuid unless asked for.
func (b *builder) bind(source, dest string, options []string) (specs.Mount, error) {
	if err := clean("source", source); err != nil {
		return specs.Mount{}, err
	}
	if !isPath(source) {
		return specs.Mount{}, hint.With(fmt.Errorf("source %q is not a path", source), "begin a path with / or ./, and use type=volume for the name of a volume")
	}
	if !path.IsAbs(source) {
		source = path.Join(b.Host.Dir, source)
	}
	dest, err := destination(dest)
	if err != nil {
		return specs.Mount{}, err
	}
	o, err := b.bindOptions(options)
	if err != nil {
		return specs.Mount{}, err
	}
	if o.fillSaid {
		return specs.Mount{}, fmt.Errorf("copy and nocopy are options of volumes: a directory of the host is never filled")
	}
	source = path.Clean(source)
	if o.chown {
		if err := NotVital(source); err != nil {
			return specs.Mount{}, err
		}
	}
	b.r.Mounts = append(b.r.Mounts, Mount{Dest: dest, Chown: o.chown})
	return o.mount(dest, source), nil
}

// NotVital keeps option U from giving away what the host lives by. It is asked
// for what the user wrote, and again for where links led.
func NotVital(source string) error {
	vital := []string{
		"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt",
		"/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log", "/usr/bin", "/usr/lib",
	}
	for _, below := range []string{"/boot/", "/dev/", "/etc/", "/proc/", "/sys/", "/usr/"} {
		if strings.HasPrefix(source, below) {
			return fmt.Errorf("option U: %s belongs to the host and keeps its owners", source)
		}
	}
	if slices.Contains(vital, source) {
		return fmt.Errorf("option U: %s belongs to the host and keeps its owners", source)
	}
	return nil
}

// volumesFrom takes over what other pods mount, in the order of the pods.
func (b *builder) volumesFrom() ([]specs.Mount, error) {
	var out []specs.Mount
	for i, v := range b.Options.VolumesFrom {
		_, words, _ := strings.Cut(v, ":")
		access, err := accessOf(words)
		if err != nil {
			return nil, fmt.Errorf("--volumes-from %q: %w", v, err)
		}
		if i >= len(b.Host.From) {
			continue
		}
		for _, s := range b.Host.From[i] {
			if s.Mount.Dir != "" {
				return nil, hint.With(
					fmt.Errorf("--volumes-from %q: %s is a directory of that pod, which is gone with it", v, s.Mount.Dest),
					fmt.Sprintf("give it a name there, and then mount that here as well: --volume NAME:%s", s.Mount.Dest),
				)
			}
			m := b.reshown(s)
			// What is read-only below as well stays so.
			narrowed := access == "ro" && slices.Contains(m.Options, "rro")
			if access != "" && s.Mount.Image == "" && !narrowed {
				m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" || o == "rro" })
				if access == "ro" {
					m.Options = append(m.Options, "ro")
				}
			}
			s.Mount.Chown = false // it was done when that pod started
			out = append(slices.DeleteFunc(out, func(x specs.Mount) bool { return x.Destination == m.Destination }), m)
			b.r.Mounts = append(slices.DeleteFunc(b.r.Mounts, func(x Mount) bool { return x.Dest == m.Destination }), s.Mount)
		}
	}
	return out, nil
}

// reshown is another pod's mount as this one sees it: volumes and images by the
// ids of its own user namespace.
func (b *builder) reshown(s Shared) specs.Mount {
	m := s.Spec
	if s.Mount.Volume+s.Mount.Image == "" || len(m.UIDMappings) > 0 {
		return m
	}
	m.Options = b.owned(slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "idmap" }))
	return m
}

// accessOf reads the options of --volumes-from: ro or rw, or that of the other
// pod.
func accessOf(words string) (string, error) {
	access := ""
	if words == "" {
		return "", nil
	}
	for w := range strings.SplitSeq(words, ",") {
		switch {
		case w == "z": // as for --volume
		case w != "ro" && w != "rw":
			return "", fmt.Errorf("option %q: use ro or rw", w)
		case access != "" && access != w:
			return "", fmt.Errorf("options %q and %q contradict each other", access, w)
		default:
			access = w
		}
	}
	return access, nil
}
