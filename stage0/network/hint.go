// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"

	"github.com/gantryrun/gantry/netns/lease"
)

// hinted is an error with a next step.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// Hint says what to do.
func (h *hinted) Hint() string { return h.hint }

// advise says what to do about an address that cannot be had.
func advise(err error, network string) error {
	var taken *lease.Taken
	var full *lease.Full
	switch {
	case errors.As(err, &taken):
		return &hinted{err, fmt.Sprintf("'gantry stop %.8s' frees it; or leave the address to the network", taken.UUID)}
	case errors.As(err, &full):
		return &hinted{err, fmt.Sprintf("stop a pod of it, or give %s a larger subnet: 'gantry network inspect %s' shows who is on it", network, network)}
	}
	return err
}
