// SPDX-License-Identifier: Apache-2.0

package userns_test

import (
	"slices"
	"testing"

	"github.com/gantryrun/gantry/userns"
)

func r(start, size uint32) userns.Range { return userns.Range{Start: start, Size: size} }

func TestParseSubIDs(t *testing.T) {
	got := userns.ParseSubIDs([]byte("containers:100000:65536\n# a comment\n\n1000:4294901760:65535\n" +
		"broken:1\nzero:1:0\nbeyond:4294967295:2\nminus:-1:5\n:1:1\nlast:7:1"))
	want := []userns.Entry{
		{Owner: "containers", Range: r(100000, 65536)},
		{Owner: "1000", Range: r(4294901760, 65535)},
		{Owner: "last", Range: r(7, 1)},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRanges(t *testing.T) {
	entries := []userns.Entry{{"a", r(200, 10)}, {"b", r(205, 10)}, {"a", r(100, 50)}, {"a", r(150, 5)}}
	for _, c := range []struct {
		what      string
		got, want []userns.Range
	}{
		{"owned: sorted and merged", userns.Owned(entries, "a", "x"), []userns.Range{r(100, 55), r(200, 10)}},
		{"owned by nobody", userns.Owned(entries, "c"), nil},
		{"all", userns.All(entries), []userns.Range{r(100, 55), r(200, 15)}},
		{"both", userns.Both([]userns.Range{r(0, 10), r(20, 10)}, []userns.Range{r(5, 20)}), []userns.Range{r(5, 5), r(20, 5)}},
		{"both, apart", userns.Both([]userns.Range{r(0, 10)}, []userns.Range{r(10, 10)}), nil},
		{"without the middle", userns.Without([]userns.Range{r(0, 30)}, []userns.Range{r(10, 10)}), []userns.Range{r(0, 10), r(20, 10)}},
		{"without overlapping ones, unsorted", userns.Without([]userns.Range{r(0, 30)}, []userns.Range{r(15, 10), r(0, 20)}), []userns.Range{r(25, 5)}},
		{"without everything", userns.Without([]userns.Range{r(5, 5), r(20, 1)}, []userns.Range{r(0, 100)}), nil},
		{"without what is elsewhere", userns.Without([]userns.Range{r(5, 5)}, []userns.Range{r(0, 5), r(10, 5)}), []userns.Range{r(5, 5)}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
}

func TestFirst(t *testing.T) {
	free := []userns.Range{r(0, 10), r(100, 65536)}
	if got, ok := userns.First(free, 11); !ok || got != r(100, 11) {
		t.Errorf("got %v %v", got, ok)
	}
	if _, ok := userns.First(free, 65537); ok {
		t.Error("found what is not there")
	}
}

// FuzzParseSubIDs: whatever the file holds, what is left of a range is of it,
// and disjoint from what was taken.
func FuzzParseSubIDs(f *testing.F) {
	f.Add([]byte("a:1:5\nb:3:9\n"))
	f.Add([]byte("a:4294967294:1\n1:0:4294967295"))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries := userns.ParseSubIDs(b)
		all := userns.All(entries)
		whole := []userns.Range{r(1000, 1_000_000)}
		left := userns.Without(whole, all)
		if n := userns.Both(left, all); n != nil {
			t.Errorf("%v is taken and left", n)
		}
		var count uint64
		for _, r := range append(left, userns.Both(all, whole)...) {
			count += uint64(r.Size)
		}
		if count != 1_000_000 {
			t.Errorf("%d ids of 1000000 are left or taken", count)
		}
	})
}
