// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

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
		q, err := o.options(c)
		if err != nil {
			return err
		}
		var signals chan os.Signal
		if !*detach {
			signals = make(chan os.Signal, 64)
			signal.Notify(signals) // before there is anybody to lose one
		}
		q.Foreground = !*detach
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
		go forward(ct, terminal, signals)
		return finish(ct, *keep)
	}
}

// finish waits for the end of a container and ends as it did.
func finish(ct *container.Container, keep bool) error {
	code, err := ct.Wait()
	if err != nil {
		return err
	}
	if !keep {
		if err := ct.DeleteAgain(); err != nil {
			return err
		}
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}

// forward passes signals on, but for those that are about ourselves.
func forward(ct *container.Container, terminal *container.Terminal, signals <-chan os.Signal) {
	for s := range signals {
		sig, ok := s.(syscall.Signal)
		if sig == unix.SIGWINCH && terminal != nil {
			terminal.Resize() // its own job hears of it from the kernel
			continue
		}
		if !ok || sig == unix.SIGCHLD || sig == unix.SIGURG || sig == unix.SIGPIPE {
			continue
		}
		_ = ct.Kill(sig, false) // it may just have ended
	}
}
