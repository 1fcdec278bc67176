// SPDX-License-Identifier: Apache-2.0

// Package wire encodes contract values between executables of one release.
// encoding/json costs gantry-init half a millisecond per launch and the
// supervisor a quarter of its memory; this walks the same structs in field
// order. A fingerprint of the type goes in front, so that executables of
// different releases notice instead of misreading each other.
//
// Supported: bool, integers, strings, and structs, slices and pointers of
// them. Empty and nil slices are the same.
package wire

import (
	"encoding/binary"
	"errors"
	"reflect"
)

// ErrRelease means that the bytes were written by another release.
var ErrRelease = errors.New("written by another release of gantry")

// ErrMalformed means that the bytes end early or are out of range.
var ErrMalformed = errors.New("malformed contract")

const maxDepth = 16

// Encode appends the value v points to.
func Encode(b []byte, v any) []byte {
	value := reflect.ValueOf(v).Elem()
	b = binary.LittleEndian.AppendUint64(b, fingerprint(value.Type()))
	return appendValue(b, value)
}

// Decode fills the value v points to and returns what follows it in b.
func Decode(b []byte, v any) ([]byte, error) {
	value := reflect.ValueOf(v).Elem()
	if len(b) < 8 {
		return nil, ErrMalformed
	}
	if binary.LittleEndian.Uint64(b) != fingerprint(value.Type()) {
		return nil, ErrRelease
	}
	d := decoder{rest: b[8:]}
	d.value(value, 0)
	return d.rest, d.err
}

func appendValue(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1)
		}
		return append(b, 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(b, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(b, v.Uint())
	case reflect.String:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		return append(b, v.String()...)
	case reflect.Slice:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		for i := range v.Len() {
			b = appendValue(b, v.Index(i))
		}
		return b
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0)
		}
		return appendValue(append(b, 1), v.Elem())
	case reflect.Struct:
		return appendStruct(b, v)
	}
	panic("wire: type " + v.Type().String())
}

// appendStruct writes only fields that are not zero, each after its number,
// and a zero at the end: a step has thirty fields and uses one.
func appendStruct(b []byte, v reflect.Value) []byte {
	for i := range v.NumField() {
		if field := v.Field(i); !field.IsZero() {
			b = appendValue(append(b, byte(i+1)), field)
		}
	}
	return append(b, 0)
}

type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail() {
	d.err, d.rest = ErrMalformed, nil
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail()
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

// length reads the length of something whose elements take at least one byte.
func (d *decoder) length() int {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) value(v reflect.Value, depth int) {
	if depth > maxDepth {
		d.fail()
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(d.byte() == 1)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, size := binary.Varint(d.rest)
		if size <= 0 || v.OverflowInt(n) {
			d.fail()
			return
		}
		d.rest = d.rest[size:]
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n := d.uvarint()
		if v.OverflowUint(n) {
			d.fail()
			return
		}
		v.SetUint(n)
	case reflect.String:
		n := d.length()
		v.SetString(string(d.rest[:n]))
		d.rest = d.rest[n:]
	case reflect.Slice:
		n := d.length()
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := 0; i < n && d.err == nil; i++ {
			d.value(v.Index(i), depth+1)
		}
	case reflect.Pointer:
		if d.byte() == 1 {
			v.Set(reflect.New(v.Type().Elem()))
			d.value(v.Elem(), depth+1)
		}
	case reflect.Struct:
		for d.err == nil {
			n := int(d.byte())
			if n == 0 {
				return
			}
			if n > v.NumField() {
				d.fail()
				return
			}
			d.value(v.Field(n-1), depth+1)
		}
	}
}

// fingerprint is FNV-1a over the names and kinds of a type, depth first.
func fingerprint(t reflect.Type) uint64 {
	return hashType(14695981039346656037, t)
}

func hashType(h uint64, t reflect.Type) uint64 {
	h = hashString(h, t.Kind().String())
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer:
		return hashType(h, t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			field := t.Field(i)
			h = hashType(hashString(h, field.Name), field.Type)
		}
	}
	return h
}

func hashString(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h * 1099511628211
}
