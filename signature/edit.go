// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantryrun/gantry/internal/atomicfile"
	"github.com/gantryrun/gantry/internal/conf"
	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/internal/hint"
)

// ErrNoRule means that none of the rules is the one to be removed.
var ErrNoRule = errors.New("no rule")

// maxSameName bounds the rules of one prefix and first key.
const maxSameName = 64

// NewRule is a rule to be written.
type NewRule struct {
	Prefix       string
	Accept       string   // "" means sigstore-key
	Keys         [][]byte // PEM public keys
	Transparency string   // "" writes no line
}

// AddRule writes a rule and its keys into the last layer, that of the
// administrator, and returns the rule's file and the names of the keys. It adds
// to what is in force and replaces nothing, in no layer. Nothing is written
// unless all of it makes sense, and what was written is read back and judged
// as a launch would: a directory that others may write is told now, not then.
func AddRule(configPath []string, r NewRule) (file string, keyIDs []string, err error) {
	if r.Prefix, err = CanonicalPrefix(r.Prefix); err != nil {
		return "", nil, err
	}
	if r.Accept == "" {
		r.Accept = string(AcceptKey)
	}
	keys, err := r.keys()
	if err != nil {
		return "", nil, err
	}
	root, err := editing(configPath)
	if err != nil {
		return "", nil, fmt.Errorf("add rule: %w", err)
	}
	defer root.Close()
	if err := refuseDuplicate(configPath, r, keys); err != nil {
		return "", nil, err
	}
	for i, k := range keys {
		if err := writeKey(root.Root, k, r.Keys[i]); err != nil {
			return "", nil, err
		}
		keyIDs = append(keyIDs, k.ID)
	}
	name, err := freeName(configPath, r, keys)
	if err != nil {
		return "", nil, err
	}
	if err := atomicfile.Write(root.Root, name, r.text(keys), 0o644); err != nil {
		return "", nil, fmt.Errorf("add rule: %w", err)
	}
	file = filepath.Join(root.Name(), name)
	if err := readBack(root.Name(), file); err != nil {
		return "", nil, errors.Join(fmt.Errorf("add rule: %w", err), root.Remove(name))
	}
	return file, keyIDs, nil
}

// edited is the last layer of a configuration path, locked.
type edited struct {
	*os.Root
	lock *os.File
}

func (e *edited) Close() error { return errors.Join(e.Root.Close(), e.lock.Close()) }

