// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// template is text with fields of a record between braces, as in
// "{{.Name}} {{join .Command ","}}". It has of text/template what people write
// on a command line: linking that one keeps every exported method of everything
// else in the executable, 2.3 MB.
type template []part

// part is text as it is, or a field and what is done to it.
type part struct {
	text  string
	path  []string // names from the record on; nil for text
	whole bool     // {{.}}
	apply string
	with  string // what join puts between
}

var errTemplate = errors.New("use {{.Field}}, {{json .Field}}, {{join .Field \",\"}}, {{lower .Field}} or {{upper .Field}}")

func parseTemplate(s string) (template, error) {
	var t template
	for {
		before, rest, found := strings.Cut(s, "{{")
		if before != "" {
			t = append(t, part{text: before})
		}
		if !found {
			return t, nil
		}
		inside, after, closed := strings.Cut(rest, "}}")
		if !closed {
			return nil, fmt.Errorf("%q is not closed by }}", "{{"+rest)
		}
		p, err := parsePart(strings.TrimSpace(inside))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", "{{"+inside+"}}", err)
		}
		t, s = append(t, p), after
	}
}

func parsePart(s string) (part, error) {
	var p part
	if name, rest, found := strings.Cut(s, " "); found {
		p.apply, s = name, strings.TrimSpace(rest)
	}
	field, with, more := strings.Cut(s, " ")
	var err error
	switch p.apply {
	case "", "json", "lower", "upper":
		if more {
			err = errTemplate
		}
	case "join":
		if p.with, err = strconv.Unquote(strings.TrimSpace(with)); err != nil {
			err = errTemplate
		}
	default:
		err = errTemplate
	}
	names, isField := strings.CutPrefix(field, ".")
	if err != nil || !isField {
		return p, errTemplate
	}
	if p.whole = names == ""; !p.whole {
		p.path = strings.Split(names, ".")
	}
	return p, nil
}

// of fills the template in with a record.
func (t template) of(record any) (string, error) {
	var out strings.Builder
	for _, p := range t {
		if p.path == nil && !p.whole {
			out.WriteString(p.text)
			continue
		}
		v, err := at(reflect.ValueOf(record), p.path)
		if err != nil {
			return "", err
		}
		s, err := p.print(v)
		if err != nil {
			return "", err
		}
		out.WriteString(s)
	}
	return out.String(), nil
}

// heading is the template with the names of the fields in place of their values.
func (t template) heading() string {
	var out strings.Builder
	for _, p := range t {
		out.WriteString(p.text)
		out.WriteString(strings.ToUpper(strings.Join(p.path, " ")))
	}
	return out.String()
}

// at follows names through structs, what is pointed to, and maps.
func at(v reflect.Value, path []string) (reflect.Value, error) {
	for _, name := range path {
		for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
			if v.IsNil() {
				return reflect.Value{}, nil // nothing has no fields, and is printed as nothing
			}
			v = v.Elem()
		}
		if raw, ok := documentIn(v); ok {
			v = raw
		}
		switch {
		case v.Kind() == reflect.Struct && v.FieldByName(name).IsValid():
			v = v.FieldByName(name)
		case v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String:
			if v = member(v, name); !v.IsValid() {
				return v, nil
			}
		default:
			return v, fmt.Errorf("there is no field %s", name)
		}
	}
	return v, nil
}

// documentIn is what a document in JSON says that is kept as it came.
func documentIn(v reflect.Value) (reflect.Value, bool) {
	raw, ok := v.Interface().(json.RawMessage)
	var document any
	if !ok || json.Unmarshal(raw, &document) != nil {
		return v, false
	}
	return reflect.ValueOf(document), true
}

// member finds a name in a map, in whatever case if there is no such one: names
// in documents begin with a small letter, and fields with a capital one.
func member(v reflect.Value, name string) reflect.Value {
	if exact := v.MapIndex(reflect.ValueOf(name).Convert(v.Type().Key())); exact.IsValid() {
		return exact
	}
	for _, key := range v.MapKeys() {
		if strings.EqualFold(key.String(), name) {
			return v.MapIndex(key)
		}
	}
	return reflect.Value{}
}

func (p part) print(v reflect.Value) (string, error) {
	if v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	if !v.IsValid() {
		return "", nil
	}
	switch p.apply {
	case "json":
		var out bytes.Buffer
		e := json.NewEncoder(&out)
		e.SetEscapeHTML(false)
		err := e.Encode(v.Interface())
		return strings.TrimSuffix(out.String(), "\n"), err
	case "join":
		if v.Kind() != reflect.Slice {
			return "", fmt.Errorf("join: %s is not a list", strings.Join(p.path, "."))
		}
		all := make([]string, v.Len())
		for i := range all {
			all[i] = fmt.Sprint(v.Index(i).Interface())
		}
		return strings.Join(all, p.with), nil
	}
	if raw, ok := documentIn(v); ok {
		v = raw
	}
	s := fmt.Sprint(v.Interface())
	if v.Kind() == reflect.Pointer && v.IsNil() {
		s = ""
	}
	switch p.apply {
	case "lower":
		s = strings.ToLower(s)
	case "upper":
		s = strings.ToUpper(s)
	}
	return s, nil
}
