// SPDX-License-Identifier: Apache-2.0

// Package jsonin reads the JSON that encoding/json reads, for documents that
// are read once per process. Before encoding/json decodes the first struct it
// prepares an encoder for every type the struct could ever hold: for a bundle
// that is a hundred structs, and costs a launch most of a millisecond. This
// looks only at what the document has.
//
// What is rare (floats, interfaces, names in another case, repeated names) and whatever is wrong is left to encoding/json,
// from the beginning: its errors are the errors.
package jsonin

import (
	"encoding"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Unmarshal fills the value v points to, as json.Unmarshal does.
func Unmarshal(b []byte, v any) error {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() || !p.Elem().IsZero() {
		return json.Unmarshal(b, v)
	}
	d := decoder{b: b}
	if d.value(p.Elem(), 0) && d.peek() == 0 && d.at == len(b) {
		return nil
	}
	p.Elem().SetZero()
	return json.Unmarshal(b, v)
}

const maxDepth = 64

// decoder reads at a place of a document. Its methods return false for
// whatever they leave to encoding/json.
type decoder struct {
	b  []byte
	at int
}

// peek is the next byte that is not white space, 0 at the end.
func (d *decoder) peek() byte {
	for ; d.at < len(d.b); d.at++ {
		switch c := d.b[d.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// take goes past c if it is next.
func (d *decoder) take(c byte) bool {
	if d.peek() != c {
		return false
	}
	d.at++
	return true
}

func (d *decoder) word(w string) bool {
	if len(d.b)-d.at < len(w) || string(d.b[d.at:d.at+len(w)]) != w {
		return false
	}
	d.at += len(w)
	return true
}

func (d *decoder) value(v reflect.Value, depth int) bool {
	if depth > maxDepth {
		return false
	}
	c := d.peek()
	if c == 'n' {
		return v.Kind() != reflect.Interface && !decodesItself(v) && d.word("null") // v is zero
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem(), depth+1)
	}
	if decodesItself(v) {
		return d.own(v, depth)
	}
	switch v.Kind() {
	case reflect.Struct:
		return d.structure(v, depth)
	case reflect.Map:
		return d.mapping(v, depth)
	case reflect.Slice:
		return d.slice(v, depth)
	case reflect.String:
		s, ok := d.str()
		v.SetString(s)
		return ok
	case reflect.Bool:
		v.SetBool(c == 't')
		return d.word("true") || d.word("false")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(d.number(), 10, 64)
		v.SetInt(n)
		return err == nil && !v.OverflowInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(d.number(), 10, 64)
		v.SetUint(n)
		return err == nil && !v.OverflowUint(n)
	}
	return false
}

// decodesItself tells whether a value, which can be addressed, has a decoder
// of its own.
func decodesItself(v reflect.Value) bool {
	if v.Kind() == reflect.Pointer || v.Addr().NumMethod() == 0 {
		return false
	}
	switch v.Addr().Interface().(type) {
	case json.Unmarshaler, encoding.TextUnmarshaler:
		return true
	}
	return false
}

func (d *decoder) own(v reflect.Value, depth int) bool {
	u, ok := v.Addr().Interface().(json.Unmarshaler)
	if !ok {
		return false
	}
	from := d.at
	return d.skip(depth) && u.UnmarshalJSON(d.b[from:d.at]) == nil
}

// members goes through an object. each is given a name and reads its value.
func (d *decoder) members(each func(name string) bool) bool {
	if !d.take('{') {
		return false
	}
	if d.take('}') {
		return true
	}
	for {
		if d.peek() != '"' {
			return false
		}
		name, ok := d.str()
		if !ok || !d.take(':') || !each(name) {
			return false
		}
		if d.take('}') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

func (d *decoder) structure(v reflect.Value, depth int) bool {
	var seen []string
	return d.members(func(name string) bool {
		f, ok := field(v, name)
		if !ok || slices.Contains(seen, name) {
			return false
		}
		if !f.IsValid() {
			return d.skip(depth + 1)
		}
		seen = append(seen, name)
		return d.value(f, depth+1)
	})
}

// member is what a field of a struct is to JSON.
type member struct {
	name     string
	index    int
	embedded bool // its own fields are meant
	quoted   bool // a value inside a string
}

// memberTables has the members of each type that was met: asking reflect for
// the tags of each value anew took a sixth of the time of a list of pods.
var memberTables sync.Map

// members lists the fields of t that JSON knows. It does not know all of a type
// that embeds something else than a struct: the rules of precedence are long.
func members(t reflect.Type) (all []member, ok bool) {
	if known, met := memberTables.Load(t); met {
		all, ok = known.([]member)
		return all, ok
	}
	all, ok = listMembers(t)
	if ok {
		memberTables.Store(t, all)
	} else {
		memberTables.Store(t, nil)
	}
	return all, ok
}

func listMembers(t reflect.Type) (all []member, ok bool) {
	all = []member{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		switch {
		case f.Anonymous && tag == "" && f.Type.Kind() == reflect.Struct && f.IsExported():
			all = append(all, member{index: i, embedded: true})
			continue
		case f.Anonymous:
			return nil, false
		case !f.IsExported() || tag == "-":
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if name == "" {
			name = f.Name
		}
		all = append(all, member{name: name, index: i, quoted: strings.Contains(options, "string")})
	}
	return all, true
}

// field finds the field of a name, the zero Value if there is none. It does
// not know when the name is another's in another case.
func field(v reflect.Value, name string) (found reflect.Value, ok bool) {
	all, ok := members(v.Type())
	if !ok {
		return found, false
	}
	alike, embedded := false, false
	for _, m := range all {
		switch {
		case m.embedded:
			embedded = true
		case m.name == name:
			return v.Field(m.index), !m.quoted
		default:
			alike = alike || strings.EqualFold(m.name, name)
		}
	}
	if alike || !embedded {
		return found, !alike
	}
	return promoted(v, all, name)
}

// promoted finds the field in the one embedded struct that has it.
func promoted(v reflect.Value, all []member, name string) (found reflect.Value, ok bool) {
	for _, m := range all {
		if !m.embedded {
			continue
		}
		inner := v.Field(m.index)
		f, ok := field(inner, name)
		if !ok || f.IsValid() && found.IsValid() || decodesItself(inner) {
			return found, false
		}
		if f.IsValid() {
			found = f
		}
	}
	return found, true
}

func (d *decoder) mapping(v reflect.Value, depth int) bool {
	t := v.Type()
	if t.Key().Kind() != reflect.String || t.Key().NumMethod() > 0 || reflect.PointerTo(t.Key()).NumMethod() > 0 {
		return false
	}
	v.Set(reflect.MakeMap(t))
	return d.members(func(name string) bool {
		key, value := reflect.ValueOf(name).Convert(t.Key()), reflect.New(t.Elem()).Elem()
		if v.MapIndex(key).IsValid() || !d.value(value, depth+1) {
			return false
		}
		v.SetMapIndex(key, value)
		return true
	})
}

// elements goes through an array.
func (d *decoder) elements(each func() bool) bool {
	if !d.take('[') {
		return false
	}
	if d.take(']') {
		return true
	}
	for {
		if !each() {
			return false
		}
		if d.take(']') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

func (d *decoder) slice(v reflect.Value, depth int) bool {
	t := v.Type()
	if t.Elem().Kind() == reflect.Uint8 {
		return d.bytes(v)
	}
	v.Set(reflect.MakeSlice(t, 0, 0))
	n := 0
	return d.elements(func() bool {
		if n == v.Cap() {
			v.Grow(max(4, n))
		}
		n++
		v.SetLen(n)
		return d.value(v.Index(n-1), depth+1)
	})
}

func (d *decoder) bytes(v reflect.Value) bool {
	s, ok := d.str()
	if !ok || v.Type().Elem().NumMethod() > 0 || reflect.PointerTo(v.Type().Elem()).NumMethod() > 0 {
		return false
	}
	b, err := base64.StdEncoding.DecodeString(s)
	v.SetBytes(b)
	return err == nil
}

// str reads a string.
func (d *decoder) str() (string, bool) {
	if !d.take('"') {
		return "", false
	}
	for from := d.at; d.at < len(d.b); d.at++ {
		switch c := d.b[d.at]; {
		case c == '"':
			s := d.b[from:d.at]
			d.at++
			return string(s), utf8.Valid(s)
		case c == '\\':
			return d.escaped(append([]byte(nil), d.b[from:d.at]...))
		case c < ' ':
			return "", false
		}
	}
	return "", false
}

// escaped reads the rest of a string that begins with s, from its first
// backslash on.
func (d *decoder) escaped(s []byte) (string, bool) {
	for d.at < len(d.b) {
		c := d.b[d.at]
		d.at++
		switch {
		case c == '"':
			return string(s), utf8.Valid(s)
		case c == '\\':
			r, ok := d.escape()
			if !ok {
				return "", false
			}
			s = utf8.AppendRune(s, r)
		case c < ' ':
			return "", false
		default:
			s = append(s, c)
		}
	}
	return "", false
}

// escape reads what follows a backslash, but for halves of a surrogate pair.
func (d *decoder) escape() (rune, bool) {
	if d.at == len(d.b) {
		return 0, false
	}
	c := d.b[d.at]
	d.at++
	if c != 'u' {
		const names, meanings = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
		i := strings.IndexByte(names, c)
		if i < 0 {
			return 0, false
		}
		return rune(meanings[i]), true
	}
	if len(d.b)-d.at < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(d.b[d.at:d.at+4]), 16, 16)
	d.at += 4
	return rune(n), err == nil && utf8.ValidRune(rune(n))
}

// number reads a whole number; what it is not, strconv refuses.
func (d *decoder) number() string {
	from := d.at
	if d.at < len(d.b) && d.b[d.at] == '-' {
		d.at++
	}
	first := d.at
	for d.at < len(d.b) && d.b[d.at] >= '0' && d.b[d.at] <= '9' {
		d.at++
	}
	if d.at-first > 1 && d.b[first] == '0' {
		return "" // JSON has no leading zeros
	}
	return string(d.b[from:d.at])
}

// skip goes past a value nobody wants, and makes sure that it is one.
func (d *decoder) skip(depth int) bool {
	if depth > maxDepth {
		return false
	}
	switch d.peek() {
	case '{':
		return d.members(func(string) bool { return d.skip(depth + 1) })
	case '[':
		return d.elements(func() bool { return d.skip(depth + 1) })
	case '"':
		_, ok := d.str()
		return ok
	case 't', 'f', 'n':
		return d.word("true") || d.word("false") || d.word("null")
	}
	n := d.number()
	return n != "" && n != "-" && !d.fraction()
}

// fraction tells whether a number goes on.
func (d *decoder) fraction() bool {
	return d.at < len(d.b) && strings.IndexByte(".eE", d.b[d.at]) >= 0
}
