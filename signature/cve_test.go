// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The signature-stack rows of the record that apply to key-signed images, each
// as what the attacker would serve. Rows about certificates, logs and time
// stamps have no code here yet; the first test below holds what stands in
// their place.

// Cosign took any valid log entry for this signature's. Without a verifier no
// entry counts for anything, and a rule that asks for one is closed.
func TestCVE_2026_22703_LogEntryOfAnotherSignature(t *testing.T) {
	priv, k := testKey(t)
	_, stranger := testKey(t)
	entry := func(b map[string]any) {
		material(b)["tlogEntries"] = []any{map[string]any{"logIndex": "1", "canonicalizedBody": "e30="}}
	}
	sig := bundleOf(t, priv, statementOf(SignPredicate, testManifest), entry)
	// It never makes a signature count that the key does not.
	wantVerdict(t, trusting(t, stranger).Judge(testSubject(), []Signature{sig}), ReasonUntrusted, "no matching rule")
	l := newLayer(t)
	l.key("k.pub", k)
	l.write("trust.d/1.conf", "[Trust]\nPrefix=registry.example\nAccept=sigstore-key\nKey=k.pub\nTransparency=if-present\n")
	wantVerdict(t, l.policy().Judge(testSubject(), []Signature{sig}), ReasonUntrusted, "cannot verify")
	l.write("trust.d/1.conf", "[Trust]\nPrefix=registry.example\nAccept=sigstore-key\nKey=k.pub\nTransparency=require\n")
	wantVerdict(t, l.policy().Judge(testSubject(), []Signature{sig}), ReasonClosed, "not available")
}

// The same hole in the legacy form.
func TestCVE_2022_23649_And_36056_LegacyBundleAnnotation(t *testing.T) {
	priv, k := testKey(t)
	sig := legacyOf(t, priv, simplePayload(testName, testManifest))
	sig.Annotations[annotationLogEntry] = `{"SignedEntryTimestamp":"","Payload":{}}`
	l := newLayer(t)
	l.key("k.pub", k)
	l.write("trust.d/1.conf", "[Trust]\nPrefix=registry.example\nAccept=sigstore-key\nKey=k.pub\nTransparency=if-present\n")
	wantVerdict(t, l.policy().Judge(testSubject(), []Signature{sig}), ReasonUntrusted, "cannot verify")
	// A certificate of somebody's does not stand in for the key.
	_, other := testKey(t)
	sig.Annotations[annotationCert] = "-----BEGIN CERTIFICATE-----"
	wantVerdict(t, trusting(t, other).Judge(testSubject(), []Signature{sig}), ReasonUntrusted, "keyless cosign signature")
}

// verify-attestation passed when only some other attestation was there.
func TestCVE_2022_35929_AttestationOfAnotherType(t *testing.T) {
	priv, k := testKey(t)
	for _, predicate := range []string{"https://example.com/scan-report/v1", "https://slsa.dev/provenance/v1", "", SignPredicate + "/", strings.ToUpper(SignPredicate)} {
		sig := bundleOf(t, priv, statementOf(predicate, testManifest), nil)
		wantVerdict(t, trusting(t, k).Judge(testSubject(), []Signature{sig}), ReasonUntrusted, "does not sign it")
	}
}

// Thousands of attachments, or huge ones, must cost nothing and decide
// nothing: past a bound the answer is no.
func TestCVE_2023_46737_ThousandsOfAttachments(t *testing.T) {
	priv, k := testKey(t)
	good := bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)
	sigs := []Signature{good}
	for len(sigs) <= MaxSignatures {
		sigs = append(sigs, good)
	}
	v := trusting(t, k).Judge(testSubject(), sigs)
	wantVerdict(t, v, ReasonTooMany, "65 signatures were found; at most 64 are looked at")
	if len(v.Findings) != 0 {
		t.Error("signatures past the bound were examined")
	}
	wantVerdict(t, trusting(t, k).Judge(testSubject(), sigs[:MaxSignatures]), ReasonSigned, "signed with")
}

func TestCVE_2024_29902_HugeAttachment(t *testing.T) {
	priv, k := testKey(t)
	sig := bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)
	sig.Payload = append(sig.Payload, make([]byte, MaxSignature)...)
	wantVerdict(t, trusting(t, k).Judge(testSubject(), []Signature{sig}), ReasonTooMany, "more than 4194304 bytes")
}

// Junk beside a good signature does not stay to slow every launch.
func TestCVE_2024_29902_JunkIsNotKept(t *testing.T) {
	priv, k := testKey(t)
	stranger, _ := testKey(t)
	good := bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)
	other := bundleOf(t, stranger, statementOf(SignPredicate, testManifest), nil)
	junk := Signature{Format: FormatBundle, Digest: testManifest, Payload: make([]byte, MaxKept)}
	sigs := []Signature{other, junk, good}
	v := trusting(t, k).Judge(testSubject(), sigs)
	kept := v.Keep(sigs)
	if len(kept) != 2 || &kept[0].Payload[0] != &other.Payload[0] || &kept[1].Payload[0] != &good.Payload[0] {
		t.Errorf("%d of 3 signatures are kept", len(kept))
	}
	if again := trusting(t, k).Judge(testSubject(), kept); !again.Accepted {
		t.Error(again.Err())
	}
	if (Verdict{}).Keep(sigs) != nil {
		t.Error("signatures that were not judged are kept")
	}
}

