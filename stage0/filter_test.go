// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"strings"
	"testing"

	"github.com/gantryrun/gantry/internal/hint"
)

func TestSelection(t *testing.T) {
	web := Record{UUID: "5f2c0000", Name: "web", State: "running", Health: HealthHealthy, Labels: map[string]string{"app": "shop", "tier": "front"}, Volumes: []string{"db"}}
	for filter, want := range map[string]bool{
		"":                                   true,
		"name=we":                            true,
		"name=db":                            false,
		"name=db name=we":                    true, // any value of a key
		"name=we state=exited":               false,
		"name=we state=exited state=running": true,
		"status=running":                     true,
		"label=app":                          true,
		"label=app=shop label=tier=front":    true,
		"label=app=shop label=tier=back":     false, // labels must all hold
		"label=app=":                         false,
		"id=5f2c":                            true,
		"id=f2c":                             false,
		"volume=db":                          true,
		"volume=d":                           false,
		"health=unhealthy":                   false,
	} {
		keep, err := selection(strings.Fields(filter), podQuestions())
		if err != nil || keep(web) != want {
			t.Errorf("%q: %v; want %v", filter, err, want)
		}
	}
	for filter, want := range map[string]string{
		"state":          "the keys are health, id, image, label, name, state, status, volume",
		"colour=red":     "the keys are ",
		"state=exitted":  "it is one of creating, ",
		"health=perfect": "it is one of starting, healthy, unhealthy",
	} {
		if _, err := selection([]string{filter}, podQuestions()); !strings.Contains(hint.Of(err), want) {
			t.Errorf("%q: %v, %q", filter, err, hint.Of(err))
		}
	}
	if _, err := selection([]string{"dangling=yes"}, volumeQuestions()); hint.Of(err) != "it is one of true, false" {
		t.Error(err)
	}
}
