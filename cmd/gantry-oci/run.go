// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/catch"
	"github.com/gantryrun/gantry/stage1/container"
)

// runContainer creates, starts, and without --detach stays: it forwards
// signals, ends as the command ended, and deletes the container.
func runContainer(f *pflag.FlagSet) func(*call) error {
	o := &createFlags{}
	o.register(f)
	detach := f.BoolP("detach", "d", false, "leave when the command runs")
	keep := f.Bool("keep", false, "do not delete the container when its command ended")
	return func(c *call) error {
		if c.mustEnter() {
			return c.enterUserns(o.Bundle)
		}
		q, err := o.options(c)
		if err != nil {
			return err
		}
		var signals *catch.Signals
		if !*detach {
			// Before there is anybody to lose one.
			if signals, err = catch.Start(forwarded()); err != nil {
				return err
			}
		}
		q.Foreground, q.Attended = !*detach, true
		ct, err := c.store().Create(context.Background(), q)
		if err != nil {
			return err
		}
		defer ct.Close()
		terminal := ct.Attach()
		defer terminal.Detach()
		if err := ct.Begin(); err != nil {
			return errors.Join(err, ct.Delete(true))
		}
		if *detach {
			return nil
		}
		ct.Unlock() // others may kill and delete it meanwhile
		code, err := ct.Wait(signals, terminal)
		if err != nil {
			return err
		}
		return finish(ct, code, *keep)
	}
}

// finish deletes a container that has ended and ends as it did.
func finish(ct *container.Container, code int, keep bool) error {
	if !keep {
		if err := ct.DeleteEnded(); err != nil {
			return err
		}
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}

// forwarded are all signals but those that are about ourselves, and those a
// fault of ours raises.
func forwarded() catch.Set {
	set := ^catch.Set(0)
	for _, sig := range []unix.Signal{
		unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE, unix.SIGPROF,
		unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGSYS, 32, 33, 34,
	} {
		set &^= 1 << (sig - 1)
	}
	return set
}
