// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/stage1/container"
)

// events prints one document a line.
func events(f *pflag.FlagSet) func(*call) error {
	once := f.Bool("stats", false, "print the figures once")
	interval := f.Duration("interval", 5*time.Second, "print the figures every `TIME`")
	return func(c *call) error {
		if *interval <= 0 {
			return errors.New("--interval: must be more than zero")
		}
		ct, err := c.store().Look(c.args[0])
		if err != nil {
			return err
		}
		defer ct.Close()
		out := json.NewEncoder(os.Stdout)
		if !*once {
			return ct.Follow(*interval, func(e *container.Event) error { return out.Encode(e) })
		}
		e, err := ct.Stats()
		if err != nil {
			return err
		}
		return out.Encode(e)
	}
}
