// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/gantryrun/gantry/internal/hint"
)

// HealthOptions are what a user asks of health checks. What is not given is
// the image's, else podman's default.
type HealthOptions struct {
	HealthCmd         *string `json:"healthCmd,omitempty"`         // --health-cmd: a shell's line, a JSON array, or none
	HealthInterval    string  `json:"healthInterval,omitempty"`    // --health-interval: 30s; disable is no timer
	HealthTimeout     string  `json:"healthTimeout,omitempty"`     // --health-timeout: 30s
	HealthStartPeriod string  `json:"healthStartPeriod,omitempty"` // --health-start-period: 0s
	HealthRetries     string  `json:"healthRetries,omitempty"`     // --health-retries: 3
	HealthOnFailure   string  `json:"healthOnFailure,omitempty"`   // --health-on-failure: none, kill or stop
	NoHealthcheck     bool    `json:"noHealthcheck,omitempty"`     // --no-healthcheck
}

// ImageHealth is the image's own check, as Docker's configurations have it.
type ImageHealth struct {
	Test                           []string
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int
}

// Health is how an app's health is probed.
type Health struct {
	Command     []string      `json:"command"`
	Interval    time.Duration `json:"interval"` // 0: only when asked
	Timeout     time.Duration `json:"timeout"`
	StartPeriod time.Duration `json:"startPeriod,omitempty"`
	Retries     int           `json:"retries"`
	OnFailure   string        `json:"onFailure"`
}

// withoutCheck refuses what is about a check that there is not.
func (o *HealthOptions) withoutCheck() error {
	for _, f := range []struct{ flag, value string }{
		{"--health-interval", o.HealthInterval},
		{"--health-timeout", o.HealthTimeout},
		{"--health-start-period", o.HealthStartPeriod},
		{"--health-retries", o.HealthRetries},
		{"--health-on-failure", o.HealthOnFailure},
	} {
		if f.value != "" {
			return fmt.Errorf("%s %s: there is no health check: give --health-cmd", f.flag, f.value)
		}
	}
	return nil
}

// health settles the check, if there is one.
func (b *builder) health() error {
	o, h := b.Options.HealthOptions, &Health{Interval: 30 * time.Second, Timeout: 30 * time.Second, Retries: 3, OnFailure: "none"}
	command := b.imageHealth(h)
	if o.HealthCmd != nil {
		var err error
		if command, err = healthCommand(*o.HealthCmd); err != nil {
			return err
		}
	}
	if o.HealthInterval == "disable" {
		h.Interval, o.HealthInterval = 0, ""
	}
	for _, d := range []struct {
		flag, value string
		least       time.Duration
		to          *time.Duration
	}{
		{"--health-interval", o.HealthInterval, 100 * time.Millisecond, &h.Interval},
		{"--health-timeout", o.HealthTimeout, 100 * time.Millisecond, &h.Timeout},
		{"--health-start-period", o.HealthStartPeriod, 0, &h.StartPeriod},
	} {
		if d.value == "" {
			continue
		}
		n, err := time.ParseDuration(d.value)
		if err != nil || n < d.least {
			return fmt.Errorf("%s %q: write a time from %s on, as in 30s", d.flag, d.value, d.least)
		}
		*d.to = n
	}
	if n, err := number("--health-retries", o.HealthRetries, 1, 1000); err != nil {
		return err
	} else if n != nil {
		h.Retries = int(*n)
	}
	switch o.HealthOnFailure {
	case "":
	case "none", "kill", "stop":
		h.OnFailure = o.HealthOnFailure
	case "restart":
		return hint.With(fmt.Errorf("--health-on-failure restart is not supported: restarting is the init system's"), "use kill, and write Restart= into a unit")
	default:
		return fmt.Errorf("--health-on-failure %q: use none, kill or stop", o.HealthOnFailure)
	}
	if b.Options.NoHealthcheck {
		command = nil
	}
	if len(command) == 0 {
		if b.early {
			return nil // the image may have one
		}
		return o.withoutCheck()
	}
	h.Command = command
	b.r.Health = h
	return nil
}

// imageHealth takes the image's settings and returns its command.
func (b *builder) imageHealth(h *Health) []string {
	i := b.ImageHealth
	if i == nil {
		return nil
	}
	for from, to := range map[*time.Duration]*time.Duration{&i.Interval: &h.Interval, &i.Timeout: &h.Timeout, &i.StartPeriod: &h.StartPeriod} {
		if *from > 0 {
			*to = max(*from, 100*time.Millisecond)
		}
	}
	if i.Retries > 0 {
		h.Retries = i.Retries
	}
	switch i.Test[0] {
	case "CMD":
		return i.Test[1:]
	case "CMD-SHELL":
		return []string{"/bin/sh", "-c", i.Test[1]}
	}
	return nil
}

// healthCommand reads --health-cmd.
func healthCommand(s string) ([]string, error) {
	switch {
	case s == "none" || s == "":
		return nil, nil
	case strings.ContainsRune(s, 0):
		return nil, fmt.Errorf("--health-cmd %q: it holds a NUL", s)
	case !strings.HasPrefix(s, "["):
		// The words of a Containerfile's HEALTHCHECK may stand in front.
		switch kind, rest, _ := strings.Cut(s, " "); {
		case kind == "CMD" && strings.TrimSpace(rest) != "":
			return strings.Fields(rest), nil
		case kind == "CMD-SHELL" && strings.TrimSpace(rest) != "":
			s = rest
		}
		return []string{"/bin/sh", "-c", s}, nil
	}
	var args []string
	if err := json.Unmarshal([]byte(s), &args); err != nil || len(args) == 0 || args[0] == "" {
		return nil, fmt.Errorf("--health-cmd %q: it begins like a JSON array and is none of words", s)
	}
	if args[0] == "CMD" && len(args) > 1 {
		args = args[1:] // podman takes it in both spellings
	} else if args[0] == "CMD-SHELL" && len(args) == 2 {
		return []string{"/bin/sh", "-c", args[1]}, nil
	}
	return args, nil
}
