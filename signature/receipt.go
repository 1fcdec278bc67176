// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/internal/jsonin"
)

// ReceiptVersion is the version this package writes. Older ones stay readable.
const ReceiptVersion = 1

// MaxReceipt bounds one receipt: every signature in base64, and the rest.
const MaxReceipt = 2*MaxTotal + (4 << 20)

// Outcomes a caller acts on.
var (
	// ErrNoReceipt means the image was never proven here: fetch it.
	ErrNoReceipt = errors.New("no receipt")
	// ErrSeal means the receipt was not written by this host's gantry, or was
	// changed since: fetch the image again, and wonder who wrote it.
	ErrSeal = errors.New("receipt's seal does not hold")
)

// Receipt is what was proven when an image was fetched: enough to judge it
// again offline at every launch.
type Receipt struct {
	Version    int                `json:"version"`
	Reference  string             `json:"reference"`
	Name       string             `json:"name"`
	Index      digest.Digest      `json:"index,omitempty"`
	Manifest   digest.Digest      `json:"manifest"`
	Config     digest.Digest      `json:"config,omitempty"`
	Platform   string             `json:"platform,omitempty"`
	Layers     []ispec.Descriptor `json:"layers,omitempty"`
	Tree       json.RawMessage    `json:"tree,omitempty"`
	Signatures []Signature        `json:"signatures,omitempty"`
	Verdict    Verdict            `json:"verdict"`
	PolicyHash string             `json:"policyHash"`
	Insecure   bool               `json:"insecure,omitempty"`
	Time       time.Time          `json:"time"`
	By         string             `json:"by,omitempty"` // gantry's version
	Seal       string             `json:"-"`            // as found in the file
}

// Subject is what the current policy is asked about at launch.
func (r Receipt) Subject() Subject {
	return Subject{Reference: r.Reference, Name: r.Name, Index: r.Index, Manifest: r.Manifest}
}

// A receipt file is one JSON object, so that people can read it with any tool:
//
//	{"gantryReceipt":1,"seal":"hmac-sha256:<hex>","receipt":{…}}
//
// The sealed bytes are those of the inner object exactly as they stand, so no
// two encoders have to agree, and the seal is checked before anything is
// parsed. The name of the scheme goes into the seal too.
const (
	sealScheme = "hmac-sha256:"
	sealDomain = "gantry receipt 1\n"
	fileHead   = `{"gantryReceipt":1,"seal":"` + sealScheme
	fileMiddle = `","receipt":`
	fileTail   = "}\n"
	sealHex    = 2 * sha256.Size
)

func seal(key, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(sealDomain))
	mac.Write(body)
	return mac.Sum(nil)
}

func encodeReceipt(key []byte, r Receipt) ([]byte, error) {
	if r.Version == 0 {
		r.Version = ReceiptVersion
	}
	r.Time = r.Time.UTC().Round(0)
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode receipt: %w", err)
	}
	var b bytes.Buffer
	b.WriteString(fileHead)
	b.WriteString(hex.EncodeToString(seal(key, body)))
	b.WriteString(fileMiddle)
	b.Write(body)
	b.WriteString(fileTail)
	if b.Len() > MaxReceipt {
		return nil, fmt.Errorf("encode receipt: %d bytes; at most %d are kept", b.Len(), MaxReceipt)
	}
	return b.Bytes(), nil
}

func decodeReceipt(key, file []byte) (Receipt, error) {
	body, mac, err := openEnvelope(file)
	if err != nil {
		return Receipt{}, err
	}
	if !hmac.Equal(mac, seal(key, body)) {
		return Receipt{}, ErrSeal
	}
	var r Receipt
	if err := jsonin.Unmarshal(body, &r); err != nil {
		return Receipt{}, fmt.Errorf("decode receipt: %w", err)
	}
	if r.Version < 1 || r.Version > ReceiptVersion {
		return Receipt{}, fmt.Errorf("receipt of version %d; this gantry reads up to %d", r.Version, ReceiptVersion)
	}
	r.Seal = sealScheme + hex.EncodeToString(mac)
	return r, nil
}

// openEnvelope takes a receipt file apart by position alone.
func openEnvelope(file []byte) (body, mac []byte, err error) {
	rest, ok := bytes.CutPrefix(file, []byte(fileHead))
	if !ok || len(rest) < sealHex {
		return nil, nil, fmt.Errorf("%w: not a receipt of this version", ErrSeal)
	}
	mac = make([]byte, sha256.Size)
	// DecodeString takes capitals too; one seal has one spelling.
	if _, err := hex.Decode(mac, rest[:sealHex]); err != nil || !bytes.Equal(bytes.ToLower(rest[:sealHex]), rest[:sealHex]) {
		return nil, nil, fmt.Errorf("%w: malformed seal", ErrSeal)
	}
	rest, ok = bytes.CutPrefix(rest[sealHex:], []byte(fileMiddle))
	if !ok {
		return nil, nil, fmt.Errorf("%w: malformed receipt", ErrSeal)
	}
	body, ok = bytes.CutSuffix(rest, []byte(fileTail))
	if !ok {
		return nil, nil, fmt.Errorf("%w: truncated receipt", ErrSeal)
	}
	return body, mac, nil
}
