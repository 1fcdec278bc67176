// SPDX-License-Identifier: Apache-2.0

// Package uidmap tells which user ids exist in the user namespace we are in.
package uidmap

import (
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"strconv"
	"strings"
)

// IDs are the ids of a user namespace.
type IDs struct {
	last  uint32
	count uint64
	whole bool
	text  string
}

// Own are those of this process. What cannot be read is taken for the host's,
// where nothing but the kernel's own refusal limits an id.
func Own() IDs {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return IDs{whole: true}
	}
	ids := Parse(string(b))
	b, _ = os.ReadFile("/proc/self/gid_map")
	ids.text += string(b)
	return ids
}

// Parse reads a map as the kernel prints it.
func Parse(s string) IDs {
	ids := IDs{text: s}
	for line := range strings.Lines(s) {
		var inside, outside, size uint32
		if _, err := fmt.Sscan(line, &inside, &outside, &size); err != nil || size == 0 {
			return IDs{whole: true}
		}
		ids.whole = ids.whole || inside == 0 && outside == 0 && size == math.MaxUint32
		ids.last = max(ids.last, inside+size-1)
		ids.count += uint64(size)
	}
	return ids
}

// Host tells that all ids are there, as they are for the host.
func (i IDs) Host() bool { return i.whole }

// Sole tells that there is one id and no other.
func (i IDs) Sole() bool { return !i.whole && i.count == 1 }

// Key names the ids: files that one process made are of the same users for every
// other whose ids have the same key. It is empty for the host's.
func (i IDs) Key() string {
	switch {
	case i.whole:
		return ""
	case i.Sole():
		return "sole" // all of it is its maker's
	}
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(i.text))
	return strconv.FormatUint(sum.Sum64(), 16)
}

// Count is how many there are.
func (i IDs) Count() uint64 { return i.count }

// Last is the highest.
func (i IDs) Last() uint32 { return i.last }
