// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/image"
)

// Bounds of what is looked at for one image, by whoever discovers signatures
// and by Judge itself. Past them the answer is no, never "the first few".
const (
	MaxSignatures  = 64       // manifests and signatures per image
	MaxSignature   = 4 << 20  // bytes of one manifest or payload
	MaxTotal       = 16 << 20 // bytes of all of them
	maxRawSig      = 4 << 10  // bytes of one raw signature
	maxHint        = 1 << 10
	maxAnnotations = 64
)

// Formats of signatures that Judge verifies.
const (
	FormatBundle = "sigstore-bundle" // sigstore bundle v0.3 as an OCI referrer
	FormatLegacy = "cosign-legacy"   // cosign simple signing, the .sig form
)

// Subject is what a verdict is about.
type Subject struct {
	Reference string        `json:"reference"`
	Name      string        `json:"name"`            // policy name: no tag, no digest
	Index     digest.Digest `json:"index,omitempty"` // "" when the reference names the manifest itself
	Manifest  digest.Digest `json:"manifest"`
}

// covers tells whether a signature of d is one of the subject.
func (s Subject) covers(d digest.Digest) bool {
	return d != "" && (d == s.Manifest || d == s.Index)
}

// Signature is one signature as it was found: foreign bytes.
type Signature struct {
	Format      string            `json:"format"`
	Digest      digest.Digest     `json:"digest"`             // what it was attached to
	Manifest    []byte            `json:"manifest,omitempty"` // the manifest that carried it
	Payload     []byte            `json:"payload,omitempty"`  // bundle, or simple signing payload
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Signer is whoever made a signature count.
type Signer struct {
	Format  string `json:"format"`
	KeyID   string `json:"keyID"`
	KeyFile string `json:"keyFile"`
}

// Finding says of one signature whether it counts, and why.
type Finding struct {
	Format string        `json:"format"`
	Digest digest.Digest `json:"digest"` // what it was attached to
	What   string        `json:"what"`
	Why    string        `json:"why"`
	Counts bool          `json:"counts"`
	Mend   string        `json:"mend,omitempty"` // what would make it count, where that is one line of the rule
}

// RuleRef names a rule for people.
type RuleRef struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Prefix string `json:"prefix,omitempty"`
}

// Reason says in one word how a verdict came about.
type Reason string

// The outcomes, the accepting ones first.
const (
	ReasonSigned    Reason = "signed"
	ReasonInsecure  Reason = "insecure-rule"
	ReasonNoRule    Reason = "no-rule"
	ReasonClosed    Reason = "closed-rule"
	ReasonReject    Reason = "reject-rule"
	ReasonUnsigned  Reason = "unsigned"        // nothing was found
	ReasonUntrusted Reason = "untrusted"       // something was found, and none of it counts
	ReasonTooMany   Reason = "too-many"        // more was found than is looked at
	ReasonMalformed Reason = "unknown-subject" // the question itself makes no sense
)

// Verdict is the answer, with everything needed to explain it.
type Verdict struct {
	Accepted bool      `json:"accepted"`
	Reason   Reason    `json:"reason"`
	Subject  Subject   `json:"subject"`
	Rule     RuleRef   `json:"rule"`
	By       []Signer  `json:"by,omitempty"`
	Findings []Finding `json:"findings,omitempty"`
	Keys     []Signer  `json:"keys,omitempty"` // the keys the rules name
	Insecure bool      `json:"insecure,omitempty"`
	Detail   string    `json:"detail,omitempty"` // a closed rule's problem, a look-alike prefix
	Hint     string    `json:"hint,omitempty"`   // the command that mends a refusal
}

// Judge weighs the signatures found for a subject under the policy. It is
// pure: the same policy, subject and signatures give the same verdict. Every
// signature is examined, so that the findings are complete.
func (p *Policy) Judge(s Subject, sigs []Signature) Verdict {
	m := p.Match(s.Name)
	v := Verdict{Subject: s}
	v.explain(m)
	if err := s.check(); err != nil {
		v.Reason, v.Detail = ReasonMalformed, err.Error()
		return v.withHint()
	}
	if why := tooMuch(sigs); why != "" {
		v.Reason, v.Detail = ReasonTooMany, why
		v.settle(m)
		return v.withHint()
	}
	for _, sig := range sigs {
		f, by := m.examine(s, sig)
		v.Findings = append(v.Findings, f)
		v.count(by)
	}
	v.settle(m)
	return v.withHint()
}

