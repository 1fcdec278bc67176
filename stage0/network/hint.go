// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/netns/lease"
)

// advise says what to do about an address that cannot be had.
func advise(err error, network string) error {
	var taken *lease.Taken
	var full *lease.Full
	switch {
	case errors.As(err, &taken):
		return hint.With(err, fmt.Sprintf("'gantry stop %.8s' frees it; or leave the address to the network", taken.UUID))
	case errors.As(err, &full):
		return hint.With(err, fmt.Sprintf("stop a pod of it, or give %s a larger subnet: 'gantry network inspect %s' shows who is on it", network, network))
	}
	return err
}
