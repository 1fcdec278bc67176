// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// formatFlag adds --format to a command that prints records.
func formatFlag(c *cobra.Command, format *string) {
	c.Flags().StringVar(format, "format", "table", "print as `FORMAT`: table, json, or a template for each, as in '{{json .}}' or '{{.Field}}'; a wrong field is told with those there are")
}

// inspectFlag adds --format to a command that prints JSON.
func inspectFlag(c *cobra.Command, format *string) {
	c.Flags().StringVarP(format, "format", "f", "json", "print as `FORMAT`: json, or a template for each, as in '{{json .}}' or '{{.Field}}'; a wrong field is told with those there are")
}

// table prints rows under a header for people, or v as JSON for programs, or
// each of v by a template.
func (a *app) table(format string, v any, header []string, rows [][]string) error {
	switch {
	case format == "json":
		return a.json(v)
	case format == "table":
		out := bufio.NewWriter(a.out) // tabwriter writes each cell
		w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
		if len(header) > 0 {
			fmt.Fprintln(w, strings.Join(header, "\t"))
		}
		oneLine := strings.NewReplacer("\t", " ", "\n", " ")
		for _, r := range rows {
			for i := range r {
				r[i] = oneLine.Replace(printable(r[i]))
			}
			fmt.Fprintln(w, strings.Join(r, "\t"))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		return out.Flush()
	case strings.Contains(format, "{{"):
		return a.fill(format, v)
	}
	return fmt.Errorf("unknown format %q: use table, json, or a template such as '{{.%s}}'", format, someField(v))
}

// inspection prints v as JSON, or by a template.
func (a *app) inspection(format string, v any) error {
	if format == "table" || format != "json" && !strings.Contains(format, "{{") {
		return fmt.Errorf("unknown format %q: use json, or a template such as '{{.%s}}'", format, someField(v))
	}
	return a.table(format, v, nil, nil)
}

// fill prints each of v on a line of its own. A table in front of the template,
// as podman has it, aligns the columns between tabs under their names.
func (a *app) fill(format string, v any) error {
	text, aligned := strings.CutPrefix(format, "table ")
	t, err := parseTemplate(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text))
	if err != nil {
		return fmt.Errorf("--format: %w", err)
	}
	buffer := bufio.NewWriter(a.out)
	out, flush := io.Writer(buffer), buffer.Flush
	if aligned {
		w := tabwriter.NewWriter(buffer, 0, 8, 3, ' ', 0)
		out, flush = w, func() error {
			if err := w.Flush(); err != nil {
				return err
			}
			return buffer.Flush()
		}
		fmt.Fprintln(w, t.heading())
	}
	all := each(v)
	if typ := reflect.TypeOf(v); len(all) == 0 && typ != nil && typ.Kind() == reflect.Slice {
		// A wrong field is wrong also where there is nothing to print.
		if _, err := t.of(reflect.Zero(typ.Elem()).Interface()); err != nil {
			return wrongField(format, v, err)
		}
	}
	for _, one := range all {
		line, err := t.of(one)
		if err != nil {
			_ = flush() // what came before is right
			return wrongField(format, one, err)
		}
		fmt.Fprintln(out, printable(line))
	}
	return flush()
}

func wrongField(format string, v any, err error) error {
	return withHint(fmt.Errorf("--format %q: %w", format, err), "there are %s", strings.Join(fields(v), ", "))
}

// each is what a slice has, or the one thing that is none.
func each(v any) []any {
	r := reflect.ValueOf(v)
	if r.Kind() != reflect.Slice {
		return []any{v}
	}
	all := make([]any, r.Len())
	for i := range all {
		all[i] = r.Index(i).Interface()
	}
	return all
}

// fields are the names a template can use of v.
func fields(v any) []string {
	t := reflect.TypeOf(v)
	if t != nil && t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if f.IsExported() && !f.Anonymous {
			names = append(names, f.Name)
		}
	}
	return names
}

func someField(v any) string {
	if names := fields(v); len(names) > 0 {
		return names[0]
	}
	return "Name"
}

// json prints v indented, HTML characters as they are.
func (a *app) json(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
