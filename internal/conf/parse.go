// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Parse reads the INI form of systemd units: [Section], Key=Value, comments
// starting a line with # or ;. Stricter than systemd on purpose: no
// continuation lines, no control characters, nothing before the first section.
// It reads on after an error, and returns everything it understood together
// with the first error.
func Parse(data []byte) ([]Section, error) {
	var p parser
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8 text")
	}
	lines := strings.Split(string(data), "\n")
	if len(lines) > maxLines {
		return nil, fmt.Errorf("more than %d lines", maxLines)
	}
	for i, line := range lines {
		if err := p.line(line, i+1); err != nil && p.err == nil {
			p.err = fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return p.sections, p.err
}

type parser struct {
	sections []Section
	err      error
}

func (p *parser) line(line string, n int) error {
	if strings.ContainsFunc(line, func(r rune) bool { return r != '\t' && (unicode.IsControl(r) || r == '\uFEFF') }) {
		return errors.New("control characters (a file saved with Windows line ends?)")
	}
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' || line[0] == ';' {
		return nil
	}
	if line[0] == '[' {
		name, ok := strings.CutSuffix(line[1:], "]")
		p.sections = append(p.sections, Section{Name: name, Line: n})
		if !ok || name == "" || strings.ContainsAny(name, "[]") {
			return fmt.Errorf("%q is not a section header", line)
		}
		return nil
	}
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return fmt.Errorf("%q is neither Key=Value nor a [Section]", line)
	}
	if len(p.sections) == 0 {
		return fmt.Errorf("%q stands before the first [Section]", line)
	}
	kv := KeyValue{Key: strings.TrimSpace(key), Value: strings.TrimSpace(value), Line: n}
	last := &p.sections[len(p.sections)-1]
	last.Keys = append(last.Keys, kv)
	if kv.Key == "" {
		return fmt.Errorf("%q has no key", line)
	}
	if strings.HasSuffix(kv.Value, "\\") {
		return fmt.Errorf("%s= ends in a backslash; continuation lines are not supported", kv.Key)
	}
	return nil
}
