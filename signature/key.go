// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/gantryrun/gantry/internal/jsonin"
)

const (
	maxKeyFile = 64 << 10
	// RSA keys above this size cost milliseconds per verification and are
	// made by nobody; the bound keeps a key file from slowing every launch.
	maxRSABits = 8192
	minRSABits = 2048
)

// Key is one public key a rule names.
type Key struct {
	File string // where it was read from; "" when it was given as bytes
	ID   string // sha256:<hex> of its SubjectPublicKeyInfo
	Kind string // "ECDSA P-256", "Ed25519", "RSA 3072"
	Pub  crypto.PublicKey
}

// Hint is the name cosign gives the key inside a bundle: the same hash in
// base64.
func (k Key) Hint() string {
	raw, err := hex.DecodeString(strings.TrimPrefix(k.ID, "sha256:"))
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// ParseKey reads one PEM block holding a PKIX public key: ECDSA on P-256,
// P-384 or P-521, Ed25519, or RSA of 2048 bits and more.
func ParseKey(data []byte) (Key, error) {
	block, rest := pem.Decode(data)
	if block == nil {
		return Key{}, errors.New("no PEM block; a public key file begins with -----BEGIN PUBLIC KEY-----")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return Key{}, errors.New("more than one PEM block; one key per file")
	}
	switch {
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return Key{}, fmt.Errorf("this is a private key (%s); give its public half, and keep this file away from here", clip(block.Type))
	case block.Type == "CERTIFICATE":
		return Key{}, errors.New("this is a certificate; extract its public key with openssl x509 -pubkey -noout")
	case block.Type != "PUBLIC KEY":
		return Key{}, fmt.Errorf("PEM block %q is not PUBLIC KEY; convert it with openssl pkey -pubin -pubout", clip(block.Type))
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("parse public key: %w", err)
	}
	return NewKey(pub)
}

// NewKey checks that pub is of a kind gantry verifies with, and names it.
func NewKey(pub crypto.PublicKey) (Key, error) {
	kind, err := keyKind(pub)
	if err != nil {
		return Key{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return Key{}, fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(spki)
	return Key{ID: "sha256:" + hex.EncodeToString(sum[:]), Kind: kind, Pub: pub}, nil
}

// wireKey is a key in JSON: file and PEM; the rest follows from them.
type wireKey struct {
	File string `json:"file,omitempty"`
	ID   string `json:"id"`
	PEM  string `json:"pem"`
}

// PEM is the form ParseKey reads.
func (k Key) PEM() ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(k.Pub)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), nil
}

// MarshalJSON writes the key whole.
func (k Key) MarshalJSON() ([]byte, error) {
	text, err := k.PEM()
	if err != nil {
		return nil, err
	}
	return json.Marshal(wireKey{File: k.File, ID: k.ID, PEM: string(text)})
}

// UnmarshalJSON reads the key and derives its name afresh.
func (k *Key) UnmarshalJSON(data []byte) error {
	var w wireKey
	if err := jsonin.Unmarshal(data, &w); err != nil {
		return fmt.Errorf("decode key: %w", err)
	}
	key, err := ParseKey([]byte(w.PEM))
	if err != nil {
		return fmt.Errorf("decode key: %w", err)
	}
	if key.ID != w.ID {
		return fmt.Errorf("decode key: it is %s, not %s", key.ID, clip(w.ID))
	}
	key.File = w.File
	*k = key
	return nil
}

func keyKind(pub crypto.PublicKey) (string, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return "ECDSA " + k.Curve.Params().Name, nil
		}
		return "", fmt.Errorf("ECDSA on %s is not accepted; use P-256, P-384 or P-521", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return "Ed25519", nil
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSABits || n > maxRSABits {
			return "", fmt.Errorf("RSA of %d bits is not accepted; use %d to %d", n, minRSABits, maxRSABits)
		}
		return fmt.Sprintf("RSA %d", k.N.BitLen()), nil
	}
	return "", fmt.Errorf("keys of type %T are not accepted; use ECDSA, Ed25519 or RSA", pub)
}

// verify tells whether sig is this key's signature of msg in one of the forms
// cosign has used for that kind of key: sigstore's registry pairs P-384 with
// SHA-384 and P-521 with SHA-512, but cosign signed everything with SHA-256
// before it had the registry and still verifies so by default; for Ed25519 it
// went from the pure form to Ed25519ph. RSA is PKCS #1 v1.5 with SHA-256.
func (k Key) verify(msg, sig []byte) bool {
	switch pub := k.Pub.(type) {
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(msg)
		if ecdsa.VerifyASN1(pub, sum[:], sig) {
			return true
		}
		switch pub.Curve {
		case elliptic.P384():
			sum := sha512.Sum384(msg)
			return ecdsa.VerifyASN1(pub, sum[:], sig)
		case elliptic.P521():
			sum := sha512.Sum512(msg)
			return ecdsa.VerifyASN1(pub, sum[:], sig)
		}
	case ed25519.PublicKey:
		if ed25519.Verify(pub, msg, sig) {
			return true
		}
		sum := sha512.Sum512(msg)
		return ed25519.VerifyWithOptions(pub, sum[:], sig, &ed25519.Options{Hash: crypto.SHA512}) == nil
	case *rsa.PublicKey:
		sum := sha256.Sum256(msg)
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], sig) == nil
	}
	return false
}
