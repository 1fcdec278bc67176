// SPDX-License-Identifier: Apache-2.0

package podlog

import (
	"bytes"
	"strings"
	"testing"
)

// What journalctl prints: text, bytes that are none, and pieces of a line.
func TestJournalEntries(t *testing.T) {
	const said = `{"__CURSOR":"a","__REALTIME_TIMESTAMP":"1000000","GANTRY_STREAM":"stdout","MESSAGE":"one two"}
{"__CURSOR":"b","__REALTIME_TIMESTAMP":"1000001","GANTRY_STREAM":"stdout","CONTAINER_PARTIAL_MESSAGE":"true","MESSAGE":[104,97,255]}
{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1000002","GANTRY_STREAM":"stdout","MESSAGE":"lf"}
{"__CURSOR":"d","__REALTIME_TIMESTAMP":"1000003","GANTRY_STREAM":"stderr","MESSAGE":null}
{"__CURSOR":"cut sho`
	var out, errs bytes.Buffer
	p := &printer{Options{Timestamps: true}, &out, &errs, map[string]bool{}}
	last, err := p.entries(strings.NewReader(said))
	if err != nil || last != "d" || out.String() != "1970-01-01T00:00:01Z one two\n1970-01-01T00:00:01.000001Z ha\xfflf\n" || errs.String() != "1970-01-01T00:00:01.000003Z \n" {
		t.Errorf("%q, %q, %q, %v", out.String(), errs.String(), last, err)
	}
	for _, bad := range []string{"{\n", `{"__REALTIME_TIMESTAMP":"x"}` + "\n", `{"__REALTIME_TIMESTAMP":"1","MESSAGE":{}}` + "\n"} {
		if _, err := p.entries(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
