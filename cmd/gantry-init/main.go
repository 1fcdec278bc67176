// SPDX-License-Identifier: Apache-2.0

// Command gantry-init runs inside the new namespaces of an app: it walks the
// plan its parent donated and becomes the app. It is not for people.
package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/gantryrun/gantry/internal/mainthread"
	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch/child"
)

// Credentials and namespaces belong to a thread; the main one survives
// execve.
func main() {
	runtime.MemProfileRate = 0 // see package quiet
	mainthread.Run(run)
}

func run() {
	if len(os.Args) > 2 && os.Args[1] == child.InitArg {
		os.Exit(child.Stay(os.Args[2], os.Args[3:]))
	}
	if len(os.Args) > 2 && os.Args[1] == stage1.KeepArg {
		os.Exit(child.Keep(os.Args[2], os.Args[2:]))
	}
	if len(os.Args) == 2 && os.Args[1] == stage1.HoldArg {
		child.Hold()
		os.Exit(0)
	}
	reborn := len(os.Args) == 2 && os.Args[1] == child.RebornArg
	if len(os.Args) != 1 && !reborn || !child.Donated() {
		fmt.Fprintln(os.Stderr, "gantry-init is started by gantry")
		os.Exit(125)
	}
	child.Run(reborn)
	os.Exit(125)
}
