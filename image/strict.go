// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gantryrun/gantry/internal/jsonin"
)

// maxDepth and maxValues bound a document before encoding/json sees it.
const (
	maxDepth  = 32
	maxValues = 1 << 18
)

// shape says which members of an object are read into fields of ours, and what
// is below them. Members that are not in it are skipped unread.
//
// It exists because encoding/json takes "Layers" or "layerſ" for the field
// "layers" and lets the last of several win, while others take the first, or
// the exact one: one document, two meanings (CVE-2021-41190 and its kin). So a
// document is walked first, and any member that could be read in two ways is
// refused.
type shape struct {
	members map[string]*shape // nil: not an object of ours
	each    *shape            // of an array's elements
}

// decodeStrict checks b against s and decodes it into v. It returns the names of
// the members of the document.
func decodeStrict(b []byte, most int, s *shape, v any) ([]string, error) {
	if len(b) > most {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(b), most)
	}
	if !utf8.Valid(b) {
		return nil, errors.New("not UTF-8")
	}
	w := walker{b: b, values: maxValues}
	if err := w.document(s); err != nil {
		return nil, err
	}
	if err := jsonin.Unmarshal(b, v); err != nil {
		return nil, fmt.Errorf("decode JSON: %w", err)
	}
	return w.top, nil
}

// walker reads JSON once from front to back. It is exact about structure and
// duplicate members; the syntax inside numbers and strings it leaves to
// encoding/json, which reads the same bytes after it.
type walker struct {
	b      []byte
	i      int
	values int
	path   []string
	top    []string
}

func (w *walker) document(s *shape) error {
	w.space()
	if w.peek() != '{' {
		return errors.New("not a JSON object")
	}
	if err := w.value(s); err != nil {
		return err
	}
	w.space()
	if w.i != len(w.b) {
		return fmt.Errorf("data after the end of the document at byte %d", w.i)
	}
	return nil
}

func (w *walker) value(s *shape) error {
	if w.values--; w.values < 0 {
		return fmt.Errorf("more than %d JSON values", maxValues)
	}
	w.space()
	switch w.peek() {
	case '{':
		return w.object(s)
	case '[':
		return w.array(s)
	case '"':
		_, err := w.text()
		return err
	case 0:
		return w.syntax("a value")
	default:
		return w.word()
	}
}

func (w *walker) object(s *shape) error {
	if err := w.enter(); err != nil {
		return err
	}
	var few [16]string
	seen := members{list: few[:0]}
	for first := true; ; first = false {
		if done, err := w.next('}', first); done || err != nil {
			return err
		}
		if w.peek() != '"' {
			return w.syntax("a member name")
		}
		name, err := w.text()
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return fmt.Errorf("%s: member %s appears twice", w.where(), quote(name))
		}
		below, err := s.member(name)
		if err != nil {
			return fmt.Errorf("%s: %w", w.where(), err)
		}
		if w.space(); w.peek() != ':' {
			return w.syntax("a colon")
		}
		w.i++
		if len(w.path) == 0 {
			w.top = append(w.top, name)
		}
		w.path = append(w.path, name)
		if err := w.value(below); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
}

func (w *walker) array(s *shape) error {
	if err := w.enter(); err != nil {
		return err
	}
	var below *shape
	if s != nil {
		below = s.each
	}
	for n := 0; ; n++ {
		if done, err := w.next(']', n == 0); done || err != nil {
			return err
		}
		w.path = append(w.path, "")
		if s != nil {
			w.path[len(w.path)-1] = "[" + strconv.Itoa(n) + "]"
		}
		if err := w.value(below); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
}

// enter steps over the opening bracket.
func (w *walker) enter() error {
	if len(w.path) >= maxDepth {
		return fmt.Errorf("%s: nested deeper than %d", w.where(), maxDepth)
	}
	w.i++
	return nil
}

// next steps to the next element, or over the closing bracket.
func (w *walker) next(closing byte, first bool) (done bool, err error) {
	w.space()
	if w.peek() == closing {
		w.i++
		return true, nil
	}
	if first {
		return false, nil
	}
	if w.peek() != ',' {
		return false, w.syntax("a comma or " + strconv.QuoteRune(rune(closing)))
	}
	w.i++
	if w.space(); w.peek() == closing {
		return false, w.syntax("a value after the comma")
	}
	return false, nil
}

// text reads a string. Only one with escapes costs a decoding.
func (w *walker) text() (string, error) {
	start := w.i
	plain := true
	for w.i++; w.i < len(w.b); w.i++ {
		switch c := w.b[w.i]; {
		case c == '\\':
			plain = false
			w.i++
		case c == '"':
			w.i++
			if plain {
				return string(w.b[start+1 : w.i-1]), nil
			}
			var s string
			if err := jsonin.Unmarshal(w.b[start:w.i], &s); err != nil {
				return "", w.syntax("a string")
			}
			return s, nil
		case c < 0x20:
			return "", w.syntax("the rest of a string")
		}
	}
	return "", w.syntax("the end of a string")
}

// word steps over a number, true, false or null.
func (w *walker) word() error {
	start := w.i
	for w.i < len(w.b) && isWordByte(w.b[w.i]) {
		w.i++
	}
	if w.i == start {
		return w.syntax("a value")
	}
	return nil
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'E'
}

func (w *walker) space() {
	for w.i < len(w.b) {
		switch w.b[w.i] {
		case ' ', '\t', '\n', '\r':
			w.i++
		default:
			return
		}
	}
}

func (w *walker) peek() byte {
	if w.i < len(w.b) {
		return w.b[w.i]
	}
	return 0
}

func (w *walker) syntax(wanted string) error {
	return fmt.Errorf("JSON: %s missing at byte %d (in %s)", wanted, w.i, w.where())
}

// where names the place as people write it: layers[2].digest.
func (w *walker) where() string {
	var b strings.Builder
	for _, p := range w.path {
		if !strings.HasPrefix(p, "[") && b.Len() > 0 {
			b.WriteByte('.')
		}
		if len(p) > 40 {
			p = p[:40] + "…"
		}
		q := strconv.QuoteToASCII(p)
		b.WriteString(q[1 : len(q)-1])
	}
	if b.Len() == 0 {
		return "document"
	}
	return b.String()
}

// member returns what is below a member, or refuses a name that encoding/json
// would take for another one.
func (s *shape) member(name string) (*shape, error) {
	if s == nil || s.members == nil {
		return nil, nil
	}
	if below, ok := s.members[name]; ok {
		return below, nil
	}
	for known := range s.members {
		if strings.EqualFold(known, name) {
			return nil, fmt.Errorf("member %s is not %s, and could be taken for it", quote(name), quote(known))
		}
	}
	return nil, nil
}

// members finds duplicates: by looking through a short list, which allocates
// nothing, and by a map when there are many.
type members struct {
	list []string
	set  map[string]bool
}

func (m *members) add(name string) bool {
	if m.set == nil && len(m.list) < cap(m.list) {
		for _, have := range m.list {
			if have == name {
				return false
			}
		}
		m.list = append(m.list, name)
		return true
	}
	if m.set == nil {
		m.set = make(map[string]bool, 2*len(m.list))
		for _, have := range m.list {
			m.set[have] = true
		}
	}
	if m.set[name] {
		return false
	}
	m.set[name] = true
	return true
}
