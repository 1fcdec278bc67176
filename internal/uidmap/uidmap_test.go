// SPDX-License-Identifier: Apache-2.0

package uidmap

import "testing"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text       string
		host, sole bool
		last       uint32
	}{
		{"         0          0 4294967295\n", true, false, 4294967294},
		{"0 1000 1\n", false, true, 0},
		{"0 1000 1\n1 100000 65536\n", false, false, 65536},
		{"0 100000 65536\n", false, false, 65535},
		{"what\n", true, false, 0},
	} {
		ids := Parse(c.text)
		if ids.Host() != c.host || ids.Sole() != c.sole || !c.host && ids.Last() != c.last {
			t.Errorf("%q: %+v", c.text, ids)
		}
	}
}

// Files have the same owners for those of one key.
func TestKey(t *testing.T) {
	seen := map[string]string{"": "0 0 4294967295\n", "sole": "0 1000 1\n"}
	for _, text := range []string{"0 0 4294967295\n", "0 1000 1\n", "0 1000 1\n1 100000 65536\n", "0 1000 1\n1 200000 65536\n", "0 1000 1\n1 100000 1000\n"} {
		key := Parse(text).Key()
		if other, ok := seen[key]; ok && other != text {
			t.Errorf("%q and %q have the key %q", text, other, key)
		}
		seen[key] = text
	}
	if seen[""] != "0 0 4294967295\n" || len(seen) != 5 {
		t.Errorf("keys: %q", seen)
	}
}
