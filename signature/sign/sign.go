// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/signature"
)

// Bundle signs a digest as cosign 3 does: a sigstore bundle v0.3 around a DSSE
// envelope around an in-toto statement. It names no repository and no tag.
func Bundle(key crypto.Signer, subject digest.Digest) ([]byte, error) {
	if err := image.ValidDigest(subject); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	k, err := signature.NewKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	payload, err := json.Marshal(statement{
		Type:          signature.StatementType,
		Subject:       []statementSubject{{Digest: map[string]string{string(subject.Algorithm()): subject.Encoded()}}},
		PredicateType: signature.SignPredicate,
	})
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	sig, err := signBytes(key, signature.PAE(signature.PayloadType, payload))
	if err != nil {
		return nil, err
	}
	b := bundle{MediaType: signature.BundleType}
	b.Material.PublicKey.Hint = k.Hint()
	b.Envelope.Payload, b.Envelope.PayloadType = payload, signature.PayloadType
	b.Envelope.Signatures = []envelopeSignature{{Sig: sig}}
	return json.Marshal(b)
}

// The shapes cosign writes, members in its order.
type (
	statement struct {
		Type          string             `json:"_type"`
		Subject       []statementSubject `json:"subject"`
		PredicateType string             `json:"predicateType"`
		Predicate     struct{}           `json:"predicate"`
	}
	statementSubject struct {
		Digest      map[string]string `json:"digest"`
		Annotations struct{}          `json:"annotations"`
	}
	bundle struct {
		MediaType string `json:"mediaType"`
		Material  struct {
			PublicKey struct {
				Hint string `json:"hint"`
			} `json:"publicKey"`
		} `json:"verificationMaterial"`
		Envelope struct {
			Payload     []byte              `json:"payload"`
			PayloadType string              `json:"payloadType"`
			Signatures  []envelopeSignature `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	envelopeSignature struct {
		Sig []byte `json:"sig"`
	}
	simple struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest digest.Digest `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
		Optional map[string]any `json:"optional"`
	}
)

// Legacy signs in cosign's older form: a simple signing payload that names the
// repository (never a tag), with the signature as an annotation of the layer
// that carries it.
func Legacy(key crypto.Signer, repository string, subject digest.Digest) (payload []byte, annotations map[string]string, err error) {
	if err := image.ValidDigest(subject); err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}
	var s simple
	s.Critical.Identity.Reference = repository
	s.Critical.Image.Digest = subject
	s.Critical.Type = "cosign container image signature"
	if payload, err = json.Marshal(s); err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}
	sig, err := signBytes(key, payload)
	if err != nil {
		return nil, nil, err
	}
	return payload, map[string]string{signature.AnnotationSignature: base64.StdEncoding.EncodeToString(sig)}, nil
}

// signBytes signs as cosign verifies by default: SHA-256 whatever the curve,
// RSA as PKCS #1 v1.5, Ed25519 in its pure form. (cosign sign itself pairs
// larger curves with larger hashes; its own verify then refuses them.)
func signBytes(key crypto.Signer, msg []byte) ([]byte, error) {
	sum := sha256.Sum256(msg)
	hash, d := crypto.SHA256, sum[:]
	if _, pure := key.Public().(ed25519.PublicKey); pure {
		hash, d = crypto.Hash(0), msg
	}
	sig, err := key.Sign(rand.Reader, d, hash)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return sig, nil
}
