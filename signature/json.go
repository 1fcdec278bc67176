// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

const maxDepth = 32

// object is a JSON object whose members are looked up by their exact names.
// encoding/json matches names without regard to case and lets the last of two
// equal names win; both let two readers of one signed text see two things, so
// foreign JSON is read here as a tree instead of into structs.
type object map[string]any

// parseObject reads exactly one JSON object: no duplicate names at any level,
// no trailing data, bounded depth, valid UTF-8.
func parseObject(data []byte) (object, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := parseValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("data after the JSON object")
	}
	o, ok := v.(object)
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	return o, nil
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	t, err := dec.Token()
	if err == io.EOF {
		return nil, io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		return parseMembers(dec, depth)
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := parseValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.Token()
		return list, err
	}
	return t, nil
}

func parseMembers(dec *json.Decoder, depth int) (any, error) {
	o := object{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if !ok {
			return nil, fmt.Errorf("member name %v is not a string", t)
		}
		if _, twice := o[name]; twice {
			return nil, fmt.Errorf("member %q appears twice", clip(name))
		}
		if o[name], err = parseValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	return o, err
}

// only refuses members that are not among names.
func (o object) only(names ...string) error {
next:
	for have := range o {
		for _, n := range names {
			if have == n {
				continue next
			}
		}
		return fmt.Errorf("unknown member %q", clip(have))
	}
	return nil
}

func (o object) str(name string) (string, error) {
	s, ok := o[name].(string)
	if !ok {
		return "", fmt.Errorf("member %q is missing or not a string", name)
	}
	return s, nil
}

func (o object) object(name string) (object, error) {
	m, ok := o[name].(object)
	if !ok {
		return nil, fmt.Errorf("member %q is missing or not an object", name)
	}
	return m, nil
}

func (o object) list(name string) ([]any, error) {
	l, ok := o[name].([]any)
	if !ok {
		return nil, fmt.Errorf("member %q is missing or not an array", name)
	}
	return l, nil
}

func (o object) bytes(name string) ([]byte, error) {
	s, err := o.str(name)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("member %q is not base64", name)
	}
	return b, nil
}

// has tells whether a member is there with anything in it.
func (o object) has(name string) bool {
	switch v := o[name].(type) {
	case nil:
		return false
	case []any:
		return len(v) > 0
	case object:
		return len(v) > 0
	}
	return true
}

// clip makes foreign text fit to be shown inside a message.
func clip(s string) string { return printable(s, 120) }

// printable makes text fit to be shown: one line of at most so many characters,
// none of which moves the cursor or hides others.
func printable(s string, most int) string {
	out := make([]rune, 0, min(most, len(s)))
	for _, r := range s {
		if len(out) == most {
			return string(out) + "…"
		}
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == utf8.RuneError || isFormat(r) {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}

// isFormat names the invisible characters that reorder or hide text on a
// terminal.
func isFormat(r rune) bool {
	return r == 0x061c || (r >= 0x200b && r <= 0x200f) || (r >= 0x2028 && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) || r == 0xfeff
}
