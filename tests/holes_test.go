// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The page of holes that others had names the tests that there are: each one
// that it names exists where it says, and each that is named after a record is
// on it, with its record.
func TestHolesOfOthersAreTried(t *testing.T) {
	const page = "docs/devel/escapes.md"
	b, err := os.ReadFile(filepath.Join("..", page))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	there := testsOfRecords(t)
	for _, name := range there {
		records := regexp.MustCompile(`_(\d{4})_(\d{3,7})`).FindAllStringSubmatch(name, -1)
		if !regexp.MustCompile("`" + prefixes(name) + "_…`").MatchString(text) {
			t.Errorf("%s does not name %s", page, name)
		}
		for _, r := range records {
			if !strings.Contains(text, r[1]+"-"+r[2]) {
				t.Errorf("%s does not have CVE-%s-%s, which %s is about", page, r[1], r[2], name)
			}
		}
	}
	for _, m := range regexp.MustCompile("`(TestCVE_[0-9_]+)_…`").FindAllStringSubmatch(text, -1) {
		if !slices.ContainsFunc(there, func(name string) bool { return strings.HasPrefix(name, m[1]+"_") }) {
			t.Errorf("%s names %s_…, which there is not", page, m[1])
		}
	}
	for _, m := range regexp.MustCompile("`([a-z-]+\\.txtar)`").FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join("script/testdata", m[1])); err != nil {
			t.Errorf("%s names a script that there is not: %v", page, err)
		}
	}
}

// prefixes is a pattern of the beginnings of a test's name that end with a
// record.
func prefixes(name string) string {
	parts := strings.Split(regexp.MustCompile(`^TestCVE_\d{4}_\d+(_\d+)*`).FindString(name), "_")
	pattern := strings.Join(parts[:3], "_")
	for _, p := range parts[3:] {
		pattern += "(_" + p
	}
	return pattern + strings.Repeat(")?", len(parts)-3)
}

// testsOfRecords are the names of tests that begin with a record's.
func testsOfRecords(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if name, ok := strings.CutPrefix(lines.Text(), "func TestCVE"); ok {
				name, _, _ = strings.Cut(name, "(")
				all = append(all, "TestCVE"+name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
