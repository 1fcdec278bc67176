// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantryrun/gantry/internal/conf"
)

// Accept says which kind of proof a rule takes.
type Accept string

// The kinds of proof this version knows.
const (
	AcceptKey      Accept = "sigstore-key"
	AcceptReject   Accept = "reject"
	AcceptInsecure Accept = "insecure"
)

// Transparency says what a rule wants to know of a transparency log entry.
//
// This version has no log verifier. Ignore, the default, takes the key's
// signature alone, whether it was logged or not: cosign logs by default, and
// the key's owner is whom the rule trusts. IfPresent counts a signature that
// carries no entry, and does not count one that carries an entry nobody here
// can verify: what is there must verify. Require closes the rule.
type Transparency string

// The values of Transparency=.
const (
	TransparencyIgnore    Transparency = "ignore"
	TransparencyIfPresent Transparency = "if-present"
	TransparencyRequire   Transparency = "require"
)

// unknownPrefix is the prefix of a closed rule whose own prefix nobody can
// tell; it denies every name.
const unknownPrefix = "?"

const maxKeysPerRule = 64

// Rule is one file of trust.d.
type Rule struct {
	File         string       `json:"file"`
	Line         int          `json:"line"`   // of Prefix=
	Prefix       string       `json:"prefix"` // canonical, "*" for everything, "?" when it cannot be told
	Accept       Accept       `json:"accept,omitempty"`
	Keys         []Key        `json:"keys,omitempty"`
	Transparency Transparency `json:"transparency,omitempty"`
	SignedAs     string       `json:"signedAs,omitempty"` // repository that legacy payloads name in place of Prefix
	Problem      string       `json:"problem,omitempty"`  // why the rule is closed; "" when it holds
}

// later are keys and formats that the file format has and this version does
// not. They are refused by name so that nobody thinks them in force.
func later(word string) bool {
	return slices.Contains([]string{
		"sigstore-keyless", "openpgp", "notation",
		"Root", "Issuer", "Subject", "Require", "MaxAge", "NotBefore", "UserTrust",
	}, word)
}

// parseRule turns a file into its rule, or into closed rules for every prefix
// the file mentions.
func parseRule(f conf.File, keys *keyring) []Rule {
	p := ruleParser{rule: Rule{File: f.Path, Transparency: TransparencyIgnore}, keys: keys}
	p.read(f)
	if f.Problem == nil && p.err == nil {
		p.finish()
	}
	problem := p.err
	if f.Problem != nil {
		problem = f.Problem
	}
	if problem == nil {
		return []Rule{p.rule}
	}
	return p.closed(problem)
}

type ruleParser struct {
	rule     Rule
	keys     *keyring
	prefixes []Rule // every prefix mentioned, with its line
	lost     bool   // a prefix was mentioned that cannot be understood
	names    []conf.KeyValue
	seen     map[string]int
	err      error
}

func (p *ruleParser) fail(line int, format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("line %d: %w", line, fmt.Errorf(format, args...))
	}
}

func (p *ruleParser) read(f conf.File) {
	p.seen = map[string]int{}
	blocks := 0
	for _, s := range f.Sections {
		if s.Name != "Trust" {
			p.fail(s.Line, "section [%s] is not known; a rule stands in [Trust]", clip(s.Name))
		} else if blocks++; blocks > 1 {
			p.fail(s.Line, "a second [Trust]; write one rule per file")
		}
		for _, kv := range s.Keys {
			p.key(kv)
		}
	}
	if len(p.prefixes) == 0 && !p.lost {
		p.lost = true
		if p.err == nil {
			p.err = errors.New("no Prefix= line, so nobody can tell which images it is about")
		}
	}
}

