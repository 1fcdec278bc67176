// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/wire"
	"github.com/gantryrun/gantry/stage1"
)

// Guards: a container that joins a user namespace was taken for the process
// that had only made it, when that one was slow to tell and the container was
// not: run ended with status 0 while the app went on.
func TestCreatedIsHeardBeforeWhoItIs(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(self)
	say := func(m stage1.Message, oob []byte) {
		if err := unix.Sendmsg(pair[1], wire.Encode(nil, &m), oob, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	say(stage1.Message{Created: true}, nil)
	say(stage1.Message{Child: true}, unix.UnixRights(self))
	_ = unix.Close(pair[1])

	got, err := syncSocket{fd: pair[0], reborn: true}.wait(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !got.created || got.child == nil {
		t.Errorf("created %v, process %v", got.created, got.child)
	}
}
