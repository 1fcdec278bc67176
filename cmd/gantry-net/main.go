// SPDX-License-Identifier: Apache-2.0

// Command gantry-net runs the plugins of networks that other programs describe
// (CNI). It reads one request as JSON from its standard input and answers on
// its standard output; as "gantry-net del" it detaches a pod that has ended, by
// what was recorded when it was attached. It is not for people.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/gantryrun/gantry/netns/cni"
	"github.com/gantryrun/gantry/netns/cni/invoke"
)

const maxRequest = 1 << 20

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	switch a := os.Args[1:]; {
	case len(a) == 0:
		os.Exit(answer(ctx))
	case len(a) == 3 && a[0] == "del" && a[1] == "--pod":
		os.Exit(del(ctx, a[2]))
	}
	fmt.Fprintln(os.Stderr, "gantry-net is started by gantry")
	os.Exit(125)
}

func answer(ctx context.Context) int {
	var q cni.Request
	b, err := io.ReadAll(io.LimitReader(os.Stdin, maxRequest))
	if err == nil {
		err = json.Unmarshal(b, &q)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gantry-net: read request:", err)
		return 125
	}
	a := invoke.Do(ctx, q)
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		fmt.Fprintln(os.Stderr, "gantry-net: answer:", err)
		return 125
	}
	if a.Error != nil {
		return 1
	}
	return 0
}

// del is run by the supervisor when the app has ended. Its standard input is the
// pod's network namespace while that is there.
func del(ctx context.Context, dir string) int {
	if err := invoke.DelPod(ctx, dir, namespace()); err != nil {
		fmt.Fprintln(os.Stderr, "gantry-net:", err)
		return 1
	}
	return 0
}

// namespace is a path under which plugins find the namespace on our standard
// input, or "".
func namespace() string {
	path := fmt.Sprintf("/proc/%d/fd/0", os.Getpid())
	var fs syscall.Statfs_t
	const nsfs = 0x6e736673
	if syscall.Statfs(path, &fs) != nil || fs.Type != nsfs {
		return ""
	}
	return path
}
