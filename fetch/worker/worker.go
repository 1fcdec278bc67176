// SPDX-License-Identifier: Apache-2.0

// Package worker is everything of a fetch that touches foreign bytes. It is
// linked only into gantry-fetch. A worker confines itself, says how well, and
// then serves its parent over one socket until that closes.
package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/fetch/confine"
	"github.com/gantryrun/gantry/fetch/wire"
)

// The descriptors a worker finds beside its socket.
const (
	fdIn   = 4 // verify: the question; convert: compressed bytes; merge: the result
	fdData = 5 // verify: the answer; convert: file contents
	fdIdx  = 6 // convert: the layer's index
	fdIdxs = 5 // merge: the first of the layers' indexes
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// kind is one way to be a worker. donated counts the descriptors above the
// socket; -1 means as many as the parent says on the command line.
type kind struct {
	profile confine.Profile
	donated int
	serve   func(ctx context.Context, c *wire.Conn) error
}

func kinds() map[string]kind {
	return map[string]kind{
		wire.Net: {profile: confine.Profile{
			Network: true, CABundle: true,
			Files:     []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services"},
			OpenFiles: 256, Threads: 64, FileSize: 0, Memory: 512 * mib, GoMemory: 48 * mib,
		}, serve: serveNet},
		wire.Layout: {profile: confine.Profile{
			OpenFiles: 64, Threads: 32, FileSize: 0, Memory: 512 * mib, GoMemory: 48 * mib, CPU: 60,
		}, serve: serveLayout},
		wire.Verify: {profile: confine.Profile{
			OpenFiles: 32, Threads: 32, FileSize: 0, Memory: 512 * mib, GoMemory: 96 * mib, CPU: 60,
		}, donated: 2, serve: serveVerify},
		wire.Convert: {profile: confine.Profile{
			OpenFiles: 32, Threads: 32, FileSize: 1 << 43, Memory: 512 * mib, GoMemory: 32 * mib,
		}, donated: 3, serve: serveConvert},
		wire.Inflate: {profile: confine.Profile{
			OpenFiles: 32, Threads: 32, FileSize: 1 << 43, Memory: 512 * mib, GoMemory: 32 * mib,
		}, donated: 2, serve: serveInflate},
		wire.Merge: {profile: confine.Profile{
			OpenFiles: 1024, Threads: 32, FileSize: 16 * gib, Memory: 2 * gib, GoMemory: 64 * mib, CPU: 600,
		}, donated: -1, serve: serveMerge},
	}
}

// Main is gantry-fetch: args are the kind, the parent's process id and, for
// merge, the number of donated descriptors. The caller has locked the main
// goroutine to its thread and exits with an error's text on standard error.
func Main(args []string) error {
	c, serve, err := Enter(args)
	if err != nil {
		return err
	}
	if err := serve(context.Background(), c); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Enter confines the process as the kind of worker that args ask for, and
// tells the parent so. Serving is left to the caller.
func Enter(args []string) (c *wire.Conn, serve func(context.Context, *wire.Conn) error, err error) {
	k, parent, keep, err := arguments(args)
	if err != nil {
		return nil, nil, err
	}
	state, err := confine.Enter(k.profile, keep, parent)
	if err != nil {
		return nil, nil, fmt.Errorf("confine %s worker: %w", args[0], err)
	}
	if c, err = wire.New(wire.Socket); err != nil {
		return nil, nil, err
	}
	ready := wire.Ready{
		UID: state.UID, GID: state.GID, Seccomp: state.Seccomp,
		Landlock: state.Landlock, NoNewPrivs: state.NoNewPrivs, Root: state.Root,
	}
	if err := c.Send(wire.Message{Op: wire.OpReady, Body: wire.Body(ready)}); err != nil {
		return nil, nil, err
	}
	return c, k.serve, nil
}

func arguments(args []string) (k kind, parent, keep int, err error) {
	if len(args) < 2 {
		return k, 0, 0, errors.New("gantry-fetch is started by gantry, not by hand")
	}
	k, known := kinds()[args[0]]
	if !known {
		return k, 0, 0, fmt.Errorf("unknown kind of worker %q", args[0])
	}
	if parent, err = strconv.Atoi(args[1]); err != nil {
		return k, 0, 0, fmt.Errorf("parent %q is not a process id", args[1])
	}
	donated := k.donated
	if donated < 0 {
		if len(args) < 3 {
			return k, 0, 0, errors.New("number of descriptors missing")
		}
		if donated, err = strconv.Atoi(args[2]); err != nil || donated < 1 {
			return k, 0, 0, fmt.Errorf("%q is not a number of descriptors", args[2])
		}
		k.profile.OpenFiles = uint64(donated) + 32
	}
	for fd := wire.Socket; fd <= wire.Socket+donated; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return k, 0, 0, fmt.Errorf("descriptor %d was not donated", fd)
		}
	}
	return k, parent, wire.Socket + donated, nil
}

// start reads the parent's order, which opens every conversation.
func start(c *wire.Conn, order any) (files []*os.File, err error) {
	m, files, err := c.Recv(true)
	if err != nil {
		return nil, err
	}
	if m.Op != wire.OpStart {
		return nil, fmt.Errorf("%s before start: %w", m.Op, wire.ErrProtocol)
	}
	return files, m.Decode(order)
}

// answer sends the one result of a worker that has one order.
func answer(c *wire.Conn, result any, err error) error {
	m := wire.Message{Op: wire.OpDone}
	if err != nil {
		m.Error = describe(err)
	} else {
		m.Body = wire.Body(result)
	}
	return c.Send(m)
}