func (s Subject) check() error {
	for _, d := range []digest.Digest{s.Index, s.Manifest} {
		if d == "" && d == s.Index {
			continue
		}
		if err := image.ValidDigest(d); err != nil {
			return fmt.Errorf("digest %q of the image: %w", clip(string(d)), err)
		}
	}
	if s.Manifest == "" {
		return errors.New("no digest to judge")
	}
	return nil
}

// tooMuch says which bound was passed, or "".
func tooMuch(sigs []Signature) string {
	if len(sigs) > MaxSignatures {
		return fmt.Sprintf("%d signatures were found; at most %d are looked at", len(sigs), MaxSignatures)
	}
	total := 0
	for _, s := range sigs {
		if len(s.Payload) > MaxSignature || len(s.Manifest) > MaxSignature {
			return fmt.Sprintf("a signature has more than %d bytes", MaxSignature)
		}
		if len(s.Annotations) > maxAnnotations {
			return fmt.Sprintf("a signature has more than %d annotations", maxAnnotations)
		}
		total += len(s.Payload) + len(s.Manifest)
		for k, a := range s.Annotations {
			total += len(k) + len(a)
		}
	}
	if total > MaxTotal {
		return fmt.Sprintf("the signatures have %d bytes together; at most %d are looked at", total, MaxTotal)
	}
	return ""
}

// explain records which rules apply.
func (v *Verdict) explain(m Match) {
	v.Rule.Prefix = m.Prefix
	for _, r := range m.Rules {
		decisive := m.Decision == DecideSignatures ||
			m.Decision == DecideClosed && r.Problem != "" ||
			m.Decision == DecideReject && r.Accept == AcceptReject ||
			m.Decision == DecideInsecure && r.Accept == AcceptInsecure
		if decisive && v.Rule.File == "" {
			v.Rule.File, v.Rule.Line = r.File, r.Line
			v.Detail = r.Problem
		}
		for _, k := range r.Keys {
			v.Keys = append(v.Keys, Signer{Format: string(r.Accept), KeyID: k.ID, KeyFile: k.File})
		}
	}
	if m.Decision == DecideNone && m.Nearest != "" {
		v.Detail = "the nearest rule is for " + m.Nearest + ", which does not cover it"
	}
}

// count adds a signer once: thresholds count distinct keys.
func (v *Verdict) count(by *Signer) {
	if by == nil {
		return
	}
	for _, have := range v.By {
		if have.KeyID == by.KeyID {
			return
		}
	}
	v.By = append(v.By, *by)
}

// MaxKept bounds what a receipt keeps of signatures that did not count. They
// are kept because tomorrow's policy may trust whoever made them, and bounded
// because every launch reads them: whoever may attach to an image must not be
// able to slow its launches.
const MaxKept = 256 << 10

// Keep chooses which of the judged signatures belong into the receipt: all
// that count, and of the others, in order, what fits into MaxKept.
func (v Verdict) Keep(sigs []Signature) []Signature {
	if len(v.Findings) != len(sigs) {
		return nil
	}
	var out []Signature
	left := MaxKept
	for i, s := range sigs {
		size := len(s.Payload) + len(s.Manifest)
		for k, a := range s.Annotations {
			size += len(k) + len(a)
		}
		if !v.Findings[i].Counts {
			if size > left {
				continue
			}
			left -= size
		}
		out = append(out, s)
	}
	return out
}

// settle draws the conclusion.
func (v *Verdict) settle(m Match) {
	tooMany := v.Reason == ReasonTooMany
	switch m.Decision {
	case DecideNone:
		v.Reason = ReasonNoRule
	case DecideClosed:
		v.Reason = ReasonClosed
	case DecideReject:
		v.Reason = ReasonReject
	case DecideSignatures, DecideInsecure:
		switch {
		case tooMany && m.Decision == DecideSignatures:
			v.Reason = ReasonTooMany
		case len(v.By) > 0:
			v.Accepted, v.Reason = true, ReasonSigned
		case m.Decision == DecideInsecure:
			v.Accepted, v.Reason, v.Insecure = true, ReasonInsecure, true
		case len(v.Findings) == 0:
			v.Reason = ReasonUnsigned
		default:
			v.Reason = ReasonUntrusted
		}
	}
	if v.Reason == ReasonSigned {
		v.nameRuleOf(m)
		return
	}
	v.By = nil
}

