// SPDX-License-Identifier: Apache-2.0

// Package jsonout writes the JSON that encoding/json writes, for values that
// are written once per process. encoding/json prepares an encoder for every
// type a value could ever hold before it writes the first byte: for a bundle
// that is a hundred structs of which ten are used, and costs a launch more
// than a millisecond. This looks only at what is there.
//
// What is rare (floats, byte slices, embedded structs, types that encode
// themselves) is left to encoding/json, value by value. Characters special in
// HTML are not escaped.
package jsonout

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Marshal returns v as JSON.
func Marshal(v any) ([]byte, error) {
	e := encoder{b: make([]byte, 0, 2<<10)}
	e.value(reflect.ValueOf(v))
	return e.b, e.err
}

type encoder struct {
	b   []byte
	err error
}

func (e *encoder) text(s string) { e.b = append(e.b, s...) }

func (e *encoder) value(v reflect.Value) {
	if !v.IsValid() {
		e.text("null")
		return
	}
	if v.Type().NumMethod() > 0 && v.Kind() != reflect.Interface && e.own(v) {
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		e.b = strconv.AppendBool(e.b, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.b = strconv.AppendInt(e.b, v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.b = strconv.AppendUint(e.b, v.Uint(), 10)
	case reflect.String:
		e.str(v.String())
	case reflect.Pointer, reflect.Interface:
		e.value(v.Elem())
	case reflect.Slice:
		e.slice(v)
	case reflect.Map:
		e.mapping(v)
	case reflect.Struct:
		e.structure(v)
	default:
		e.standard(v)
	}
}

// own leaves types that encode themselves to themselves.
func (e *encoder) own(v reflect.Value) bool {
	if v.Kind() == reflect.Pointer && v.IsNil() {
		return false
	}
	switch x := v.Interface().(type) {
	case time.Time:
		if y := x.Year(); y < 0 || y > 9999 {
			e.standard(v) // it tells what is wrong
			return true
		}
		e.b = append(x.AppendFormat(append(e.b, '"'), time.RFC3339Nano), '"')
		return true
	case json.Marshaler, encoding.TextMarshaler:
		e.standard(v)
		return true
	}
	return false
}

// standard writes one value with encoding/json.
func (e *encoder) standard(v reflect.Value) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v.Interface()); err != nil && e.err == nil {
		e.err = err
	}
	e.b = append(e.b, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

func (e *encoder) str(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf || c == 0x7f {
			e.standard(reflect.ValueOf(s))
			return
		}
	}
	e.b = append(append(append(e.b, '"'), s...), '"')
}

func (e *encoder) slice(v reflect.Value) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		e.standard(v) // base64
		return
	}
	if v.IsNil() {
		e.text("null")
		return
	}
	e.text("[")
	for i := range v.Len() {
		if i > 0 {
			e.text(",")
		}
		e.value(v.Index(i))
	}
	e.text("]")
}

func (e *encoder) mapping(v reflect.Value) {
	if key := v.Type().Key(); key.Kind() != reflect.String || key.NumMethod() > 0 {
		e.standard(v)
		return
	}
	if v.IsNil() {
		e.text("null")
		return
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	e.text("{")
	for i, key := range keys {
		if i > 0 {
			e.text(",")
		}
		e.str(key.String())
		e.text(":")
		e.value(v.MapIndex(key))
	}
	e.text("}")
}

func (e *encoder) structure(v reflect.Value) {
	t, start := v.Type(), len(e.b)
	first := true
	e.text("{")
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case f.Anonymous || slices.Contains(strings.Split(options, ","), "string"):
			e.b = e.b[:start]
			e.standard(v) // the rules of precedence are long
			return
		case !f.IsExported() || tag == "-" || omitted(v.Field(i), options):
			continue
		case name == "":
			name = f.Name
		}
		if !first {
			e.text(",")
		}
		first = false
		e.str(name)
		e.text(":")
		e.value(v.Field(i))
	}
	e.text("}")
}

// omitted tells whether the options of a field leave it out.
func omitted(v reflect.Value, options string) bool {
	switch options {
	case "":
		return false
	case "omitempty":
		return empty(v)
	}
	for option := range strings.SplitSeq(options, ",") {
		if option == "omitempty" && empty(v) || option == "omitzero" && zero(v) {
			return true
		}
	}
	return false
}

func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

func zero(v reflect.Value) bool {
	if z, ok := v.Interface().(interface{ IsZero() bool }); ok && (v.Kind() != reflect.Pointer || !v.IsNil()) {
		return z.IsZero()
	}
	return v.IsZero()
}
