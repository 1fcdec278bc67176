// SPDX-License-Identifier: Apache-2.0

// Package registries reads what this host knows of registries: mirrors,
// authorities, client certificates, and which of them may be asked without
// encryption. It opens no connection.
//
// A file that cannot be believed stops every fetch: nobody can say which
// registry it would have blocked, or sent elsewhere.
package registries

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/internal/conf"
)

// subdir is below each layer of the configuration path.
const subdir = "registries.d"

// Bounds of what is handed to the process that speaks TLS, in one message.
const (
	maxAuthorities = 20 << 10
	maxCertificate = 8 << 10
	maxKey         = 8 << 10
)

// Settings are how a registry is spoken to. Certificates are PEM.
type Settings struct {
	Authorities []byte // besides those of the host
	Certificate []byte // of ours, for this registry alone
	Key         []byte
	PlainHTTP   bool
	InsecureTLS bool
}

// Mirror is a place that may have what another one has.
type Mirror struct {
	Host, Repository string
	DigestOnly       bool // it is asked for digests, and not what a tag stands for
}

// Registries are the rules of a configuration path.
type Registries struct {
	rules []rule
	certs []string // directories as other tools have them, with one for each host
}

// rule is one file.
type rule struct {
	file        string
	host, path  string // path is "" for the whole registry
	mirrors     []location
	authorities []string
	certificate string
	key         string
	plainHTTP   bool
	insecureTLS bool
	blocked     string // yes, no, or nothing said
}

type location struct {
	host, path string
	digestOnly bool
}

// Load reads the files of registries.d.
func Load(configPath []string) (*Registries, error) {
	files, err := conf.Load(configPath, subdir)
	if err != nil {
		return nil, err
	}
	r := &Registries{certs: []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}}
	for _, f := range files {
		if f.Problem != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, f.Problem)
		}
		one, err := parse(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		if i := slices.IndexFunc(r.rules, func(o rule) bool { return o.host == one.host && o.path == one.path }); i >= 0 {
			return nil, fmt.Errorf("%s: %s has the same Name=", f.Path, r.rules[i].file)
		}
		r.rules = append(r.rules, one)
	}
	return r, nil
}

func parse(f conf.File) (rule, error) {
	r := rule{file: f.Path}
	for _, s := range f.Sections {
		if s.Name != "Registry" {
			return r, fmt.Errorf("line %d: section [%s] is unknown: there is [Registry]", s.Line, s.Name)
		}
		for _, kv := range s.Keys {
			if err := r.set(kv.Key, kv.Value); err != nil {
				return r, fmt.Errorf("line %d: %s=%s: %w", kv.Line, kv.Key, kv.Value, err)
			}
		}
	}
	switch {
	case r.host == "":
		return r, errors.New("Name= is missing: the registry, or a part of it, that this is about")
	case (r.certificate == "") != (r.key == ""):
		return r, errors.New("Certificate= and Key= go together")
	}
	return r, nil
}

func (r *rule) set(key, value string) (err error) {
	switch key {
	case "Name":
		if r.host != "" {
			return errors.New("there is one Name= in a file")
		}
		r.host, r.path, err = place(value)
	case "Mirror", "DigestMirror":
		l := location{digestOnly: key == "DigestMirror"}
		l.host, l.path, err = place(value)
		r.mirrors = append(r.mirrors, l)
	case "Authority":
		r.authorities, err = append(r.authorities, value), absolute(value)
	case "Certificate":
		err = once(&r.certificate, value)
	case "Key":
		err = once(&r.key, value)
	case "Insecure":
		switch value {
		case "http":
			r.plainHTTP = true
		case "tls":
			r.insecureTLS = true
		default:
			err = errors.New("it is http (no encryption) or tls (any certificate)")
		}
	case "Blocked":
		switch value {
		case "yes", "no":
			r.blocked = value
		default:
			err = errors.New("it is yes or no")
		}
	default:
		err = errors.New("unknown key; there are Name, Mirror, DigestMirror, Authority, Certificate, Key, Insecure and Blocked")
	}
	return err
}

// place reads HOST[:PORT][/PATH] by the rules of references.
func place(s string) (host, repository string, err error) {
	host, repository, _ = strings.Cut(strings.TrimSuffix(s, "/"), "/")
	if host == "" || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "", "", errors.New("it does not begin with a registry, as in registry.example.com or localhost:5000/hub")
	}
	whole := repository
	if whole == "" {
		whole = "any"
	}
	ref, err := image.Parse(host + "/" + whole + ":any")
	if err != nil || ref.Transport != image.Registry || ref.Repository != whole && host != "docker.io" {
		return "", "", errors.New("it is not a registry, or a repository or a part of the way to one")
	}
	return ref.Host, repository, nil
}

