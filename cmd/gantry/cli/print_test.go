// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/stage0"
)

func TestTemplates(t *testing.T) {
	records := []stage0.Record{
		{UUID: "1", Name: "web", State: "running", Command: []string{"serve", "-v"}, Exit: &stage0.Exit{Code: 3}},
		{UUID: "2", State: "exited", Command: []string{"a\x1bb"}, Labels: map[string]string{"tier": "front"}},
	}
	for _, c := range []struct{ format, want, wrong, hint string }{
		{format: "{{.Name}}:{{.State}}", want: "web:running\n:exited\n"},
		{format: `{{.UUID}}\t{{join .Command " "}}`, want: "1\tserve -v\n2\ta�b\n"},
		{format: "{{json .Command}}{{upper .Name}}", want: "[\"serve\",\"-v\"]WEB\n[\"a\\u001bb\"]\n"},
		{format: `table {{.UUID}}\t{{.Name}}`, want: "UUID   NAME\n1      web\n2      \n"},
		{format: "{{.Exit.Code}}{{.Health}}{{.Labels.tier}}.", want: "3.\nfront.\n"},
		{format: "{{.Names}}", wrong: `--format "{{.Names}}": there is no field Names`, hint: "there are UUID, Name, State, "},
		{format: "{{.Name.First}}", wrong: `--format "{{.Name.First}}": there is no field First`, hint: "there are UUID"},
		{format: "{{join .Name \",\"}}", wrong: `--format "{{join .Name \",\"}}": join: Name is not a list`, hint: "there are UUID"},
		{format: "{{.Name", wrong: `--format: "{{.Name" is not closed by }}`},
		{format: "{{range .Command}}x{{end}}", wrong: `--format: "{{range .Command}}": use {{.Field}}, {{json .Field}}`},
		{format: "{{Name}}", wrong: `--format: "{{Name}}": use {{.Field}}`},
		{format: "xml", wrong: `unknown format "xml": use table, json, or a template such as '{{.UUID}}'`},
	} {
		var out bytes.Buffer
		a := &app{out: &out}
		err := a.table(c.format, records, nil, nil)
		if out.String() != c.want && c.wrong == "" {
			t.Errorf("%s: %q, want %q", c.format, out.String(), c.want)
		}
		if (err == nil) != (c.wrong == "") || err != nil && !strings.HasPrefix(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want %q", c.format, err, c.wrong)
		}
		if h, ok := err.(interface{ Hint() string }); c.hint != "" && (!ok || !strings.HasPrefix(h.Hint(), c.hint)) {
			t.Errorf("%s: hint %v, want %q", c.format, err, c.hint)
		}
	}
	// A document that is kept as it came is entered by its names.
	var doc bytes.Buffer
	inspected := struct{ Config any }{json.RawMessage(`{"config":{"Env":["A=1","B=2"]}}`)}
	if err := (&app{out: &doc}).inspection(`{{.Config.Config.Env}} {{join .Config.config.Env ","}} {{.Config.os}}.`, inspected); err != nil || doc.String() != "[A=1 B=2] A=1,B=2 .\n" {
		t.Errorf("%q, %v", doc.String(), err)
	}
	// What is one record and not a list of them is one line.
	var out bytes.Buffer
	if err := (&app{out: &out}).inspection("{{.Name}}", records[0]); err != nil || out.String() != "web\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := (&app{out: &out}).inspection("table", records[0]); err == nil {
		t.Error("inspect has no table")
	}
}
