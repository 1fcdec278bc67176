// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Transport is the kind of place an image comes from.
type Transport string

// The transports. The zero value is a registry.
const (
	Registry      Transport = ""
	Layout        Transport = "oci"
	OCIArchive    Transport = "oci-archive"
	DockerArchive Transport = "docker-archive" // of docker save and podman save
	// AnyArchive is an archive of either kind, told apart by its content. It
	// has no spelling and never is an image's name.
	AnyArchive Transport = "archive"
)

// Stdin is the Path of an archive that comes from standard input.
const Stdin = "-"

const (
	defaultHost = "docker.io"
	defaultTag  = "latest"
	// legacyHost is what Docker Hub was called first; people and old
	// credentials still use it.
	legacyHost = "index.docker.io"
	library    = "library/"
)

// Reference says which image is meant. Parse makes it canonical: two ways to
// type the same name give the same value, so it can be compared and be a key.
type Reference struct {
	Transport Transport
	// Host of the registry in lower case, with its port if one was given, and
	// Repository: both only for registries.
	Host, Repository string
	// Tag is never empty for a registry unless there is a digest. In a layout
	// or archive it is the name of an entry, and may be empty if there is one.
	Tag string
	// Digest pins the content; empty if it was not given.
	Digest digest.Digest
	// Path of a layout or an archive, absolute and clean.
	Path string
}

// Parse reads a reference as people type it:
//
//	nginx                         docker.io/library/nginx:latest
//	Registry.example:5000/a/b:1   registry.example:5000/a/b:1
//	nginx:1.27@sha256:…           docker.io/library/nginx:1.27@sha256:…
//	docker://nginx                docker.io/library/nginx:latest
//	oci:dir[:name][@sha256:…]     a layout; dir is made absolute
//	oci-archive:file[:name]       the same in a tar archive
//	docker-archive:file[:ref]     an archive of docker save; ref as above
//	docker-archive:file:@0        the same by its place in it
//	oci-archive:-                 either kind of archive from standard input
//
// The grammar is that of github.com/distribution/reference except where that
// one lets two spellings of one name differ or a name be taken for something
// else: hosts are lower-cased, a host without dot or port must be lower-case
// already, ports are 1 to 65535, IPv6 hosts are real addresses in their
// shortest form, digests are sha256 or sha512, and a bare digest is no name.
func Parse(s string) (Reference, error) {
	ref, err := parse(s)
	if err != nil {
		return Reference{}, fmt.Errorf("reference %s: %w", quote(s), err)
	}
	return ref, nil
}

func parse(s string) (Reference, error) {
	if s == "" {
		return Reference{}, errors.New("empty; it must name an image, as in nginx:1.27 or oci:directory")
	}
	if i := strings.IndexFunc(s, notPrintable); i >= 0 {
		return Reference{}, fmt.Errorf("control or invalid character at byte %d", i)
	}
	if rest, ok := strings.CutPrefix(s, "oci:"); ok {
		return parseLocal(Layout, rest)
	}
	if rest, ok := strings.CutPrefix(s, "oci-archive:"); ok {
		return parseLocal(OCIArchive, rest)
	}
	if rest, ok := strings.CutPrefix(s, "docker-archive:"); ok {
		return parseLocal(DockerArchive, rest)
	}
	rest, _ := strings.CutPrefix(s, "docker://")
	if rest == s && transportHint(s) != "" {
		// Who means Docker Hub's library/dir:1 can write that.
		return Reference{}, errors.New("a transport of other tools" + transportHint(s))
	}
	ref, err := parseRegistry(rest)
	if err != nil {
		return Reference{}, fmt.Errorf("%w%s", err, transportHint(rest))
	}
	return ref, nil
}

// transportHint helps those who typed a transport of other tools.
func transportHint(s string) string {
	for _, t := range []string{"dir", "docker-daemon", "containers-storage", "ostree", "sif", "tarball"} {
		if strings.HasPrefix(s, t+":") {
			return fmt.Sprintf(" (transport %s: is not supported; oci:, oci-archive:, docker-archive: and docker:// are)", t)
		}
	}
	return ""
}

// String returns the canonical form, which Parse reads back to the same value.
// It is the key of the image in the store.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// Name returns the canonical name without tag and digest: what trust policies
// are about.
func (r Reference) Name() string {
	if r.Transport != Registry {
		return string(r.Transport) + ":" + r.Path
	}
	return r.Host + "/" + r.Repository
}

// Familiar returns the shortest form that Parse reads back to the same value.
func (r Reference) Familiar() string {
	full := r.String()
	if r.Transport != Registry || r.Host != defaultHost {
		return full
	}
	short := strings.TrimPrefix(full, defaultHost+"/")
	for _, candidate := range []string{strings.TrimPrefix(short, library), short} {
		if got, err := Parse(candidate); err == nil && got == r {
			return candidate
		}
	}
	return full
}

