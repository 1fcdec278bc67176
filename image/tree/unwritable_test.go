// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A child that is executing has a copy of the writer for a moment: that is
// waited out. One that stays is somebody who could change what is sealed.
func TestUnwritable(t *testing.T) {
	for _, c := range []struct {
		name  string
		holds time.Duration
		fails bool
	}{
		{"nobody", 0, false},
		{"for a moment", 50 * time.Millisecond, false},
		{"for good", time.Hour, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			name := filepath.Join(t.TempDir(), "file")
			writer, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			time.AfterFunc(c.holds, func() { _ = writer.Close() })
			if c.holds == 0 {
				_ = writer.Close()
			}
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := unwritable(f); (err != nil) != c.fails {
				t.Errorf("unwritable: %v", err)
			}
		})
	}
}
