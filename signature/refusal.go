// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUntrusted is what every refusal is.
var ErrUntrusted = errors.New("image is not trusted")

// maxLine bounds one line of an explanation. Verdicts also come from the
// confined verifier, so their texts are foreign again.
const maxLine = 1024

// maxFindingsShown keeps a refusal readable when an image carries dozens of
// signatures; the verdict has them all.
const maxFindingsShown = 8

// Refusal is a verdict that did not accept.
type Refusal struct{ Verdict Verdict }

// Err returns nil for an accepting verdict and a *Refusal otherwise.
func (v Verdict) Err() error {
	if v.Accepted {
		return nil
	}
	return &Refusal{v}
}

// Is makes every refusal ErrUntrusted.
func (r *Refusal) Is(target error) bool { return target == ErrUntrusted }

// Error says on the first line what was decided, and below it the rule, the
// keys, what was found and the command that mends it.
func (r *Refusal) Error() string { return r.Verdict.Explain() }

// Explain tells a verdict of either kind to a person: what was decided, by
// which rule, with which keys, and of every signature why it counts or not.
func (v Verdict) Explain() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is %s", clip(v.Subject.Reference), printable(v.because(), maxLine))
	line := func(label, text string) { fmt.Fprintf(&b, "\n  %-6s %s", label, printable(text, maxLine)) }
	line("image", v.Subject.digests())
	line("rule", v.Rule.text())
	if v.Detail != "" {
		line("", v.Detail)
	}
	if len(v.Keys) == 0 {
		line("keys", "none")
	}
	for i, k := range v.Keys {
		line(once("keys", i), strings.TrimSpace(k.KeyFile+" "+k.KeyID))
	}
	for i, text := range v.found() {
		line(once("found", i), text)
	}
	if v.Hint != "" {
		line("mend", v.Hint)
	}
	return b.String()
}

// found is one line for each thing found, equal ones once.
func (v Verdict) found() []string {
	if len(v.Findings) == 0 {
		return []string{"no signature"}
	}
	var lines []string
	times := map[string]int{}
	for _, f := range v.Findings {
		s := f.String()
		if times[s]++; times[s] == 1 {
			lines = append(lines, s)
		}
	}
	more := len(lines) - maxFindingsShown
	if more > 0 {
		lines = lines[:maxFindingsShown]
	}
	for i, s := range lines {
		if n := times[s]; n > 1 {
			lines[i] = fmt.Sprintf("%s (%d times)", s, n)
		}
	}
	if more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}

func once(label string, i int) string {
	if i == 0 {
		return label
	}
	return ""
}

// String is the finding as refusals and `trust explain` show it.
func (f Finding) String() string {
	what := f.What
	if what == "signature" && f.Format != "" {
		what = f.Format
	}
	return fmt.Sprintf("%s on %s: %s", what, shortDigest(string(f.Digest)), f.Why)
}

func (s Subject) digests() string {
	if s.Index == "" || s.Index == s.Manifest {
		return string(s.Manifest)
	}
	return fmt.Sprintf("%s, by the index %s", s.Manifest, s.Index)
}

func (r RuleRef) text() string {
	switch {
	case r.File == "":
		return "none matches, and without a rule nothing is trusted"
	case r.Prefix == unknownPrefix:
		return r.File + ", which may be about any image"
	}
	return fmt.Sprintf("%s:%d (Prefix=%s)", r.File, r.Line, r.Prefix)
}

func shortDigest(d string) string {
	if i := strings.IndexByte(d, ':'); i > 0 && len(d) > i+13 {
		d = d[:i+13]
	}
	return clip(d)
}

func (v Verdict) because() string {
	const not = "not trusted: "
	switch v.Reason {
	case ReasonSigned:
		if !v.Accepted || len(v.By) == 0 {
			return not + "it names no signer"
		}
		return "trusted: signed with " + Key{File: v.By[0].KeyFile, ID: v.By[0].KeyID}.name()
	case ReasonInsecure:
		return "accepted without proof: a rule says insecure"
	case ReasonNoRule:
		return not + "no rule matches " + clip(v.Subject.Name)
	case ReasonClosed:
		return not + "the rule that governs it cannot be believed"
	case ReasonReject:
		return not + "a rule rejects it"
	case ReasonUnsigned:
		return not + "it carries no signature"
	case ReasonUntrusted:
		return not + "none of its signatures counts"
	case ReasonTooMany:
		return not + "it carries more signatures than are looked at"
	}
	return not + "it cannot be judged"
}

// withHint adds the command that mends a refusal.
func (v Verdict) withHint() Verdict {
	if v.Accepted {
		return v
	}
	name, ref := quote(v.Subject.Name), quote(v.Subject.Reference)
	switch v.Reason {
	case ReasonNoRule:
		v.Hint = "gantry trust add --prefix " + name + " KEY.pub"
		if len(v.Findings) == 0 {
			v.Hint = "gantry sign --key KEY " + ref + " && " + v.Hint
		}
	case ReasonClosed:
		v.Hint = "correct " + v.Rule.File + ", then gantry trust explain " + ref
	case ReasonReject:
		v.Hint = "none, unless the administrator takes " + v.Rule.File + " away"
	case ReasonUnsigned, ReasonTooMany:
		v.Hint = "gantry sign --key KEY " + ref
		if v.Reason == ReasonTooMany {
			v.Hint = "remove signatures from the repository, then gantry trust explain " + ref
		}
	case ReasonUntrusted:
		v.Hint = "gantry trust add --prefix " + quote(v.Rule.Prefix) + " KEY.pub, if you trust whoever signed it, or gantry sign --key KEY " + ref
		for _, f := range v.Findings {
			if f.Mend != "" {
				v.Hint = f.Mend + ", if that is what you trust"
				break
			}
		}
	case ReasonMalformed:
		v.Hint = "gantry fetch " + ref
	}
	return v
}

// quote makes an argument safe to paste into a shell.
func quote(s string) string {
	s = clip(s)
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
