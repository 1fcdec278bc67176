// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/gantryrun/gantry/image"
)

// Types and annotations of cosign's legacy form.
const (
	LegacyType           = "application/vnd.dev.cosign.simplesigning.v1+json"
	legacyArtifact       = "application/vnd.dev.cosign.artifact.sig.v1+json" // the same content as a referrer
	legacyCritical       = "cosign container image signature"
	AnnotationSignature  = "dev.cosignproject.cosign/signature"
	annotationCert       = "dev.sigstore.cosign/certificate"
	annotationLogEntry   = "dev.sigstore.cosign/bundle"
	maxLegacySigEncoding = maxRawSig * 2
)

// readLegacy reads a simple signing payload with its signature in the
// annotations of the layer that carried it. Unlike cosign it demands that the
// payload names this repository, as containers-signature(5) asks: without that
// any signed image of the same key could be offered under any name.
func readLegacy(sig Signature) (claim, error) {
	c := claim{what: "cosign signature (simple signing)", msg: sig.Payload}
	enc := sig.Annotations[AnnotationSignature]
	if enc == "" || len(enc) > maxLegacySigEncoding {
		return c, fmt.Errorf("no usable %s annotation", AnnotationSignature)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(enc)
	if err != nil || len(raw) == 0 || len(raw) > maxRawSig {
		return c, fmt.Errorf("annotation %s is not a base64 signature", AnnotationSignature)
	}
	c.sig = raw
	c.logged = sig.Annotations[annotationLogEntry] != ""
	if sig.Annotations[annotationCert] != "" {
		c.what = "keyless cosign signature (simple signing)"
	}
	ref, dgst, err := readSimple(sig.Payload)
	if err != nil {
		return c, fmt.Errorf("payload: %w", err)
	}
	c.check = func(s Subject, r Rule) error {
		if dgst != string(s.Manifest) && (s.Index == "" || dgst != string(s.Index)) {
			return fmt.Errorf("it signs %s", clip(dgst))
		}
		if got := repositoryOf(ref); got != legacyName(s.Name, r) {
			return elsewhere(got, s.Name, r)
		}
		return nil
	}
	return c, nil
}

// readSimple reads the payload of containers-signature(5): unknown members of
// critical are refused, optional may be null.
func readSimple(data []byte) (reference, dgst string, err error) {
	o, err := parseObject(data)
	if err != nil {
		return "", "", err
	}
	if err := o.only("critical", "optional"); err != nil {
		return "", "", err
	}
	if v := o["optional"]; v != nil {
		if _, ok := v.(object); !ok {
			return "", "", errors.New(`member "optional" is neither an object nor null`)
		}
	}
	crit, err := o.object("critical")
	if err != nil {
		return "", "", err
	}
	if err := crit.only("type", "image", "identity"); err != nil {
		return "", "", fmt.Errorf("critical: %w", err)
	}
	if t, err := crit.str("type"); err != nil || t != legacyCritical {
		return "", "", fmt.Errorf("critical.type %q is not %q", clip(t), legacyCritical)
	}
	if dgst, err = soleString(crit, "image", "docker-manifest-digest"); err != nil {
		return "", "", err
	}
	if reference, err = soleString(crit, "identity", "docker-reference"); err != nil {
		return "", "", err
	}
	return reference, dgst, nil
}

// soleString reads {outer: {inner: "…"}} and refuses any other member.
func soleString(crit object, outer, inner string) (string, error) {
	o, err := crit.object(outer)
	if err != nil {
		return "", fmt.Errorf("critical: %w", err)
	}
	if err := o.only(inner); err != nil {
		return "", fmt.Errorf("critical.%s: %w", outer, err)
	}
	s, err := o.str(inner)
	if err != nil || s == "" {
		return "", fmt.Errorf("critical.%s: member %q is missing, empty or not a string", outer, inner)
	}
	return s, nil
}

// legacyName is the repository a payload must name for an image: the image's
// own, or what SignedAs= puts in the place of the rule's prefix.
func legacyName(name string, r Rule) string {
	if r.SignedAs == "" {
		return name
	}
	return r.SignedAs + below(name, r.Prefix)
}

// below is what a name has beyond a prefix that governs it, slash included.
func below(name, prefix string) string {
	return strings.TrimPrefix(name, strings.TrimSuffix(prefix, "/"))
}

// elsewhere refuses a payload for another repository. Only when that one ends
// as name does below the rule's prefix can this be a mirror; else it is more
// likely a replay, and nobody is told how to let it through.
func elsewhere(got, name string, r Rule) error {
	why := fmt.Sprintf("it signs the repository %s, not %s", clip(got), legacyName(name, r))
	rest := below(name, r.Prefix)
	if as, ok := strings.CutSuffix(got, rest); ok && rest != "" && r.SignedAs == "" {
		return &mendable{why, "SignedAs=" + clip(as)}
	}
	return errors.New(why)
}

// repositoryOf strips tag and digest from a docker-reference and spells it as
// policy names are spelled (cosign writes index.docker.io for Docker Hub).
// What is no reference is returned as it is, and equals no name.
func repositoryOf(ref string) string {
	r, err := image.Parse(ref)
	if err != nil {
		return ref
	}
	return r.Name()
}
