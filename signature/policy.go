// SPDX-License-Identifier: Apache-2.0

// Package signature answers one question: is this digest trusted under this
// name, by whom, and by which rule? It reads the policy (trust.d), verifies
// signatures against it, and keeps the sealed receipts that let every launch
// ask again offline. It fetches nothing, and uses the standard library's
// cryptography only, because it is part of the launch path.
package signature

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/gantryrun/gantry/internal/jsonin"
)

// Policy is the merged set of rules in force. The zero Policy has no rule and
// so denies everything.
type Policy struct {
	rules []Rule
}

// LoadPolicy reads trust.d of every layer. It fails only when the
// configuration path itself makes no sense: whatever is wrong with a file
// becomes a closed rule, which denies the prefix the file was about. When that
// prefix cannot be told (an unreadable directory, a file without a usable
// Prefix=) the closed rule denies every name, since the file may have been the
// one that says reject.
func LoadPolicy(configPath []string) (*Policy, error) {
	keys := newKeyring(configPath)
	files, err := keys.reader.Load("trust.d")
	if err != nil {
		return nil, err
	}
	p := &Policy{}
	for _, f := range files {
		p.rules = append(p.rules, parseRule(f, keys)...)
	}
	return p, nil
}

// Rules returns all rules, closed ones too, ordered by prefix and file.
func (p *Policy) Rules() []Rule {
	rules := slices.Clone(p.rules)
	slices.SortStableFunc(rules, func(a, b Rule) int {
		return strings.Compare(a.Prefix, b.Prefix)
	})
	return rules
}

// Hash names everything the policy can answer: rules, keys and problems. A
// receipt remembers it; a different hash means the verdict may differ.
func (p *Policy) Hash() string {
	b, err := json.Marshal(p)
	if err != nil { // plain strings and numbers: cannot happen
		return ""
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// wirePolicy is a policy on its way to the process that verifies foreign
// bytes, which can read neither configuration nor keys.
type wirePolicy struct {
	Rules []Rule `json:"rules"`
}

// MarshalJSON writes rules, problems and public keys; the decoded policy
// judges exactly as this one.
func (p *Policy) MarshalJSON() ([]byte, error) {
	return json.Marshal(wirePolicy{p.rules})
}

// UnmarshalJSON reads what MarshalJSON wrote, and checks the keys again.
func (p *Policy) UnmarshalJSON(data []byte) error {
	var w wirePolicy
	if err := jsonin.Unmarshal(data, &w); err != nil {
		return fmt.Errorf("decode policy: %w", err)
	}
	p.rules = w.Rules
	return nil
}

// Decision is what the matching rules ask for.
type Decision string

// What rules can ask for.
const (
	DecideNone       Decision = "no-rule"    // nothing matches: deny
	DecideClosed     Decision = "closed"     // a matching rule cannot be believed: deny
	DecideReject     Decision = "reject"     // a matching rule says reject
	DecideInsecure   Decision = "insecure"   // a matching rule accepts without signature
	DecideSignatures Decision = "signatures" // one valid signature of one rule is needed
)

// Match is the set of rules that govern a name: those at the longest prefix,
// and no others.
type Match struct {
	Name     string
	Decision Decision
	Prefix   string
	Rules    []Rule
	Nearest  string // when nothing matches: a prefix that looks alike, or ""
}

// everything is the key of rules that govern every name.
const everything = "*"

// Match finds the rules for a policy name (image.Reference.Name).
func (p *Policy) Match(name string) Match {
	m := Match{Name: name, Decision: DecideNone}
	for _, r := range p.rules {
		if r.Prefix == unknownPrefix {
			m.Rules = append(m.Rules, r)
		}
	}
	if len(m.Rules) > 0 {
		m.Decision, m.Prefix = DecideClosed, unknownPrefix
		return m
	}
	longest := -1
	for _, r := range p.rules {
		n := matchLength(name, r.Prefix)
		switch {
		case n < 0:
			if m.Nearest == "" && looksAlike(name, r.Prefix) {
				m.Nearest = r.Prefix
			}
		case n > longest:
			longest, m.Prefix, m.Rules = n, r.Prefix, []Rule{r}
		case n == longest:
			m.Rules = append(m.Rules, r)
		}
	}
	m.Decision = decide(m.Rules)
	return m
}

// matchLength returns how much of name the prefix covers, or -1. Prefixes
// match whole path components: example.com/et governs example.com/et and
// example.com/et/x, never example.com/etcd.
func matchLength(name, prefix string) int {
	if name == "" {
		return -1
	}
	if prefix == everything {
		return 0
	}
	prefix = strings.TrimSuffix(prefix, "/") // only oci:/ has one
	if name == prefix || (strings.HasPrefix(name, prefix) && name[len(prefix)] == '/') {
		return len(prefix)
	}
	return -1
}

// looksAlike finds the prefix a person probably thought of: the same text cut
// inside a component, or the same host with another port.
func looksAlike(name, prefix string) bool {
	if strings.HasPrefix(name, prefix) {
		return true
	}
	host := func(s string) string {
		h, _, _ := strings.Cut(s, "/")
		h, _, _ = strings.Cut(h, ":")
		return h
	}
	return host(name) == host(prefix) && strings.Contains(prefix, "/")
}

// decide weighs the rules of one prefix: what cannot be believed and reject
// beat all, then the rules are alternatives.
func decide(rules []Rule) Decision {
	d := DecideNone
	for _, r := range rules {
		switch {
		case r.Problem != "":
			return DecideClosed
		case r.Accept == AcceptReject:
			d = DecideReject
		case d == DecideReject:
		case r.Accept == AcceptInsecure:
			d = DecideInsecure
		case d == DecideNone:
			d = DecideSignatures
		}
	}
	return d
}

// String names a rule in one line.
func (r Rule) String() string {
	return fmt.Sprintf("%s:%d (Prefix=%s, Accept=%s)", r.File, r.Line, r.Prefix, r.Accept)
}
