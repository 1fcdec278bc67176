// SPDX-License-Identifier: Apache-2.0

// Package image is the model of what registries and layouts hold: references,
// digests, platforms, manifests, indexes and configurations.
//
// It is pure: values in, values out, no file and no socket is opened. Whatever
// comes from outside is data of unknown intent here. It is parsed strictly,
// within bounds, and refused with the name of the part that is wrong; nothing
// in it decides what the host does.
package image

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	// The algorithms ValidDigest accepts must be linked in for go-digest.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
)

// Upper bounds of documents that are read whole.
const (
	MaxManifest = 4 << 20
	MaxConfig   = 4 << 20
	// MaxLayout bounds the index.json of a layout, which lists every image of a
	// store: about forty thousand.
	MaxLayout = 16 << 20
)

// MaxLayerSize bounds what a manifest may claim for one layer. It is far above
// any real layer and far below where sums overflow.
const MaxLayerSize = 1 << 40

// MaxLayers bounds the layers of one image.
const MaxLayers = 512

// ValidDigest accepts sha256 and sha512 in lower-case hexadecimal of the full
// length and nothing else. A digest is part of paths and URLs, so this comes
// before any such use (CVE-2024-3727).
func ValidDigest(d digest.Digest) error {
	algorithm, encoded, found := strings.Cut(string(d), ":")
	if !found {
		return fmt.Errorf("digest %s: no algorithm; it must look like sha256:<64 hexadecimal digits>", quote(string(d)))
	}
	length := map[string]int{"sha256": 64, "sha512": 128}[algorithm]
	if length == 0 {
		return fmt.Errorf("digest %s: algorithm %s is not supported; sha256 and sha512 are", quote(string(d)), quote(algorithm))
	}
	if len(encoded) != length {
		return fmt.Errorf("digest %s: %d characters after the colon; %s has %d hexadecimal digits",
			quote(string(d)), len(encoded), algorithm, length)
	}
	if strings.ToLower(encoded) != encoded {
		return fmt.Errorf("digest %s: hexadecimal digits must be lower-case", quote(string(d)))
	}
	if _, err := hex.DecodeString(encoded); err != nil {
		return fmt.Errorf("digest %s: not hexadecimal", quote(string(d)))
	}
	return nil
}

// quote shows foreign text in an error: escaped, so that it cannot move the
// cursor of a terminal, and cut, so that it cannot flood one.
func quote(s string) string {
	const most = 120
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
