// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"crypto/rand"
	"encoding/hex"
)

// NewUUID returns a random UUID, version 4 of RFC 9562.
func NewUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// ValidUUID says whether s has the form NewUUID gives, so that it is safe as
// a file name.
func ValidUUID(s string) bool { return len(s) == 36 && uuidPrefix(s) }

// uuidPrefix says whether s can be the beginning of a UUID.
func uuidPrefix(s string) bool {
	if s == "" || len(s) > 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Short is what people see of a UUID where space is short.
func Short(uuid string) string {
	if len(uuid) < 8 {
		return uuid
	}
	return uuid[:8]
}
