// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Healthcheck is HEALTHCHECK of Docker's configurations, which the image
// specification has no field for. Its command runs in the app's sandbox, as
// the app's own does.
type Healthcheck struct {
	Test        []string      `json:"Test,omitempty"` // NONE; CMD and words; CMD-SHELL and a line
	Interval    time.Duration `json:"Interval,omitempty"`
	Timeout     time.Duration `json:"Timeout,omitempty"`
	StartPeriod time.Duration `json:"StartPeriod,omitempty"`
	Retries     int           `json:"Retries,omitempty"`
}

// ParseHealthcheck reads it from an image's configuration, nil if there is
// none. Most have none, and are not decoded again for it.
func ParseHealthcheck(config []byte) (*Healthcheck, error) {
	if !bytes.Contains(config, []byte(`"Healthcheck"`)) || len(config) > MaxConfig {
		return nil, nil
	}
	var c struct {
		Config struct {
			Healthcheck *Healthcheck `json:"Healthcheck"`
		} `json:"config"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("image configuration: config: Healthcheck: %w", err)
	}
	h := c.Config.Healthcheck
	if h == nil || len(h.Test) == 0 {
		return nil, nil // inherited from a base, for who builds images
	}
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("image configuration: config: Healthcheck: %w", err)
	}
	return h, nil
}

func (h *Healthcheck) check() error {
	if err := checkCount("Test", len(h.Test)); err != nil {
		return err
	}
	for i, s := range h.Test {
		if len(s) > maxString || bytes.IndexByte([]byte(s), 0) >= 0 {
			return fmt.Errorf("Test[%d]: it is too long, or holds a NUL", i)
		}
	}
	switch kind := h.Test[0]; {
	case kind == "NONE" && len(h.Test) == 1, kind == "CMD" && len(h.Test) > 1 && h.Test[1] != "", kind == "CMD-SHELL" && len(h.Test) == 2:
	default:
		return fmt.Errorf("Test: %s with %d words is none of NONE, CMD and CMD-SHELL", quote(kind), len(h.Test)-1)
	}
	for name, d := range map[string]time.Duration{"Interval": h.Interval, "Timeout": h.Timeout, "StartPeriod": h.StartPeriod} {
		if d < 0 {
			return fmt.Errorf("%s: %d is below zero", name, d)
		}
	}
	if h.Retries < 0 {
		return fmt.Errorf("Retries: %d is below zero", h.Retries)
	}
	return nil
}
