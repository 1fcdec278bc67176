// SPDX-License-Identifier: Apache-2.0

// Package userns knows which ids of the host a user namespace may have: those
// that subuid(5) and subgid(5) give somebody, and what is left of them.
package userns

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Range is ids from Start on. A Size of 0 is none.
type Range struct{ Start, Size uint32 }

// End is the id behind the last.
func (r Range) End() uint64 { return uint64(r.Start) + uint64(r.Size) }

// String writes it as the kernel's tables do.
func (r Range) String() string { return fmt.Sprintf("%d:%d", r.Start, r.Size) }

// maxSubIDs bounds what is read of such a file, in lines.
const maxSubIDs = 1 << 16

// Entry is one line of subuid(5) or subgid(5).
type Entry struct {
	Owner string // a user's name or number
	Range
}

// ParseSubIDs reads lines of OWNER:START:COUNT. As newuidmap(1) does, it passes
// over lines that are none.
func ParseSubIDs(b []byte) []Entry {
	var out []Entry
	for line := range bytes.Lines(b) {
		fields := bytes.Split(bytes.TrimSpace(line), []byte(":"))
		if len(fields) != 3 || len(fields[0]) == 0 || len(out) == maxSubIDs {
			continue
		}
		start, err1 := strconv.ParseUint(string(fields[1]), 10, 32)
		size, err2 := strconv.ParseUint(string(fields[2]), 10, 32)
		if err1 != nil || err2 != nil || size == 0 || start+size > math.MaxUint32 {
			continue
		}
		out = append(out, Entry{string(fields[0]), Range{uint32(start), uint32(size)}})
	}
	return out
}

// Owned are the ranges of anybody in owners, sorted and merged.
func Owned(entries []Entry, owners ...string) []Range {
	var out []Range
	for _, e := range entries {
		if slices.Contains(owners, e.Owner) {
			out = append(out, e.Range)
		}
	}
	return merge(out)
}

// All are the ranges of everybody, sorted and merged.
func All(entries []Entry) []Range {
	out := make([]Range, 0, len(entries))
	for _, e := range entries {
		out = append(out, e.Range)
	}
	return merge(out)
}

func merge(in []Range) []Range {
	slices.SortFunc(in, func(a, b Range) int { return int(int64(a.Start) - int64(b.Start)) })
	var out []Range
	for _, r := range in {
		if n := len(out); n > 0 && uint64(r.Start) <= out[n-1].End() {
			out[n-1].Size = uint32(max(out[n-1].End(), r.End()) - uint64(out[n-1].Start))
			continue
		}
		out = append(out, r)
	}
	return out
}

// Both are the ids in a and in b. Both lists are sorted and merged.
func Both(a, b []Range) []Range {
	var out []Range
	for _, x := range a {
		for _, y := range b {
			start, end := max(x.Start, y.Start), min(x.End(), y.End())
			if uint64(start) < end {
				out = append(out, Range{start, uint32(end - uint64(start))})
			}
		}
	}
	return out
}

// Without are the ids of a that are not in taken, which may overlap and need
// not be sorted.
func Without(a, taken []Range) []Range {
	taken = merge(slices.Clone(taken))
	var out []Range
	for _, r := range a {
		at := uint64(r.Start)
		for _, t := range taken {
			if t.End() <= at || uint64(t.Start) >= r.End() {
				continue
			}
			if uint64(t.Start) > at {
				out = append(out, Range{uint32(at), uint32(uint64(t.Start) - at)})
			}
			at = t.End()
		}
		if at < r.End() {
			out = append(out, Range{uint32(at), uint32(r.End() - at)})
		}
	}
	return out
}

// First is the first range of a size in free.
func First(free []Range, size uint32) (Range, bool) {
	for _, r := range free {
		if r.Size >= size {
			return Range{r.Start, size}, true
		}
	}
	return Range{}, false
}