// parseLocal reads what follows oci: and the like. As in other tools the path
// ends at the first colon, so a path with a colon cannot be written.
func parseLocal(t Transport, s string) (Reference, error) {
	rest, d, err := cutDigest(s, true)
	if err != nil {
		return Reference{}, err
	}
	path, tag, named := strings.Cut(rest, ":")
	if path == "" {
		return Reference{}, fmt.Errorf("no path after %q", t+":")
	}
	if named {
		if tag, err = entryName(t, tag); err != nil {
			return Reference{}, err
		}
	}
	if path == Stdin && t != Layout {
		return Reference{Transport: t, Path: Stdin, Tag: tag, Digest: d}, nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return Reference{}, err
	}
	switch {
	case strings.Contains(abs, ":"):
		return Reference{}, fmt.Errorf("path %s contains a colon, which ends a path here", quote(abs))
	case len(abs) > 4095:
		return Reference{}, errors.New("path longer than 4095 bytes")
	case looksPinned(abs):
		// Its canonical form followed by a name could read as a digest.
		return Reference{}, fmt.Errorf("path %s ends like the start of a digest", quote(abs))
	}
	return Reference{Transport: t, Path: abs, Tag: tag, Digest: d}, nil
}

// entryName checks the name of an entry of a layout or an archive. In one of
// docker save names are those of registries, canonical like all of them.
func entryName(t Transport, name string) (string, error) {
	if t != DockerArchive {
		return name, checkLayoutTag(name)
	}
	if place, ok := strings.CutPrefix(name, "@"); ok {
		n, err := strconv.ParseUint(place, 10, 16)
		if err != nil || strconv.FormatUint(n, 10) != place {
			return "", fmt.Errorf("%s is not a place in the archive, as in :@0", quote(name))
		}
		return name, nil
	}
	ref, err := parseRegistry(name)
	if err != nil {
		return "", fmt.Errorf("image %s in the archive: %w", quote(name), err)
	}
	return ref.String(), nil
}

// parseRegistry reads [host/]repository[:tag][@digest].
func parseRegistry(s string) (Reference, error) {
	rest, d, err := cutDigest(s, false)
	if err != nil {
		return Reference{}, err
	}
	if err := checkWhole(rest, d); err != nil {
		return Reference{}, err
	}
	name, tag := rest, ""
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		name, tag = rest[:i], rest[i+1:]
		if err := checkTag(tag); err != nil {
			return Reference{}, err
		}
	}
	host, repository := splitHost(name)
	if host, err = canonicalHost(host); err != nil {
		return Reference{}, err
	}
	if host == defaultHost && !strings.Contains(repository, "/") {
		repository = library + repository
	}
	if err := checkRepository(repository); err != nil {
		return Reference{}, err
	}
	if tag == "" && d == "" {
		tag = defaultTag
	}
	return Reference{Host: host, Repository: repository, Tag: tag, Digest: d}, nil
}

// checkWhole refuses what would parse, or fail, as something nobody meant.
func checkWhole(rest string, d digest.Digest) error {
	switch {
	case strings.Contains(rest, "://"):
		return errors.New("a URL is no reference; leave the scheme out")
	case rest == "" && d != "":
		return errors.New("a digest alone names no repository; write NAME@" + string(d))
	case rest == "":
		return errors.New("empty name")
	case ValidDigest(digest.Digest(rest)) == nil:
		return errors.New("a digest alone names no repository; write NAME@" + rest)
	case d == "" && len(rest) == 64 && isHex(rest):
		return errors.New("64 hexadecimal digits are an identifier, not a name")
	case strings.HasPrefix(rest, "/"):
		return errors.New("starts with a slash; a directory is written oci:" + rest)
	case strings.HasPrefix(rest, "./"), strings.HasPrefix(rest, "../"):
		return errors.New("a path is not a name; a directory is written oci:" + rest)
	case strings.HasSuffix(rest, "/"):
		return errors.New("ends with a slash")
	}
	return nil
}

// cutDigest cuts @digest off the end. In a local reference an @ may be part of
// a path, so there only a known algorithm makes a digest of what follows it.
func cutDigest(s string, local bool) (string, digest.Digest, error) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return s, "", nil
	}
	d := digest.Digest(s[i+1:])
	if local && !looksPinned(s[:i+1]+string(d)) {
		return s, "", nil
	}
	if err := ValidDigest(d); err != nil {
		return "", "", err
	}
	return s[:i], d, nil
}

// looksPinned tells whether what follows the last @ starts as a digest does.
func looksPinned(s string) bool {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return false
	}
	algorithm, _, _ := strings.Cut(s[i+1:], ":")
	switch algorithm {
	case "sha256", "sha384", "sha512":
		return true
	}
	return false
}
