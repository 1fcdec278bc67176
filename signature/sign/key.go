// SPDX-License-Identifier: Apache-2.0

// Package sign makes key pairs and signatures in the forms cosign reads and
// writes: encrypted keys, bundle v0.3 referrers with their fallback index, and
// the legacy .sig form. It returns bytes; others push or store them.
package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"

	"github.com/gantryrun/gantry/signature"
)

// PEM types of private keys. Both encrypted ones hold the same thing; cosign
// wrote COSIGN before it wrote SIGSTORE.
const (
	pemSigstore = "ENCRYPTED SIGSTORE PRIVATE KEY"
	pemCosign   = "ENCRYPTED COSIGN PRIVATE KEY"
	pemPKCS8    = "PRIVATE KEY"
	maxKeyPEM   = 64 << 10
)

// ErrPassword means that the password does not open the key, or that the key
// was damaged; the cipher cannot tell these apart.
var ErrPassword = errors.New("wrong password, or a damaged key")

// sealed is the encrypted key inside the PEM block, as go-securesystemslib
// defines it for cosign.
type sealed struct {
	KDF struct {
		Name   string `json:"name"`
		Params struct {
			N int `json:"N"`
			R int `json:"r"`
			P int `json:"p"`
		} `json:"params"`
		Salt []byte `json:"salt"`
	} `json:"kdf"`
	Cipher struct {
		Name  string `json:"name"`
		Nonce []byte `json:"nonce"`
	} `json:"cipher"`
	Ciphertext []byte `json:"ciphertext"`
}

const (
	kdfName    = "scrypt"
	cipherName = "nacl/secretbox"
	saltSize   = 32
	nonceSize  = 24
	scryptN    = 1 << 16
	scryptR    = 8
	scryptP    = 1
)

// Keygen makes an ECDSA P-256 key pair: the private key encrypted under pass
// (an empty one is allowed, as in cosign) and the public key, both PEM.
func Keygen(pass []byte) (priv, pub []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	if priv, err = Encrypt(key, pass); err != nil {
		return nil, nil, err
	}
	if pub, err = Public(key); err != nil {
		return nil, nil, err
	}
	return priv, pub, nil
}

// Public returns the PEM of a key's public half.
func Public(key crypto.Signer) ([]byte, error) {
	k, err := signature.NewKey(key.Public())
	if err != nil {
		return nil, err
	}
	return k.PEM()
}

// Encrypt seals a private key under pass in cosign's form.
func Encrypt(key crypto.Signer, pass []byte) ([]byte, error) {
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	var s sealed
	s.KDF.Name, s.Cipher.Name = kdfName, cipherName
	s.KDF.Params.N, s.KDF.Params.R, s.KDF.Params.P = scryptN, scryptR, scryptP
	s.KDF.Salt, s.Cipher.Nonce = make([]byte, saltSize), make([]byte, nonceSize)
	rand.Read(s.KDF.Salt)
	rand.Read(s.Cipher.Nonce)
	box, err := s.key(pass)
	if err != nil {
		return nil, err
	}
	s.Ciphertext = secretbox.Seal(nil, plain, (*[nonceSize]byte)(s.Cipher.Nonce), box)
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemSigstore, Bytes: data}), nil
}

// LoadKey reads a private key: encrypted as cosign does it, or plain PKCS #8.
// pass is not used for a plain one.
func LoadKey(data, pass []byte) (crypto.Signer, error) {
	if len(data) > maxKeyPEM {
		return nil, fmt.Errorf("private key of %d bytes; at most %d are read", len(data), maxKeyPEM)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM block; a private key file begins with -----BEGIN")
	}
	switch {
	case block.Type == pemSigstore || block.Type == pemCosign:
		plain, err := decrypt(block.Bytes, pass)
		if err != nil {
			return nil, fmt.Errorf("decrypt private key: %w", err)
		}
		return parsePKCS8(plain)
	case block.Type == pemPKCS8:
		return parsePKCS8(block.Bytes)
	case strings.HasSuffix(block.Type, "PUBLIC KEY"):
		return nil, errors.New("this is a public key; signing needs the private half")
	case block.Type == "EC PRIVATE KEY" || block.Type == "RSA PRIVATE KEY":
		return nil, fmt.Errorf("%s is an old form; convert it with openssl pkcs8 -topk8 -nocrypt", block.Type)
	}
	return nil, fmt.Errorf("PEM block %q is not a private key this command reads", block.Type)
}

// Encrypted tells whether LoadKey needs a password.
func Encrypted(data []byte) bool {
	block, _ := pem.Decode(data)
	return block != nil && (block.Type == pemSigstore || block.Type == pemCosign)
}

func decrypt(data, pass []byte) ([]byte, error) {
	var s sealed
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	switch {
	case s.KDF.Name != kdfName:
		return nil, fmt.Errorf("key derivation %.32q is not scrypt", s.KDF.Name)
	case s.Cipher.Name != cipherName:
		return nil, fmt.Errorf("cipher %.32q is not nacl/secretbox", s.Cipher.Name)
	case len(s.Cipher.Nonce) != nonceSize:
		return nil, fmt.Errorf("nonce of %d bytes, not %d", len(s.Cipher.Nonce), nonceSize)
	}
	box, err := s.key(pass)
	if err != nil {
		return nil, err
	}
	plain, ok := secretbox.Open(nil, s.Ciphertext, (*[nonceSize]byte)(s.Cipher.Nonce), box)
	if !ok {
		return nil, ErrPassword
	}
	return plain, nil
}

// key derives the box key. Only the three strengths that cosign's library has
// ever written are accepted: a key file must not choose how much memory and
// time reading it takes.
func (s *sealed) key(pass []byte) (*[32]byte, error) {
	p := s.KDF.Params
	if (p.N != 1<<15 && p.N != 1<<16 && p.N != 1<<17) || p.R != scryptR || p.P != scryptP {
		return nil, fmt.Errorf("scrypt parameters N=%d r=%d p=%d are not accepted", p.N, p.R, p.P)
	}
	k, err := scrypt.Key(pass, s.KDF.Salt, p.N, p.R, p.P, 32)
	if err != nil {
		return nil, err
	}
	return (*[32]byte)(k), nil
}

func parsePKCS8(der []byte) (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("parse private key: %w", err)
	}
	signer, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("keys of type %T cannot sign", k)
	}
	if _, err := signature.NewKey(signer.Public()); err != nil {
		return nil, err
	}
	return signer, nil
}