// nameRuleOf points the verdict at the rule whose key signed: with several
// rules at one prefix it is not always the first.
func (v *Verdict) nameRuleOf(m Match) {
	for _, r := range m.Rules {
		for _, k := range r.Keys {
			if k.ID == v.By[0].KeyID {
				v.Rule = RuleRef{File: r.File, Line: r.Line, Prefix: r.Prefix}
				return
			}
		}
	}
}

// claim is what a signature says about itself, read before any key is tried.
type claim struct {
	what   string // for people
	msg    []byte // the bytes that were signed
	sig    []byte
	hint   string // the key's name inside the bundle; never proof
	logged bool   // carries a transparency log entry
	check  func(Subject, Rule) error
}

// mendable is a reason that one line in the rule would remove.
type mendable struct{ why, line string }

func (m *mendable) Error() string { return m.why }

// examine judges one signature under the matching rules.
func (m Match) examine(s Subject, sig Signature) (Finding, *Signer) {
	f := Finding{Format: clip(sig.Format), Digest: sig.Digest, What: "signature"}
	c, err := read(sig)
	if c.what != "" {
		f.What = c.what
	}
	if err != nil {
		f.Why = err.Error()
		return f, nil
	}
	if !s.covers(sig.Digest) {
		f.Why = fmt.Sprintf("attached to %s, which is not this image", clip(sig.Digest.String()))
		return f, nil
	}
	key, rule := m.verify(c)
	if key == nil {
		f.Why = m.nobody(c)
		return f, nil
	}
	if err := c.admit(s, *rule); err != nil {
		f.Why = fmt.Sprintf("signed with %s, but %s", key.name(), err)
		var m *mendable
		if errors.As(err, &m) {
			f.Mend = fmt.Sprintf("write %s in %s", m.line, rule.File)
		}
		return f, nil
	}
	f.Why, f.Counts = "signed with "+key.name(), true
	return f, &Signer{Format: sig.Format, KeyID: key.ID, KeyFile: key.File}
}

// admit checks what the rule whose key signed asks beyond the signature.
func (c claim) admit(s Subject, r Rule) error {
	if err := c.check(s, r); err != nil {
		return err
	}
	if c.logged && r.Transparency != TransparencyIgnore {
		return &mendable{"it carries a transparency log entry, which this version of gantry cannot verify", "Transparency=ignore"}
	}
	return nil
}

// verify tries the key the signature hints at first, then the others: the
// hint is foreign text and saves time, no more.
func (m Match) verify(c claim) (*Key, *Rule) {
	for _, hinted := range []bool{true, false} {
		for i := range m.Rules {
			r := &m.Rules[i]
			for j := range r.Keys {
				k := &r.Keys[j]
				if (c.hint == k.Hint()) == hinted && k.verify(c.msg, c.sig) {
					return k, r
				}
			}
		}
	}
	return nil, nil
}

func (m Match) nobody(c claim) string {
	who := "signed with a key that is in no matching rule"
	if id := hintID(c.hint); id != "" {
		who += " (it calls itself " + id + ")"
		for _, r := range m.Rules {
			for _, k := range r.Keys {
				if k.ID == id {
					return "does not verify with " + k.name() + ", whose name it bears"
				}
			}
		}
	}
	return who
}

func (k Key) name() string {
	if k.File == "" {
		return k.ID
	}
	return k.File + " (" + k.ID + ")"
}

// read dispatches on the format.
func read(sig Signature) (claim, error) {
	if err := carried(sig); err != nil {
		return claim{}, err
	}
	switch sig.Format {
	case FormatBundle:
		return readBundle(sig.Payload)
	case FormatLegacy:
		return readLegacy(sig)
	}
	return claim{}, errors.New("not a kind of signature this version of gantry verifies")
}

// carried checks that the manifest kept beside a payload really names it.
func carried(sig Signature) error {
	if len(sig.Manifest) == 0 || len(sig.Payload) == 0 {
		return nil
	}
	layers, err := manifestLayers(sig.Manifest)
	if err != nil {
		return fmt.Errorf("its manifest: %w", err)
	}
	sum := digest.NewDigestFromBytes(digest.SHA256, sha256sum(sig.Payload))
	for _, l := range layers {
		if l.Digest == sum {
			return nil
		}
	}
	return fmt.Errorf("its payload has digest %s, which its manifest does not name", sum)
}

func sha256sum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}
