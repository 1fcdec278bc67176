// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

type edit = func(b map[string]any)

func envelope(b map[string]any) map[string]any { return b["dsseEnvelope"].(map[string]any) }
func material(b map[string]any) map[string]any { return b["verificationMaterial"].(map[string]any) }
func firstSig(b map[string]any) map[string]any {
	return envelope(b)["signatures"].([]any)[0].(map[string]any)
}

// A bundle is read strictly: whatever a second reader might read otherwise is
// refused, with the reason.
func TestBundleRefusals(t *testing.T) {
	priv, k := testKey(t)
	p := trusting(t, k)
	good := statementOf(SignPredicate, testManifest)
	other := digest.FromString("other")
	tests := []struct {
		name, payload string
		edit          edit
		want          string
	}{
		{"good", good, nil, ""},
		{"no predicate, as before cosign 3.0.5", strings.Replace(good, `,"predicate":{}`, "", 1), nil, ""},
		{"older spelling of 0.3", good, func(b map[string]any) { b["mediaType"] = bundleTypeOld }, ""},
		{"no hint", good, func(b map[string]any) { material(b)["publicKey"] = map[string]any{} }, ""},
		{"lying hint", good, func(b map[string]any) { material(b)["publicKey"] = map[string]any{"hint": "x"} }, ""},
		{"logged, with the log ignored", good, func(b map[string]any) { material(b)["tlogEntries"] = []any{1} }, ""},
		{"keyid", good, func(b map[string]any) { firstSig(b)["keyid"] = "me" }, ""},
		{"other image", statementOf(SignPredicate, other), nil, "but it signs " + other.String()},
		{"attestation", statementOf("https://slsa.dev/provenance/v1", testManifest), nil, "its type https://slsa.dev/provenance/v1 says something"},
		{"version 0.2", good, func(b map[string]any) { b["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2" }, "version 0.3 is verified"},
		{"unknown member", good, func(b map[string]any) { b["x"] = 1 }, `unknown member "x"`},
		{"unknown member deeper", good, func(b map[string]any) { envelope(b)["x"] = 1 }, `unknown member "x"`},
		{"message signature", good, func(b map[string]any) { b["messageSignature"] = map[string]any{} }, "bare message"},
		{"certificate", good, func(b map[string]any) { material(b)["certificate"] = map[string]any{} }, "signed with a certificate"},
		{"no key", good, func(b map[string]any) { delete(material(b), "publicKey") }, `member "publicKey" is missing`},
		{"no material", good, func(b map[string]any) { delete(b, "verificationMaterial") }, `member "verificationMaterial" is missing`},
		{"payload type", good, func(b map[string]any) { envelope(b)["payloadType"] = "text/plain" }, "is not application/vnd.in-toto+json"},
		{"no signature", good, func(b map[string]any) { envelope(b)["signatures"] = []any{} }, "0 signatures where exactly one belongs"},
		{"two signatures", good, func(b map[string]any) {
			envelope(b)["signatures"] = []any{firstSig(b), firstSig(b)}
		}, "2 signatures where exactly one belongs"},
		{"empty signature", good, func(b map[string]any) { firstSig(b)["sig"] = "" }, "the signature is empty"},
		{"long signature", good, func(b map[string]any) { firstSig(b)["sig"] = strings.Repeat("AAAA", 4096) }, "too long"},
		{"not base64", good, func(b map[string]any) { firstSig(b)["sig"] = "***" }, "not base64"},
		{"URL base64", good, func(b map[string]any) { envelope(b)["payload"] = "_-_-" }, `"payload" is not base64`},
		{"payload swapped", good, func(b map[string]any) {
			envelope(b)["payload"] = base64.StdEncoding.EncodeToString([]byte(good + " "))
		}, "does not verify with"},
		{"statement version", strings.Replace(good, "Statement/v1", "Statement/v9", 1), nil, "statement of type"},
		{"no subject", strings.Replace(good, `"subject":[{`, `"subject":[],"x":[{`, 1), nil, "0 subjects"},
		{"subject without digest", strings.Replace(good, `"digest":`, `"digests":`, 1), nil, `"digest" is missing`},
		{"upper-case digest", strings.Replace(good, testManifest.Encoded(), strings.ToUpper(testManifest.Encoded()), 1), nil, "subject digest"},
		{"weak digest", strings.Replace(good, `"sha256":`, `"sha1":`, 1), nil, "no sha256 or sha512 digest"},
		{"duplicate member", strings.Replace(good, `"predicateType":`, `"predicateType":"x","predicateType":`, 1), nil, `"predicateType" appears twice`},
		{"trailing data", good + "{}", nil, "data after the JSON object"},
		{"predicate of another kind", strings.Replace(good, `"predicate":{}`, `"predicate":"x"`, 1), nil, "predicate is not an object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := p.Judge(testSubject(), []Signature{bundleOf(t, priv, tt.payload, tt.edit)})
			if tt.want == "" {
				wantVerdict(t, v, ReasonSigned, "signed with")
				return
			}
			wantVerdict(t, v, ReasonUntrusted, tt.want)
		})
	}
}

