// SPDX-License-Identifier: Apache-2.0

// Command gantry fetches, verifies and launches OCI images without a daemon.
package main

import (
	"os"
	"runtime/debug"

	"github.com/gantryrun/gantry/cmd/gantry/cli"
	"github.com/gantryrun/gantry/internal/mainthread"
)

// leisure is how much later than usual garbage is collected, in percent of
// what is alive: never below 16 MiB. A launch allocates a tenth of that and
// would spend a third of its time on collections.
const leisure = 400

// The app is cloned by, and the supervisor is exec'ed in place of, one and the
// same thread: PDEATHSIG fires when the creating thread ends (prctl(2)), and
// execve(2) keeps only the calling thread when that is the group leader.
func main() {
	mainthread.Run(func() {
		debug.SetGCPercent(leisure)
		os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	})
}