func (p *ruleParser) key(kv conf.KeyValue) {
	if first, twice := p.seen[kv.Key]; twice && kv.Key != "Key" {
		p.fail(kv.Line, "%s= again (first on line %d); write one rule per file", clip(kv.Key), first)
	}
	p.seen[kv.Key] = kv.Line
	switch kv.Key {
	case "Prefix":
		p.prefix(kv)
	case "Accept":
		p.accept(kv)
	case "Key":
		p.names = append(p.names, kv)
	case "Transparency":
		p.transparency(kv)
	case "SignedAs":
		repo, err := CanonicalPrefix(kv.Value)
		if err != nil || repo == everything {
			p.fail(kv.Line, "SignedAs=%s is not a repository name", clip(kv.Value))
		}
		p.rule.SignedAs = repo
	default:
		p.unknown(kv)
	}
}

func (p *ruleParser) unknown(kv conf.KeyValue) {
	if later(kv.Key) {
		p.fail(kv.Line, "%s= is not available in this version of gantry", kv.Key)
		return
	}
	for _, known := range []string{"Prefix", "Accept", "Key", "Transparency", "SignedAs"} {
		if len(kv.Key) >= 3 && strings.EqualFold(kv.Key[:3], known[:3]) {
			p.fail(kv.Line, "%s= is not known; did you mean %s=?", clip(kv.Key), known)
			return
		}
	}
	p.fail(kv.Line, "%s= is not known", clip(kv.Key))
}

func (p *ruleParser) prefix(kv conf.KeyValue) {
	prefix, err := CanonicalPrefix(kv.Value)
	if err != nil {
		p.lost = true
		p.fail(kv.Line, "%w", err)
		return
	}
	p.rule.Prefix, p.rule.Line = prefix, kv.Line
	p.prefixes = append(p.prefixes, Rule{Prefix: prefix, Line: kv.Line})
}

func (p *ruleParser) accept(kv conf.KeyValue) {
	switch a := Accept(kv.Value); {
	case a == AcceptKey || a == AcceptReject || a == AcceptInsecure:
		p.rule.Accept = a
	case later(kv.Value):
		p.fail(kv.Line, "Accept=%s is not available in this version of gantry, which verifies sigstore-key", kv.Value)
	default:
		p.fail(kv.Line, "Accept=%s is not known; write sigstore-key, reject or insecure", clip(kv.Value))
	}
}

func (p *ruleParser) transparency(kv conf.KeyValue) {
	switch t := Transparency(kv.Value); t {
	case TransparencyIfPresent, TransparencyIgnore:
		p.rule.Transparency = t
	case TransparencyRequire:
		p.fail(kv.Line, "Transparency=require is not available in this version of gantry, which has no transparency log verifier; write if-present or ignore")
	default:
		p.fail(kv.Line, "Transparency=%s is not known; write if-present or ignore", clip(kv.Value))
	}
}

// finish checks what only the whole file shows, and loads the keys.
func (p *ruleParser) finish() {
	r := &p.rule
	switch {
	case r.Accept == "":
		p.err = errors.New("no Accept= line; write Accept=sigstore-key, reject or insecure")
	case r.Accept == AcceptInsecure && r.Prefix == everything:
		p.fail(p.seen["Accept"], "Accept=insecure is refused for Prefix=*; name the images that may go unsigned")
	case r.Accept != AcceptKey && len(p.names) > 0:
		p.fail(p.names[0].Line, "Key= means nothing beside Accept=%s", r.Accept)
	case r.Accept != AcceptKey && p.seen["Transparency"] > 0:
		p.fail(p.seen["Transparency"], "Transparency= means nothing beside Accept=%s", r.Accept)
	case r.Accept != AcceptKey && p.seen["SignedAs"] > 0:
		p.fail(p.seen["SignedAs"], "SignedAs= means nothing beside Accept=%s", r.Accept)
	case r.SignedAs != "" && r.Prefix == everything:
		p.fail(p.seen["SignedAs"], "SignedAs= needs a Prefix= to stand for, not *")
	case r.Accept == AcceptKey && len(p.names) == 0:
		p.err = errors.New("no Key= line, so Accept=sigstore-key accepts nobody")
	case len(p.names) > maxKeysPerRule:
		p.fail(p.names[maxKeysPerRule].Line, "more than %d Key= lines", maxKeysPerRule)
	default:
		p.loadKeys()
	}
}