func TestLegacyRefusals(t *testing.T) {
	priv, k := testKey(t)
	p := trusting(t, k)
	good := simplePayload(testName, testManifest)
	tests := []struct{ name, payload, want string }{
		{"good", good, ""},
		{"with tag", simplePayload(testName+":v9", testManifest), ""},
		{"optional object", strings.Replace(good, `"optional":null`, `"optional":{"creator":"x"}`, 1), ""},
		{"no optional", strings.Replace(good, `,"optional":null`, "", 1), ""},
		{"other image", simplePayload(testName, testIndex), "but it signs " + testIndex.String()},
		{"other repository", simplePayload("registry.example/other", testManifest), "but it signs the repository registry.example/other"},
		{"other port", simplePayload("registry.example:5000/demo/hello", testManifest), "but it signs the repository registry.example:5000/demo/hello"},
		{"no repository", simplePayload("", testManifest), `"docker-reference" is missing, empty`},
		{"nonsense for a repository", simplePayload("../../x", testManifest), "but it signs the repository ../../x"},
		{"type", strings.Replace(good, "cosign container image signature", "atomic container signature", 1), "critical.type"},
		{"unknown critical member", strings.Replace(good, `"critical":{`, `"critical":{"x":1,`, 1), `critical: unknown member "x"`},
		{"unknown identity member", strings.Replace(good, `"identity":{`, `"identity":{"x":1,`, 1), `critical.identity: unknown member "x"`},
		{"unknown image member", strings.Replace(good, `"image":{`, `"image":{"x":1,`, 1), `critical.image: unknown member "x"`},
		{"unknown member", strings.Replace(good, `"optional":`, `"x":1,"optional":`, 1), `unknown member "x"`},
		{"capital critical", strings.Replace(good, `"critical"`, `"Critical"`, 1), `unknown member "Critical"`},
		{"optional string", strings.Replace(good, `"optional":null`, `"optional":"x"`, 1), "neither an object nor null"},
		{"duplicate", strings.Replace(good, `"optional":`, `"critical":{},"optional":`, 1), "appears twice"},
		{"trailing data", good + "x", "data after the JSON object"},
		{"not JSON", "hello", "invalid character"},
		{"array", "[]", "not a JSON object"},
		{"empty", "", "unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := p.Judge(testSubject(), []Signature{legacyOf(t, priv, tt.payload)})
			if tt.want == "" {
				wantVerdict(t, v, ReasonSigned, "signed with")
				return
			}
			wantVerdict(t, v, ReasonUntrusted, tt.want)
		})
	}
}

func TestLegacyAnnotations(t *testing.T) {
	priv, k := testKey(t)
	p := trusting(t, k)
	for name, tt := range map[string]struct {
		edit func(a map[string]string)
		want string
	}{
		"absent":     {func(a map[string]string) { delete(a, AnnotationSignature) }, "no usable dev.cosignproject.cosign/signature"},
		"not base64": {func(a map[string]string) { a[AnnotationSignature] = "*" }, "is not a base64 signature"},
		"long":       {func(a map[string]string) { a[AnnotationSignature] = strings.Repeat("A", 1<<20) }, "no usable"},
		"of another": {func(a map[string]string) { a[AnnotationSignature] = "AAAA" }, "no matching rule"},
		"many others": {func(a map[string]string) {
			for i := range 65 {
				a[strings.Repeat("x", i+1)] = ""
			}
		}, "more than 64 annotations"},
	} {
		t.Run(name, func(t *testing.T) {
			sig := legacyOf(t, priv, simplePayload(testName, testManifest))
			tt.edit(sig.Annotations)
			if v := p.Judge(testSubject(), []Signature{sig}); v.Accepted || !strings.Contains(v.Explain(), tt.want) {
				t.Errorf("want %q:\n%s", tt.want, v.Explain())
			}
		})
	}
}