func TestCVE_2024_29903_HugeTotal(t *testing.T) {
	priv, k := testKey(t)
	good := bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)
	big := Signature{Format: FormatBundle, Digest: testManifest, Payload: make([]byte, MaxSignature)}
	wantVerdict(t, trusting(t, k).Judge(testSubject(), []Signature{good, big, big, big, big}), ReasonTooMany, "bytes together")

	// One manifest that lists a hundred signatures.
	m := `{"schemaVersion":2,"config":{"mediaType":"` + ispec.MediaTypeImageConfig + `","digest":"` + testManifest.String() + `","size":2},"layers":[` +
		strings.TrimSuffix(strings.Repeat(`{"mediaType":"`+LegacyType+`","digest":"`+testIndex.String()+`","size":1},`, 100), ",") + `]}`
	if _, err := ReadAttached([]byte(m), testManifest); err == nil || !strings.Contains(err.Error(), "more than 64 signatures") {
		t.Errorf("a manifest of a hundred signatures: %v", err)
	}
}

// A payload that did not parse counted as verified.
func TestCVE_2026_39395_ParseFailureIsNoSuccess(t *testing.T) {
	priv, k := testKey(t)
	for _, payload := range []string{"", "{", "null", "[]", `"x"`, "{}", "\xff", statementOf(SignPredicate, testManifest)[1:]} {
		for _, sig := range []Signature{bundleOf(t, priv, payload, nil), legacyOf(t, priv, payload)} {
			if v := trusting(t, k).Judge(testSubject(), []Signature{sig}); v.Accepted {
				t.Errorf("%s around %q is accepted", sig.Format, payload)
			}
		}
	}
	for _, data := range []string{"", "{", "null", "{}", "[[[["} {
		sig := Signature{Format: FormatBundle, Digest: testManifest, Payload: []byte(data)}
		if v := trusting(t, k).Judge(testSubject(), []Signature{sig}); v.Accepted {
			t.Errorf("bundle %q is accepted", data)
		}
	}
}

// Deep nesting must end in an error, not in a fatal stack overflow.
func TestCVE_2024_45395_UnboundedWork(t *testing.T) {
	priv, k := testKey(t)
	deep := strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)
	sig := Signature{Format: FormatBundle, Digest: testManifest, Payload: []byte(deep)}
	wantVerdict(t, trusting(t, k).Judge(testSubject(), []Signature{sig}), ReasonUntrusted, "nested deeper than 32 levels")

	subjects := `"subject":[` + strings.Repeat(`{"digest":{"sha256":"`+testIndex.Encoded()+`"}},`, 5000)
	st := strings.Replace(statementOf(SignPredicate, testManifest), `"subject":[`, subjects, 1)
	wantVerdict(t, trusting(t, k).Judge(testSubject(), []Signature{bundleOf(t, priv, st, nil)}), ReasonUntrusted, "5001 subjects")
}

// One signature counted several times is one signer.
func TestCVE_2026_49834_ThresholdCountsDistinctKeys(t *testing.T) {
	priv, k := testKey(t)
	sig := bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)
	again := bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)
	v := trusting(t, k).Judge(testSubject(), []Signature{sig, sig, again})
	if len(v.By) != 1 {
		t.Errorf("one key counts %d times", len(v.By))
	}
}

// The listing of referrers says what it likes; only the manifest itself tells
// its subject and its kind.
func TestReferrersListingIsNotBelieved(t *testing.T) {
	listing := []ispec.Descriptor{
		{ArtifactType: "application/spdx+json", Digest: "sha256:1"},
		{ArtifactType: ispec.MediaTypeEmptyJSON, Digest: "sha256:2"},
		{ArtifactType: BundleType, Digest: "sha256:3"},
		{ArtifactType: "", Digest: "sha256:4"},
		{ArtifactType: "application/vnd.cncf.notary.signature", Digest: "sha256:5"},
		{ArtifactType: BundleType, Digest: "sha256:6", Annotations: map[string]string{"dev.sigstore.bundle.predicateType": SignPredicate}},
	}
	var got []digest.Digest
	for _, d := range Order(listing) {
		got = append(got, d.Digest)
	}
	if want := []digest.Digest{"sha256:6", "sha256:3", "sha256:2", "sha256:4", "sha256:1", "sha256:5"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
	if listing[0].Digest != "sha256:1" {
		t.Error("the caller's slice was reordered")
	}
}