func (p *ruleParser) loadKeys() {
	for _, kv := range p.names {
		k, err := p.keys.load(kv.Value)
		if err != nil {
			p.fail(kv.Line, "Key=%s: %w", clip(kv.Value), err)
			return
		}
		if !slices.ContainsFunc(p.rule.Keys, func(have Key) bool { return have.ID == k.ID }) {
			p.rule.Keys = append(p.rule.Keys, k)
		}
	}
}

func (p *ruleParser) closed(problem error) []Rule {
	at := p.prefixes
	if p.lost {
		at = append(at, Rule{Prefix: unknownPrefix})
	}
	for i := range at {
		at[i].File = p.rule.File
		at[i].Problem = problem.Error()
	}
	return at
}

// CanonicalPrefix checks a Prefix= value and returns the form names are
// compared with: host in lower case with its port, no trailing slash.
func CanonicalPrefix(s string) (string, error) {
	if s == everything {
		return s, nil
	}
	if scheme, p, ok := strings.Cut(s, ":"); ok && isLayout(strings.ToLower(scheme)) {
		if !isLayout(scheme) || !strings.HasPrefix(p, "/") || (path.Clean(p) != strings.TrimSuffix(p, "/") && p != "/") {
			return "", fmt.Errorf("the prefix %s needs a clean absolute path", clip(s))
		}
		return scheme + ":" + path.Clean(p), nil
	}
	if path.IsAbs(s) {
		return "", fmt.Errorf("the prefix %s is a path; write oci:%s for the layouts there", clip(s), clip(path.Clean(s)))
	}
	s = strings.TrimSuffix(s, "/")
	host, rest, nested := strings.Cut(s, "/")
	host = strings.ToLower(host)
	if host == "" || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "", fmt.Errorf("the prefix %s does not begin with a registry; write docker.io/library/%s or docker.io/%s", clip(s), clip(s), clip(s))
	}
	if bad := strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-:[]"); bad != "" {
		return "", fmt.Errorf("the prefix %s: %q is not a host name", clip(s), clip(host))
	}
	if !nested {
		return host, nil
	}
	for c := range strings.SplitSeq(rest, "/") {
		if err := checkComponent(c); err != nil {
			return "", fmt.Errorf("the prefix %s: %w", clip(s), err)
		}
	}
	return host + "/" + rest, nil
}

// isLayout names the transports whose names are paths. In capitals they are
// refused, lest a lower-cased host read as one of them.
func isLayout(scheme string) bool {
	return scheme == "oci" || scheme == "oci-archive" || scheme == "docker-archive"
}

func checkComponent(c string) error {
	switch {
	case strings.ContainsAny(c, "*?"):
		return errors.New("* stands alone for everything; a prefix already covers whatever lies below it")
	case strings.ContainsAny(c, ":@"):
		return errors.New("a prefix has no tag and no digest")
	case c == "" || strings.Trim(c, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" || strings.Trim(c, ".") == "":
		return fmt.Errorf("%q is not a component of a repository name", clip(c))
	}
	return nil
}

// keyring loads key files once, whatever number of rules name them.
type keyring struct {
	reader *conf.Reader
	seen   map[string]keyResult
}

func newKeyring(configPath []string) *keyring {
	return &keyring{reader: conf.NewReader(configPath), seen: map[string]keyResult{}}
}

type keyResult struct {
	key Key
	err error
}

func (k *keyring) load(name string) (Key, error) {
	if r, ok := k.seen[name]; ok {
		return r.key, r.err
	}
	key, err := k.read(name)
	k.seen[name] = keyResult{key, err}
	return key, err
}

func (k *keyring) read(name string) (Key, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return Key{}, errors.New("name a file in trust/keys, without directories")
	}
	file, data, err := k.reader.Read(filepath.Join("trust/keys", name), maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) && file == "" {
		return Key{}, fmt.Errorf("no such key in trust/keys of %s", strings.Join(k.reader.Path(), ", "))
	}
	if err != nil {
		return Key{}, err
	}
	key, err := ParseKey(data)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", file, err)
	}
	key.File = file
	return key, nil
}
