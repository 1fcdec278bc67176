// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Landlock is the second wall behind the empty root: it also holds for
// descriptors of directories, and it scopes signals and abstract sockets. The
// rights are those of ABI 6; what the kernel lacks is left out and the ABI in
// force reported.
const (
	allPaths  = landlock.AccessFSSet(1<<16 - 1)
	allScopes = landlock.ScopedSet(1<<2 - 1)
	bindTCP   = landlock.AccessNetSet(llsys.AccessNetBindTCP)
	allTCP    = bindTCP | landlock.AccessNetSet(llsys.AccessNetConnectTCP)
)

// restrictPaths denies every path (with files: all but reading below the
// worker's root), every TCP port (with a network: listening), and signals and
// abstract sockets of others.
func restrictPaths(p Profile, files bool) (abi int, err error) {
	abi, err = llsys.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return 0, nil
	}
	ports := allTCP
	if p.Network {
		ports = bindTCP
	}
	cfg, err := landlock.NewConfig(allPaths, ports, allScopes)
	if err != nil {
		return 0, fmt.Errorf("describe landlock domain: %w", err)
	}
	var rules []landlock.Rule
	if files {
		rules = append(rules, landlock.RODirs("/"))
	}
	if err := cfg.BestEffort().Restrict(rules...); err != nil {
		return 0, fmt.Errorf("enter landlock domain: %w", err)
	}
	return min(abi, 6), nil
}
