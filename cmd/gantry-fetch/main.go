// SPDX-License-Identifier: Apache-2.0

// Command gantry-fetch is started by gantry for everything foreign: it talks
// to registries, judges signatures and converts layers, each in a process of
// its own with no privileges. It is not meant to be run by hand.
package main

import (
	"fmt"
	"os"

	"github.com/gantryrun/gantry/fetch/worker"
	"github.com/gantryrun/gantry/internal/mainthread"
)

// The parent's death reaches the thread that asked for it, so main keeps its
// thread from before the first system call to the end.
func main() {
	mainthread.Run(func() {
		if err := worker.Main(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "gantry-fetch:", err)
			os.Exit(125)
		}
	})
}
