// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/image"
)

// Media and predicate types of the bundle form.
const (
	BundleType         = "application/vnd.dev.sigstore.bundle.v0.3+json"
	bundleTypeOld      = "application/vnd.dev.sigstore.bundle+json;version=0.3" // the same version, as first spelled
	StatementType      = "https://in-toto.io/Statement/v1"
	PayloadType        = "application/vnd.in-toto+json"
	SignPredicate      = "https://sigstore.dev/cosign/sign/v1"
	maxStatementImages = 1024
)

// PAE is DSSE's pre-authentication encoding: the bytes that are signed.
func PAE(payloadType string, payload []byte) []byte {
	out := make([]byte, 0, len(payload)+len(payloadType)+48)
	out = append(out, "DSSEv1 "...)
	out = strconv.AppendInt(out, int64(len(payloadType)), 10)
	out = append(out, ' ')
	out = append(out, payloadType...)
	out = append(out, ' ')
	out = strconv.AppendInt(out, int64(len(payload)), 10)
	out = append(out, ' ')
	return append(out, payload...)
}

// readBundle reads a sigstore bundle v0.3 around a DSSE envelope around an
// in-toto statement. Everything but the hint and the log entry is either
// signed or refused.
func readBundle(data []byte) (claim, error) {
	c := claim{what: "sigstore bundle"}
	b, err := parseObject(data)
	if err != nil {
		return c, fmt.Errorf("bundle: %w", err)
	}
	if err := b.only("mediaType", "verificationMaterial", "dsseEnvelope", "messageSignature"); err != nil {
		return c, fmt.Errorf("bundle: %w", err)
	}
	mt, err := b.str("mediaType")
	if err != nil {
		return c, fmt.Errorf("bundle: %w", err)
	}
	if mt != BundleType && mt != bundleTypeOld {
		return c, fmt.Errorf("bundle of type %q; version 0.3 is verified", clip(mt))
	}
	if b["messageSignature"] != nil {
		return c, errors.New("bundle signs a bare message, not a statement about an image")
	}
	if err := readMaterial(&c, b); err != nil {
		return c, err
	}
	return c, readEnvelope(&c, b)
}

func readMaterial(c *claim, b object) error {
	m, err := b.object("verificationMaterial")
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if err := m.only("publicKey", "certificate", "x509CertificateChain", "tlogEntries", "timestampVerificationData"); err != nil {
		return fmt.Errorf("bundle: verificationMaterial: %w", err)
	}
	if m["certificate"] != nil || m["x509CertificateChain"] != nil {
		c.what = "keyless sigstore bundle"
		return errors.New("signed with a certificate; this version of gantry verifies keys (sigstore-key)")
	}
	pk, err := m.object("publicKey")
	if err != nil {
		return fmt.Errorf("bundle: verificationMaterial: %w", err)
	}
	if err := pk.only("hint"); err != nil {
		return fmt.Errorf("bundle: publicKey: %w", err)
	}
	if pk["hint"] != nil {
		if c.hint, err = pk.str("hint"); err != nil || len(c.hint) > maxHint {
			return errors.New("bundle: the key's hint is not a short string")
		}
	}
	if m["tlogEntries"] != nil {
		if _, err := m.list("tlogEntries"); err != nil {
			return fmt.Errorf("bundle: %w", err)
		}
	}
	c.logged = m.has("tlogEntries")
	return nil
}

func readEnvelope(c *claim, b object) error {
	env, err := b.object("dsseEnvelope")
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if err := env.only("payload", "payloadType", "signatures"); err != nil {
		return fmt.Errorf("DSSE envelope: %w", err)
	}
	payload, err := env.bytes("payload")
	if err != nil {
		return fmt.Errorf("DSSE envelope: %w", err)
	}
	if t, err := env.str("payloadType"); err != nil || t != PayloadType {
		return fmt.Errorf("DSSE envelope: payload type %q is not %s", clip(t), PayloadType)
	}
	sigs, err := env.list("signatures")
	if err != nil {
		return fmt.Errorf("DSSE envelope: %w", err)
	}
	if len(sigs) != 1 {
		return fmt.Errorf("DSSE envelope: %d signatures where exactly one belongs", len(sigs))
	}
	one, ok := sigs[0].(object)
	if !ok {
		return errors.New("DSSE envelope: the signature is not an object")
	}
	if err := one.only("sig", "keyid"); err != nil {
		return fmt.Errorf("DSSE envelope: signature: %w", err)
	}
	if c.sig, err = one.bytes("sig"); err != nil || len(c.sig) == 0 || len(c.sig) > maxRawSig {
		return errors.New("DSSE envelope: the signature is empty, too long or not base64")
	}
	c.msg = PAE(PayloadType, payload)
	return readStatement(c, payload)
}

// readStatement reads what was signed. The predicate type decides what the
// signature means: an image that carries only a signed "scan failed" report
// is not a signed image. (cosign verify itself does not look.)
func readStatement(c *claim, payload []byte) error {
	st, err := parseObject(payload)
	if err != nil {
		return fmt.Errorf("statement: %w", err)
	}
	predicate, err := st.str("predicateType")
	if err != nil {
		return fmt.Errorf("statement: %w", err)
	}
	if predicate != SignPredicate {
		c.what = "attestation"
		return fmt.Errorf("its type %s says something about the image, but does not sign it", clip(predicate))
	}
	if t, err := st.str("_type"); err != nil || t != StatementType {
		return fmt.Errorf("statement of type %q is not %s", clip(t), StatementType)
	}
	// The predicate itself was absent before cosign 3.0.5.
	if p, there := st["predicate"]; there && p != nil {
		if _, ok := p.(object); !ok {
			return errors.New("statement: predicate is not an object")
		}
	}
	subjects, err := statementSubjects(st)
	if err != nil {
		return err
	}
	c.check = func(s Subject, _ Rule) error {
		for _, d := range subjects {
			if s.covers(d) {
				return nil
			}
		}
		return fmt.Errorf("it signs %s", clip(string(subjects[0])))
	}
	return nil
}

func statementSubjects(st object) ([]digest.Digest, error) {
	list, err := st.list("subject")
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	if len(list) == 0 || len(list) > maxStatementImages {
		return nil, fmt.Errorf("statement: %d subjects", len(list))
	}
	var out []digest.Digest
	for _, v := range list {
		o, ok := v.(object)
		if !ok {
			return nil, errors.New("statement: a subject is not an object")
		}
		set, err := o.object("digest")
		if err != nil {
			return nil, fmt.Errorf("statement: subject: %w", err)
		}
		d, err := strongest(set)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// strongest takes the one digest of a subject that images are named by. A set
// that names two algorithms could mean two images.
func strongest(set object) (digest.Digest, error) {
	var found digest.Digest
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		if set[string(alg)] == nil {
			continue
		}
		enc, err := set.str(string(alg))
		if err != nil {
			return "", fmt.Errorf("statement: subject: %w", err)
		}
		d := digest.NewDigestFromEncoded(alg, enc)
		if err := image.ValidDigest(d); err != nil {
			return "", fmt.Errorf("statement: subject digest %q: %w", clip(enc), err)
		}
		if found != "" {
			return "", errors.New("statement: a subject has two digests")
		}
		found = d
	}
	if found == "" {
		return "", errors.New("statement: a subject has no sha256 or sha512 digest")
	}
	return found, nil
}

// hintID turns cosign's hint into our spelling of a key's name, or "".
func hintID(hint string) string {
	raw, err := base64.StdEncoding.DecodeString(hint)
	if err != nil || len(raw) != 32 {
		return ""
	}
	return "sha256:" + hex.EncodeToString(raw)
}
