// SPDX-License-Identifier: Apache-2.0

package cdi

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// maxDepth bounds nesting.
const maxDepth = 32

// toJSON turns YAML into JSON: block and flow collections, plain and quoted
// scalars, comments; all that generators of CDI specifications write. The rest
// of YAML (anchors, tags, block scalars, scalars over several lines, more than
// one document) is refused by line. A parser of all of YAML costs every launch
// its start, and none of the rest belongs into such a file.
func toJSON(b []byte) ([]byte, error) {
	y := &yaml{}
	for n, text := range strings.Split(string(b), "\n") {
		if err := y.line(n+1, strings.TrimSuffix(text, "\r")); err != nil {
			return nil, err
		}
	}
	if len(y.lines) == 0 {
		return []byte("null"), nil
	}
	v, err := y.block(y.lines[0].indent, 0)
	if err == nil && y.at < len(y.lines) {
		err = y.lines[y.at].wrong("its indentation fits nothing above")
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// line is one that holds something, without its indentation and comment.
type line struct {
	number, indent int
	text           string
}

func (l line) wrong(format string, args ...any) error {
	return fmt.Errorf("line %d: %s", l.number, fmt.Sprintf(format, args...))
}

type yaml struct {
	lines []line
	at    int
}

func (y *yaml) line(n int, text string) error {
	rest := strings.TrimLeft(text, " ")
	l := line{n, len(text) - len(rest), strings.TrimRight(withoutComment(rest), " \t")}
	switch {
	case l.text == "":
		return nil
	case l.text[0] == '\t':
		return l.wrong("a tab indents it")
	case l.indent == 0 && l.text == "---" && len(y.lines) == 0:
		return nil
	case l.indent == 0 && (l.text == "---" || l.text == "..." || l.text[0] == '%'):
		return l.wrong("%s: one document is read", l.text)
	}
	y.lines = append(y.lines, l)
	return nil
}

// withoutComment cuts at a # that begins the line or follows a space, outside
// of quotes.
func withoutComment(s string) string {
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0 && c == '\\' && quote == '"':
			i++
		case quote != 0 && c == '\'' && quote == c && i+1 < len(s) && s[i+1] == c:
			i++ // a quote, twice
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case (c == '"' || c == '\'') && (i == 0 || strings.IndexByte(" [{,:-", s[i-1]) >= 0):
			quote = c
		case c == '#' && (i == 0 || s[i-1] == ' ' || s[i-1] == '\t'):
			return s[:i]
		}
	}
	return s
}

// block reads the collection whose lines have an indentation.
func (y *yaml) block(indent, depth int) (any, error) {
	l := y.lines[y.at]
	switch {
	case depth > maxDepth:
		return nil, l.wrong("it is nested too deep")
	case l.text == "-" || strings.HasPrefix(l.text, "- "):
		return y.sequence(indent, depth)
	case keyEnd(l.text) >= 0:
		return y.mapping(indent, depth)
	}
	y.at++
	return scalar(l, l.text)
}

func (y *yaml) sequence(indent, depth int) (any, error) {
	out := []any{}
	for y.at < len(y.lines) && y.lines[y.at].indent == indent {
		l := y.lines[y.at]
		if l.text != "-" && !strings.HasPrefix(l.text, "- ") {
			break
		}
		v, err := y.item(l, indent, depth)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// item reads what follows a dash: on its line, where the column of what
// follows is the indentation of the lines below, or on those.
func (y *yaml) item(l line, indent, depth int) (any, error) {
	rest := strings.TrimLeft(l.text[1:], " ")
	if rest == "" {
		y.at++
		return y.below(l, indent+1, depth)
	}
	y.lines[y.at] = line{l.number, indent + len(l.text) - len(rest), rest}
	return y.block(y.lines[y.at].indent, depth+1)
}

func (y *yaml) mapping(indent, depth int) (any, error) {
	out := map[string]any{}
	for y.at < len(y.lines) && y.lines[y.at].indent == indent {
		l := y.lines[y.at]
		end := keyEnd(l.text)
		if end < 0 {
			return nil, l.wrong("it is no key: write NAME: VALUE")
		}
		key, err := scalar(l, strings.TrimRight(l.text[:end], " "))
		if err != nil {
			return nil, err
		}
		name := fmt.Sprint(key)
		if s, ok := key.(string); ok {
			name = s
		}
		if _, twice := out[name]; twice {
			return nil, l.wrong("%s is given twice", name)
		}
		y.at++
		if rest := strings.TrimSpace(l.text[end+1:]); rest != "" {
			out[name], err = scalar(l, rest)
		} else {
			out[name], err = y.below(l, indent, depth)
		}
		if err != nil {
			return nil, err
		}
	}
	if y.at < len(y.lines) && y.lines[y.at].indent > indent {
		return nil, y.lines[y.at].wrong("its indentation fits nothing above")
	}
	return out, nil
}

// below reads what is nested under a line: null when nothing is. A sequence
// under a key need not be indented.
func (y *yaml) below(l line, least, depth int) (any, error) {
	if y.at == len(y.lines) {
		return nil, nil
	}
	next := y.lines[y.at]
	dash := next.text == "-" || strings.HasPrefix(next.text, "- ")
	if next.indent < least || next.indent == least && (!dash || next.indent <= l.indent && strings.HasPrefix(l.text, "-")) {
		return nil, nil
	}
	return y.block(next.indent, depth+1)
}

// keyEnd is where the colon after a key is, or -1.
func keyEnd(s string) int {
	i := 0
	if s[0] == '"' || s[0] == '\'' {
		if i = quoteEnd(s); i < 0 {
			return -1
		}
	} else if strings.IndexByte("[{", s[0]) >= 0 {
		return -1
	}
	for ; i < len(s); i++ {
		if s[i] == ':' && (i+1 == len(s) || s[i+1] == ' ' || s[i+1] == '\t') {
			return i
		}
	}
	return -1
}

// quoteEnd is where what follows a quoted scalar begins, or -1.
func quoteEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && s[0] == '"':
			i++
		case s[i] == s[0] && s[0] == '\'' && i+1 < len(s) && s[i+1] == '\'':
			i++
		case s[i] == s[0]:
			return i + 1
		}
	}
	return -1
}