// editing opens the layer that is written to, and waits for whoever else
// changes rules there: a rule is read, changed and written again, and a key that
// was taken out of it meanwhile must not come back.
func editing(configPath []string) (*edited, error) {
	if len(configPath) == 0 {
		return nil, errors.New("the configuration path is empty")
	}
	dir := configPath[len(configPath)-1]
	for _, d := range []string{"trust/keys", "trust.d"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	// Not the directory itself: whoever may read that could hold its lock, and so
	// keep a key from being revoked.
	lock, err := root.OpenFile("trust.d/.lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		var at *fs.PathError // of a path below the root, which says too little
		if errors.As(err, &at) {
			err = at.Err
		}
		return nil, errors.Join(fmt.Errorf("write %s: %w", filepath.Join(dir, "trust.d"), err), root.Close())
	}
	e := &edited{root, lock}
	if err := flock.Exclusive(lock); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (r NewRule) keys() ([]Key, error) {
	var keys []Key
	for _, pem := range r.Keys {
		k, err := ParseKey(pem)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	// The same checks as for a file, before there is one.
	sections, err := conf.Parse(r.text(keys))
	rules := parseRule(conf.File{Path: "the rule", Sections: sections, Problem: err}, &keyring{reader: conf.NewReader(nil), seen: given(keys)})
	if rules[0].Problem != "" {
		return nil, errors.New(rules[0].Problem)
	}
	return keys, nil
}

// given is a keyring that knows keys not written yet.
func given(keys []Key) map[string]keyResult {
	seen := map[string]keyResult{}
	for _, k := range keys {
		seen[keyFileName(k)] = keyResult{key: k}
	}
	return seen
}

func (r NewRule) text(keys []Key) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by gantry trust add.\n[Trust]\nPrefix=%s\nAccept=%s\n", r.Prefix, r.Accept)
	for _, k := range keys {
		fmt.Fprintf(&b, "# %s %s\nKey=%s\n", k.Kind, k.ID, keyFileName(k))
	}
	if r.Transparency != "" {
		fmt.Fprintf(&b, "Transparency=%s\n", r.Transparency)
	}
	return []byte(b.String())
}

// keyFileName names a key by what it is, so that equal keys share a file.
func keyFileName(k Key) string { return strings.TrimPrefix(k.ID, "sha256:")[:16] + ".pub" }

func writeKey(root *os.Root, k Key, pem []byte) error {
	name := path.Join("trust/keys", keyFileName(k))
	have, err := root.ReadFile(name)
	if err == nil {
		if old, err := ParseKey(have); err == nil && old.ID == k.ID {
			return nil
		}
		return fmt.Errorf("add rule: %s holds something else than the key %s", name, k.ID)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("add rule: %w", err)
	}
	if err := atomicfile.Write(root, name, pem, 0o644); err != nil {
		return fmt.Errorf("add rule: %w", err)
	}
	return nil
}

// refuseDuplicate tells a person that what they ask for is there already.
func refuseDuplicate(configPath []string, r NewRule, keys []Key) error {
	p, err := LoadPolicy(configPath)
	if err != nil {
		return err
	}
	for _, have := range p.rules {
		if have.Prefix != r.Prefix || have.Problem != "" || string(have.Accept) != r.Accept {
			continue
		}
		missing := slices.ContainsFunc(keys, func(k Key) bool {
			return !slices.ContainsFunc(have.Keys, func(h Key) bool { return h.ID == k.ID })
		})
		if !missing {
			return fmt.Errorf("%s:%d says so already: %w", have.File, have.Line, fs.ErrExist)
		}
	}
	return nil
}

// freeName picks 50-<prefix>.conf, and when that is taken one that also names
// the key or the kind of rule, with a number if need be. A name that a lower
// layer has is taken: a file here would replace that one, which may say reject.
func freeName(configPath []string, r NewRule, keys []Key) (string, error) {
	slug := strings.NewReplacer("/", "-", ":", "_", "*", "everything", "[", "", "]", "").Replace(r.Prefix)
	if len(slug) > 128 {
		slug = slug[:128]
	}
	more := r.Accept
	if len(keys) > 0 {
		more = strings.TrimSuffix(keyFileName(keys[0]), ".pub")
	}
	stem := "trust.d/50-" + slug
	name := stem + ".conf"
	for n := 1; n < maxSameName; n++ {
		if !present(configPath, name) {
			return name, nil
		}
		if name = stem + "-" + more + ".conf"; n > 1 {
			name = fmt.Sprintf("%s-%s-%d.conf", stem, more, n)
		}
	}
	return "", fmt.Errorf("add rule: there are %d files %s-%s-….conf already; remove what is not wanted", maxSameName, stem, more)
}

// present tells whether any of the layers has a file of that name.
func present(layers []string, name string) bool {
	return slices.ContainsFunc(layers, func(layer string) bool {
		_, err := os.Lstat(filepath.Join(layer, name))
		return !errors.Is(err, fs.ErrNotExist)
	})
}

func readBack(dir, file string) error {
	p, err := LoadPolicy([]string{dir})
	if err != nil {
		return err
	}
	for _, r := range p.rules {
		if r.Problem != "" && (r.File == file || r.Prefix == unknownPrefix) {
			return fmt.Errorf("%s: %s", r.File, r.Problem)
		}
	}
	return nil
}

// RemoveRule takes rules of exactly this prefix out of force: all of them, or
// with key (a key's name, the beginning of one, or its file) only what trusts
// that key. A file of the last layer is removed or rewritten; one of a lower
// layer is masked by an empty file of the same name, or replaced by a copy
// without the key. It returns the files it wrote or removed; ErrNoRule when none is
// of that prefix and key.
func RemoveRule(configPath []string, prefix, key string) (removed []string, err error) {
	if prefix, err = CanonicalPrefix(prefix); err != nil {
		return nil, err
	}
	root, err := editing(configPath)
	if err != nil {
		return nil, fmt.Errorf("remove rule: %w", err)
	}
	defer root.Close()
	p, err := LoadPolicy(configPath)
	if err != nil {
		return nil, err
	}
	for _, r := range p.rules {
		if r.Prefix != prefix || key != "" && !r.names(key) {
			continue
		}
		file, err := r.drop(root.Root, configPath, key)
		if err != nil {
			return removed, fmt.Errorf("remove rule %s: %w", r.File, err)
		}
		removed = append(removed, file)
	}
	if len(removed) == 0 {
		return nil, hint.With(fmt.Errorf("%w for %s%s", ErrNoRule, prefix, forKey(key)), "'gantry trust ls' shows the rules in force")
	}
	return removed, nil
}

func forKey(key string) string {
	if key == "" {
		return ""
	}
	return " names the key " + clip(key)
}

func (r Rule) names(key string) bool {
	return slices.ContainsFunc(r.Keys, func(k Key) bool { return k.is(key) })
}

// is tells whether a person who types s can mean this key.
func (k Key) is(s string) bool {
	hex := strings.TrimPrefix(s, "sha256:")
	return s == filepath.Base(k.File) || s == k.File ||
		len(hex) >= 8 && strings.HasPrefix(strings.TrimPrefix(k.ID, "sha256:"), hex)
}

func (r Rule) drop(root *os.Root, configPath []string, key string) (string, error) {
	name := path.Join("trust.d", filepath.Base(r.File))
	var rest []byte
	if key != "" && slices.ContainsFunc(r.Keys, func(k Key) bool { return !k.is(key) }) {
		var err error
		if rest, err = r.without(configPath, key); err != nil {
			return "", err
		}
	}
	file := filepath.Join(root.Name(), name)
	// What a lower layer has of that name would come into force.
	if rest == nil && !present(configPath[:len(configPath)-1], name) {
		return file, root.Remove(name)
	}
	return file, atomicfile.Write(root, name, rest, 0o644)
}

// without is the rule's text less the lines that name the key.
func (r Rule) without(configPath []string, key string) ([]byte, error) {
	data, err := conf.ReadFile(r.File, conf.MaxFile)
	if err != nil {
		return nil, err
	}
	sections, err := conf.Parse(data)
	if err != nil {
		return nil, err
	}
	keys := newKeyring(configPath)
	lines := strings.SplitAfter(string(data), "\n")
	for _, s := range sections {
		for _, kv := range s.Keys {
			if k, err := keys.load(kv.Value); kv.Key == "Key" && err == nil && k.is(key) {
				lines[kv.Line-1] = ""
			}
		}
	}
	return []byte(strings.Join(lines, "")), nil
}