// once takes the one path of a key.
func once(to *string, value string) error {
	if *to != "" {
		return errors.New("it is there already, and there is one of it")
	}
	*to = value
	return absolute(value)
}

func absolute(name string) error {
	if !filepath.IsAbs(name) || filepath.Clean(name) != name {
		return errors.New("it is not a clean absolute path")
	}
	return nil
}

// covers tells whether a repository is what the rule is about, or lies below.
func (r rule) covers(host, repository string) bool {
	return r.host == host && (r.path == "" || repository == r.path || strings.HasPrefix(repository, r.path+"/"))
}

// nearest is the rule with the longest name among those that cover a repository
// and have something to say.
func (s *Registries) nearest(host, repository string, says func(rule) bool) *rule {
	var found *rule
	if s == nil {
		return nil
	}
	for i, r := range s.rules {
		if r.covers(host, repository) && says(r) && (found == nil || len(r.path) > len(found.path)) {
			found = &s.rules[i]
		}
	}
	return found
}

// Mirrors are the places to ask before the repository itself, in order.
func (s *Registries) Mirrors(host, repository string) []Mirror {
	r := s.nearest(host, repository, func(r rule) bool { return len(r.mirrors) > 0 })
	if r == nil {
		return nil
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(repository, r.path), "/")
	var out []Mirror
	for _, l := range r.mirrors {
		out = append(out, Mirror{l.host, strings.Trim(path.Join(l.path, rest), "/"), l.digestOnly})
	}
	return out
}

// Blocked returns the file by which a repository must not be asked, or "".
func (s *Registries) Blocked(host, repository string) string {
	if r := s.nearest(host, repository, func(r rule) bool { return r.blocked != "" }); r != nil && r.blocked == "yes" {
		return r.file
	}
	return ""
}

// Settings reads how a registry is spoken to, each matter as the longest name
// that says something of it has it, and returns the file that gives up a check,
// if one does.
func (s *Registries) Settings(host, repository string) (set Settings, gives string, err error) {
	if s == nil {
		return set, "", nil
	}
	if r := s.nearest(host, repository, func(r rule) bool { return r.plainHTTP || r.insecureTLS }); r != nil {
		set.PlainHTTP, set.InsecureTLS, gives = r.plainHTTP, r.insecureTLS, r.file
	}
	others, err := s.others(host)
	if err != nil {
		return set, "", err
	}
	if r := s.nearest(host, repository, func(r rule) bool { return len(r.authorities) > 0 }); r != nil {
		if err := set.believe(r.authorities); err != nil {
			return set, "", fmt.Errorf("%s: Authority= of %s: %w", r.file, host, err)
		}
	}
	if err := set.believe(others.authorities); err != nil {
		return set, "", fmt.Errorf("authority of %s: %w", host, err)
	}
	from := "certificate for " + host
	if r := s.nearest(host, repository, func(r rule) bool { return r.certificate != "" }); r != nil {
		others.certificate, others.key, from = r.certificate, r.key, r.file+": Certificate= and Key= for "+host
	}
	if others.certificate == "" {
		return set, gives, nil
	}
	if set.Certificate, err = conf.ReadFile(others.certificate, maxCertificate); err == nil {
		set.Key, err = private(others.key)
	}
	if err != nil {
		return set, "", fmt.Errorf("%s: %w", from, err)
	}
	return set, gives, nil
}

// believe adds authorities of files.
func (set *Settings) believe(files []string) error {
	for _, name := range files {
		b, err := conf.ReadFile(name, maxAuthorities)
		if err != nil {
			return err
		}
		if block, _ := pem.Decode(b); block == nil {
			return fmt.Errorf("%s has no certificate in PEM", name)
		}
		set.Authorities = append(append(set.Authorities, b...), '\n')
	}
	if len(set.Authorities) > maxAuthorities {
		return fmt.Errorf("more than %d bytes; a whole bundle belongs into the host's certificate store", maxAuthorities)
	}
	return nil
}

// private reads a key that nobody else can.
func private(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: others can read the key (mode %04o); 'chmod 600 %s' mends that, and the key may have to be replaced", name, info.Mode().Perm(), name)
	}
	return conf.ReadFile(name, maxKey)
}

// others is what docker and podman find in a directory for a host: *.crt are
// authorities, and the first *.cert with its *.key is ours.
func (s *Registries) others(host string) (rule, error) {
	var r rule
	for _, dir := range s.certs {
		dir = filepath.Join(dir, host)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return r, fmt.Errorf("certificates for %s: %w", host, err)
		}
		for _, e := range entries {
			name := filepath.Join(dir, e.Name())
			switch filepath.Ext(name) {
			case ".crt":
				r.authorities = append(r.authorities, name)
			case ".cert":
				if r.certificate == "" {
					r.certificate, r.key = name, strings.TrimSuffix(name, ".cert")+".key"
				}
			}
		}
	}
	return r, nil
}
