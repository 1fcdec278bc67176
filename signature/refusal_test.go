// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"errors"
	"fmt"
	"testing"
)

// The texts people read when an image is refused, or ask to have explained.
func TestExplainGolden(t *testing.T) {
	priv, k := testKey(t)
	stranger, ks := testKey(t)
	good := bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)
	strange := bundleOf(t, stranger, statementOf(SignPredicate, testManifest), nil)
	foreign := legacyOf(t, priv, simplePayload("registry.example/other", testManifest))
	scan := bundleOf(t, priv, statementOf("https://example.com/scan-report/v1", testManifest), nil)
	logged := bundleOf(t, priv, statementOf(SignPredicate, testManifest), func(b map[string]any) {
		b["verificationMaterial"].(map[string]any)["tlogEntries"] = []any{map[string]any{"logIndex": "1"}}
	})
	notation := Signature{Format: "application/vnd.cncf.notary.signature", Digest: testManifest}
	many := make([]Signature, 12)
	for i := range many {
		many[i] = strange
	}
	key := func(l layer) { l.key("acme.pub", k) }
	tests := []struct {
		name  string
		setup func(l layer)
		sigs  []Signature
	}{
		{"signed", func(l layer) { key(l); l.rule("50-acme.conf", "registry.example", "sigstore-key", "acme.pub") }, []Signature{strange, good}},
		{"no-rule", func(layer) {}, []Signature{strange}},
		{"no-rule-unsigned", func(layer) {}, nil},
		{"no-rule-near", func(l layer) { key(l); l.rule("50-acme.conf", "registry.example/dem", "sigstore-key", "acme.pub") }, []Signature{good}},
		{"unsigned", func(l layer) { key(l); l.rule("50-acme.conf", "registry.example", "sigstore-key", "acme.pub") }, nil},
		{"untrusted", func(l layer) { key(l); l.rule("50-acme.conf", "registry.example", "sigstore-key", "acme.pub") }, []Signature{strange, foreign, scan, notation}},
		{"many", func(l layer) { key(l); l.rule("50-acme.conf", "registry.example", "sigstore-key", "acme.pub") }, many},
		{"logged", func(l layer) {
			key(l)
			l.write("trust.d/50-acme.conf", "[Trust]\nPrefix=registry.example\nAccept=sigstore-key\nKey=acme.pub\nTransparency=if-present\n")
		}, []Signature{logged}},
		{"reject", func(l layer) { l.rule("10-no.conf", testName, "reject") }, []Signature{good}},
		{"insecure", func(l layer) { l.rule("10-lab.conf", testName, "insecure") }, nil},
		{"closed", func(l layer) { l.rule("50-acme.conf", "registry.example", "sigstore-key", "acme.pub") }, []Signature{good}},
		{"lost-prefix", func(l layer) { l.write("trust.d/50-typo.conf", "[Trust]\nPrefx=registry.example\nAccept=reject\n") }, []Signature{good}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLayer(t)
			tt.setup(l)
			s := testSubject()
			s.Index = testIndex
			v := l.policy().Judge(s, tt.sigs)
			golden(t, "explain-"+tt.name, v.Explain(), l.dir, "/etc/gantry", k.ID, "sha256:ACME", ks.ID, "sha256:STRANGER")
			err := v.Err()
			if v.Accepted != (err == nil) {
				t.Fatalf("accepted %v, error %v", v.Accepted, err)
			}
			if err == nil {
				return
			}
			var r *Refusal
			if !errors.Is(fmt.Errorf("run: %w", err), ErrUntrusted) || !errors.As(err, &r) || err.Error() != v.Explain() {
				t.Errorf("%v is no refusal", err)
			}
		})
	}
}

// Text from outside cannot move a terminal's cursor, hide itself or break the
// command that is offered for pasting.
func TestRefusalIsSafeToPrint(t *testing.T) {
	evil := "reg.example/a\x1b[2J\u202e'; rm -rf / #\n"
	v := (&Policy{}).Judge(Subject{Reference: evil, Name: evil, Manifest: testManifest},
		[]Signature{{Format: evil, Digest: "sha256:\x1b", Payload: []byte("{")}})
	safe(t, v.Explain())
	// A verdict that a compromised verifier made up.
	for _, reason := range []Reason{ReasonSigned, ReasonUntrusted, "x"} {
		forged := Verdict{
			Reason: reason, Hint: evil, Detail: evil, Rule: RuleRef{File: evil, Prefix: evil},
			Keys:     []Signer{{KeyFile: evil, KeyID: evil}},
			Findings: []Finding{{What: evil, Why: evil, Digest: "sha256:\x1b"}},
		}
		safe(t, forged.Err().Error())
		forged.By = []Signer{{KeyFile: evil}}
		safe(t, forged.Explain())
	}
	if got := quote("a'b"); got != `'a'\''b'` {
		t.Errorf("quote: %s", got)
	}
}