// scalar reads a value that is on one line: a flow collection too.
func scalar(l line, s string) (any, error) {
	f := &flow{l: l, s: s}
	v, err := f.value(0)
	if err == nil && strings.TrimSpace(f.s) != "" {
		err = l.wrong("%q follows a value", f.s)
	}
	return v, err
}

// flow reads values one after the other.
type flow struct {
	l line
	s string
}

func (f *flow) skip() { f.s = strings.TrimLeft(f.s, " \t") }

func (f *flow) value(depth int) (any, error) {
	f.skip()
	if f.s == "" || depth > maxDepth {
		return nil, f.l.wrong("a value is missing, or nested too deep")
	}
	switch f.s[0] {
	case '[':
		return f.list(depth)
	case '{':
		return f.object(depth)
	case '"', '\'':
		return f.quoted()
	case '&', '*', '!', '|', '>', '?', '@', '`', '%', ']', '}', ',':
		return nil, f.l.wrong("%q: values that begin with %c are not read", f.s, f.s[0])
	}
	end := len(f.s)
	if depth > 0 {
		if i := strings.IndexAny(f.s, ",]}"); i >= 0 {
			end = i
		}
		if i := strings.Index(f.s[:end], ": "); i >= 0 {
			end = i
		}
	} else if strings.Contains(f.s, ": ") {
		return nil, f.l.wrong("%q: a value with a colon needs quotes", f.s)
	}
	text := strings.TrimRight(f.s[:end], " \t")
	f.s = f.s[end:]
	return plain(text), nil
}

func (f *flow) list(depth int) (any, error) {
	out := []any{}
	f.s = f.s[1:]
	for {
		if f.skip(); strings.HasPrefix(f.s, "]") {
			f.s = f.s[1:]
			return out, nil
		}
		v, err := f.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		if err := f.comma(']'); err != nil {
			return nil, err
		}
	}
}

func (f *flow) object(depth int) (any, error) {
	out := map[string]any{}
	f.s = f.s[1:]
	for {
		if f.skip(); strings.HasPrefix(f.s, "}") {
			f.s = f.s[1:]
			return out, nil
		}
		key, err := f.value(depth + 1)
		if err != nil {
			return nil, err
		}
		name, ok := key.(string)
		f.skip()
		if _, twice := out[name]; !ok || twice || !strings.HasPrefix(f.s, ":") {
			return nil, f.l.wrong("%v: it is no key, or given twice", key)
		}
		f.s = f.s[1:]
		if out[name], err = f.value(depth + 1); err != nil {
			return nil, err
		}
		if err := f.comma('}'); err != nil {
			return nil, err
		}
	}
}

// comma takes what separates values, and leaves what ends them.
func (f *flow) comma(end byte) error {
	f.skip()
	switch {
	case strings.HasPrefix(f.s, ","):
		f.s = f.s[1:]
		return nil
	case f.s != "" && f.s[0] == end:
		return nil
	}
	return f.l.wrong("%c is missing: a collection in brackets ends on its line", end)
}

func (f *flow) quoted() (any, error) {
	end := quoteEnd(f.s)
	if end < 0 {
		return nil, f.l.wrong("a quote is not closed on its line")
	}
	text := f.s[:end]
	f.s = f.s[end:]
	if text[0] == '\'' {
		return strings.ReplaceAll(text[1:len(text)-1], "''", "'"), nil
	}
	var s string
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return nil, f.l.wrong("%s: only escapes that JSON has are read", text)
	}
	return s, nil
}

// plain is the value of an unquoted scalar in YAML's core schema, whole
// numbers only.
func plain(s string) any {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && (s[0] != '0' || len(s) == 1) {
		return n
	}
	for prefix, base := range map[string]int{"0o": 8, "0x": 16} {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			if n, err := strconv.ParseUint(rest, base, 63); err == nil {
				return int64(n)
			}
		}
	}
	// YAML 1.1, which generators still have in mind for permissions.
	if len(s) > 1 && s[0] == '0' {
		if n, err := strconv.ParseUint(s[1:], 8, 63); err == nil {
			return int64(n)
		}
	}
	return s
}