// Docker Hub has several names; cosign writes index.docker.io.
func TestRepositoryOf(t *testing.T) {
	for ref, want := range map[string]string{
		"index.docker.io/library/nginx":             "docker.io/library/nginx",
		"nginx":                                     "docker.io/library/nginx",
		"docker.io/acme/web:1":                      "docker.io/acme/web",
		"127.0.0.1:5000/demo/hello":                 "127.0.0.1:5000/demo/hello",
		"GHCR.io/acme/web@" + testManifest.String(): "ghcr.io/acme/web",
		"oci:/srv/images:web":                       "oci:/srv/images",
		"":                                          "",
		"\x00":                                      "\x00",
	} {
		if got := repositoryOf(ref); got != want {
			t.Errorf("repositoryOf(%q) = %q, want %q", ref, got, want)
		}
	}
}

func TestReadAttached(t *testing.T) {
	layer := func(mt string, size int) string {
		b, _ := json.Marshal(map[string]any{"mediaType": mt, "digest": testIndex, "size": size})
		return string(b)
	}
	m := func(artifact, subject string, layers ...string) string {
		s := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + digest.FromString("{}").String() + `","size":2},"layers":[` + strings.Join(layers, ",") + `]`
		if artifact != "" {
			s += `,"artifactType":"` + artifact + `"`
		}
		if subject != "" {
			s += `,"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + subject + `","size":2}`
		}
		return s + "}"
	}
	me := testManifest.String()
	tests := []struct {
		name, manifest, format string
		n                      int
		err                    string
	}{
		{"bundle", m(BundleType, me, layer(BundleType, 9)), FormatBundle, 1, ""},
		{"legacy tag", m("", "", layer(LegacyType, 9), layer(LegacyType, 9)), FormatLegacy, 2, ""},
		{"legacy referrer", m(legacyArtifact, me, layer(LegacyType, 9)), FormatLegacy, 1, ""},
		{"something else", m("application/spdx+json", me, layer("application/spdx+json", 9)), "application/spdx+json", 1, ""},
		{"notation has its type in the config", strings.Replace(m("", me, layer("application/jose+json", 9)), "application/vnd.oci.empty.v1+json", "application/vnd.cncf.notary.signature", 1), "application/vnd.cncf.notary.signature", 1, ""},
		{"of another image", m(BundleType, testIndex.String(), layer(BundleType, 9)), "", 0, "refers to " + testIndex.String()},
		{"bundle without subject", m(BundleType, "", layer(BundleType, 9)), "", 0, "holds no signature"},
		{"two bundles", m(BundleType, me, layer(BundleType, 9), layer(BundleType, 9)), "", 0, "2 bundles where exactly one belongs"},
		{"huge payload", m(BundleType, me, layer(BundleType, MaxSignature+1)), "", 0, "at most"},
		{"negative size", m(BundleType, me, layer(BundleType, -1)), "", 0, "size"},
		{"index", `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`, "", 0, "index"},
		{"not JSON", "x", "", 0, "manifest"},
		{"huge", strings.Repeat(" ", MaxSignature+1), "", 0, "at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadAttached([]byte(tt.manifest), testManifest)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || len(got) != tt.n || got[0].Signature.Format != tt.format {
				t.Fatalf("%d of %+v, %v; want %d of %s", len(got), got, err, tt.n, tt.format)
			}
		})
	}
}

// A payload that its own manifest does not name was swapped on the way.
func TestPayloadMustBeTheManifests(t *testing.T) {
	img := loadImage(t)
	sigs := loadFixture(t, "bundle-p256", img.Manifest)
	sigs[0].Payload = append(sigs[0].Payload, ' ')
	wantVerdict(t, fixturePolicy(t, img, "p256.pub").Judge(img.subject(), sigs), ReasonUntrusted, "which its manifest does not name")
}
