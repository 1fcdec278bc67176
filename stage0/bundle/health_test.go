// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"reflect"
	"testing"
	"time"
)

func TestHealth(t *testing.T) {
	image := &ImageHealth{Test: []string{"CMD", "probe", "-x"}, Interval: time.Minute, Retries: 5}
	def := Health{Command: []string{"/bin/sh", "-c", "true"}, Interval: 30 * time.Second, Timeout: 30 * time.Second, Retries: 3, OnFailure: "none"}
	its := Health{Command: []string{"probe", "-x"}, Interval: time.Minute, Timeout: 30 * time.Second, Retries: 5, OnFailure: "none"}
	words, never, mine := def, def, its
	words.Command = []string{"a", "b c"}
	never.Interval = 0
	mine.Retries, mine.OnFailure, mine.StartPeriod = 1, "stop", time.Second
	for name, c := range map[string]struct {
		image *ImageHealth
		o     HealthOptions
		want  *Health
	}{
		"none":                        {nil, HealthOptions{}, nil},
		"a shell's line":              {nil, HealthOptions{HealthCmd: ptr("true")}, &def},
		"a line after CMD-SHELL, too": {nil, HealthOptions{HealthCmd: ptr("CMD-SHELL true")}, &def},
		"words of a line after CMD":   {nil, HealthOptions{HealthCmd: ptr("CMD a b")}, &Health{Command: []string{"a", "b"}, Interval: def.Interval, Timeout: def.Timeout, Retries: def.Retries, OnFailure: def.OnFailure}},
		"words":                       {nil, HealthOptions{HealthCmd: ptr(`["a", "b c"]`)}, &words},
		"words after CMD":             {nil, HealthOptions{HealthCmd: ptr(`["CMD", "a", "b c"]`)}, &words},
		"a line after CMD-SHELL":      {nil, HealthOptions{HealthCmd: ptr(`["CMD-SHELL", "true"]`)}, &def},
		"no timer":                    {nil, HealthOptions{HealthCmd: ptr("true"), HealthInterval: "disable"}, &never},
		"the image's":                 {image, HealthOptions{}, &its},
		"the image's, changed":        {image, HealthOptions{HealthRetries: "1", HealthOnFailure: "stop", HealthStartPeriod: "1s"}, &mine},
		"the image's, left out":       {image, HealthOptions{NoHealthcheck: true}, nil},
		"the image's, taken back":     {image, HealthOptions{HealthCmd: ptr("none")}, nil},
		"the image takes back":        {&ImageHealth{Test: []string{"NONE"}}, HealthOptions{}, nil},
		"no check, whatever it was":   {image, HealthOptions{HealthCmd: ptr("true"), NoHealthcheck: true}, nil},
	} {
		in := input(Options{HealthOptions: c.o})
		in.ImageHealth = c.image
		r, err := Spec(in)
		if err != nil || !reflect.DeepEqual(r.Health, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", name, r.Health, err, c.want)
		}
	}
	for _, o := range []HealthOptions{{HealthOnFailure: "kill"}, {HealthTimeout: "5s"}, {HealthCmd: ptr("none"), HealthInterval: "1s"}} {
		refused(t, input(Options{HealthOptions: o}), "there is no health check")
	}
}
