// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"reflect"
	"testing"
)

type leaf struct {
	Name string
	N    int64
	U    uint8
}

type node struct {
	On    bool
	Leaf  *leaf
	Many  []leaf
	Words []string
	Inner leaf
}

func sample() node {
	return node{
		On: true, Leaf: &leaf{"a", -1 << 40, 255}, Many: []leaf{{N: 1}, {}},
		Words: []string{"", "zwei"}, Inner: leaf{Name: "x"},
	}
}

func TestRoundTripKeepsTheValueAndWhatFollows(t *testing.T) {
	in := sample()
	b := append(Encode(nil, &in), "rest"...)
	var out node
	rest, err := Decode(b, &out)
	if err != nil || string(rest) != "rest" {
		t.Fatalf("Decode: rest %q, %v", rest, err)
	}
	if !reflect.DeepEqual(in, out) {
		t.Errorf("got %+v, want %+v", out, in)
	}
}

func TestAnotherTypeIsAnotherRelease(t *testing.T) {
	in := sample()
	var out leaf
	if _, err := Decode(Encode(nil, &in), &out); !errors.Is(err, ErrRelease) {
		t.Errorf("got %v, want ErrRelease", err)
	}
}

func TestEveryTruncationIsRefused(t *testing.T) {
	in := sample()
	b := Encode(nil, &in)
	for n := range b {
		var out node
		if _, err := Decode(b[:n], &out); err == nil {
			t.Errorf("%d of %d bytes were accepted", n, len(b))
		}
	}
}

func FuzzDecode(f *testing.F) {
	in := sample()
	f.Add(Encode(nil, &in))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out node
		if _, err := Decode(b, &out); err != nil {
			return
		}
		again := Encode(nil, &out)
		var back node
		if _, err := Decode(again, &back); err != nil {
			t.Fatalf("own encoding refused: %v", err)
		}
	})
}
