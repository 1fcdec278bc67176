// SPDX-License-Identifier: Apache-2.0

package podlog

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func chainOf(t *testing.T, dir string) *chain {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := &chain{dir: d, name: "log"}
	t.Cleanup(c.close)
	if err := c.open(); err != nil {
		t.Fatal(err)
	}
	return c
}

func logLine(n int) string { return fmt.Sprintf("2026-01-01T00:00:00Z stdout F %d\n", n) }

// A writer was killed, or is, while it moves the files up: a number is missing,
// and what lies behind it belongs to the log.
func TestChainGoesOnBehindAMissingNumber(t *testing.T) {
	for hole := range 4 {
		dir := t.TempDir()
		for n := range 4 {
			if n == hole {
				continue
			}
			name := "log"
			if n > 0 {
				name = fmt.Sprint("log.", n)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(logLine(9-n)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		if err := chainOf(t, dir).drain(&printer{out: &out, midLine: map[string]bool{}, o: Options{}}); err != nil {
			t.Error(err)
		}
		want := strings.ReplaceAll("6\n7\n8\n9\n", fmt.Sprintln(9-hole), "")
		if out.String() != want {
			t.Errorf("without the %d. it reads %q, want %q", hole, out.String(), want)
		}
	}
}

// A reader that goes along misses nothing while three hundred files move up, the
// oldest first, for every ten lines.
func TestChainLosesNothingWhileFilesMoveUp(t *testing.T) {
	const lines, each, keep = 3000, 10, 400
	dir := t.TempDir()
	name := func(n int) string {
		if n == 0 {
			return filepath.Join(dir, "log")
		}
		return filepath.Join(dir, fmt.Sprint("log.", n))
	}
	begin := func() *os.File {
		f, err := os.OpenFile(name(0), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			t.Error(err)
		}
		return f
	}
	f := begin()
	written := make(chan struct{})
	go func() {
		defer close(written)
		for n := range lines {
			if n > 0 && n%each == 0 {
				for i := keep - 1; i > 0; i-- {
					_ = os.Rename(name(i-1), name(i))
				}
				_ = f.Close()
				f = begin()
			}
			_, _ = f.WriteString(logLine(n))
		}
		_ = f.Close()
	}()
	var out, want bytes.Buffer
	for n := range lines {
		fmt.Fprintln(&want, n)
	}
	c := chainOf(t, dir)
	p := &printer{out: &out, midLine: map[string]bool{}, o: Options{}}
	for ended := false; !ended; {
		select {
		case <-written:
			ended = true
		default:
		}
		if err := c.drain(p); err != nil {
			t.Fatal(err)
		}
	}
	if out.String() != want.String() {
		t.Errorf("%d lines were read of %d", strings.Count(out.String(), "\n"), lines)
	}
}

// A line that came in pieces is one line, also at the end, where it is not
// complete yet.
func TestTailCountsLinesNotPieces(t *testing.T) {
	const stamp = "2026-01-01T00:00:00Z stdout "
	whole := stamp + "F one\n" + stamp + "P tw\n" + stamp + "P o\n" + stamp + "F \n"
	for _, c := range []struct {
		log  string
		n    int
		want string
	}{
		{"", 1, ""},
		{whole, 0, ""},
		{whole, 1, "two\n"},
		{whole, 2, "one\ntwo\n"},
		{whole, 3, "one\ntwo\n"},
		{whole + stamp + "P thr\n" + stamp + "P ee\n", 1, "three"},
		{whole + stamp + "P thr\n" + stamp + "P ee\n", 2, "two\nthree"},
		{strings.Repeat(stamp+"P x\n", 5000) + stamp + "F y\n", 1, strings.Repeat("x", 5000) + "y\n"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "log"), []byte(c.log), 0o600); err != nil {
			t.Fatal(err)
		}
		read := chainOf(t, dir)
		if err := read.tail(c.n); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := read.drain(&printer{out: &out, midLine: map[string]bool{}, o: Options{}}); err != nil {
			t.Error(err)
		}
		if out.String() != c.want {
			t.Errorf("the last %d of %.80q: %.80q, want %.80q", c.n, c.log, out.String(), c.want)
		}
	}
}
