// SPDX-License-Identifier: Apache-2.0

// Command gantry-stage1 is the supervisor of one app: gantry becomes it in
// place when the app runs. It is not for people.
package main

import (
	"os"
	"strconv"

	"github.com/gantryrun/gantry/internal/mainthread"
	"github.com/gantryrun/gantry/stage1/launch/supervise"
)

// The app dies with this thread, and pending signals wait on it.
func main() { mainthread.Run(run) }

func run() {
	if len(os.Args) < 2 {
		usage()
	}
	if len(os.Args) > 3 && os.Args[1] == supervise.ExecArg {
		err := supervise.Exec(os.Args[2], os.Args[3:])
		os.Stderr.WriteString("gantry-stage1: execute " + os.Args[2] + ": " + err.Error() + "\n")
		os.Exit(127)
	}
	fd, err := strconv.Atoi(os.Args[1])
	if err != nil || fd < 3 {
		usage()
	}
	if err := supervise.Run(fd); err != nil {
		os.Stderr.WriteString("gantry-stage1: " + err.Error() + "\n")
		os.Exit(125)
	}
}

func usage() {
	os.Stderr.WriteString("gantry-stage1 is started by gantry\n")
	os.Exit(125)
}
