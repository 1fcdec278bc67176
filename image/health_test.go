// SPDX-License-Identifier: Apache-2.0

package image

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseHealthcheck(t *testing.T) {
	h, err := ParseHealthcheck([]byte(`{"config": {"Healthcheck": {"Test": ["CMD-SHELL", "curl localhost"], "Interval": 5000000000, "Retries": 2}}}`))
	if err != nil || h == nil || !slices.Equal(h.Test, []string{"CMD-SHELL", "curl localhost"}) || h.Interval != 5*time.Second || h.Retries != 2 {
		t.Errorf("%+v, %v", h, err)
	}
	for _, none := range []string{`{"config": {}}`, `{"config": {"Healthcheck": null}}`, `{"config": {"Healthcheck": {"Test": []}}}`} {
		if h, err := ParseHealthcheck([]byte(none)); h != nil || err != nil {
			t.Errorf("%s: %+v, %v", none, h, err)
		}
	}
	for text, want := range map[string]string{
		`{"Test": ["RUN", "x"]}`: `"RUN"`, `{"Test": ["CMD"]}`: "CMD", `{"Test": ["CMD-SHELL", "a", "b"]}`: "CMD-SHELL",
		`{"Test": "x"}`: "cannot unmarshal", `{"Test": ["CMD", "a\u0000"]}`: "NUL",
		`{"Test": ["CMD", "x"], "Interval": -1}`: "Interval", `{"Test": ["CMD", "x"], "Retries": -1}`: "Retries",
	} {
		if _, err := ParseHealthcheck([]byte(`{"config": {"Healthcheck": ` + text + `}}`)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParseHealthcheck(f *testing.F) {
	f.Add([]byte(`{"config": {"Healthcheck": {"Test": ["CMD", "x"]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := ParseHealthcheck(b); err == nil && h != nil && h.Test[0] != "NONE" && len(h.Test) < 2 {
			t.Errorf("%q: %+v", b, h)
		}
	})
}
