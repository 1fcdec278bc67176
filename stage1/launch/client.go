// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// ErrVersion means that a pod's supervisor is too old for a request.
var ErrVersion = errors.New("the pod's supervisor is older than this gantry")

// Client talks to the supervisor of one pod.
type Client struct {
	fd int
}

// Dial connects to the control socket in a pod directory.
func Dial(podDir *os.File) (*Client, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("connect to supervisor: %w", err)
	}
	// The path below a descriptor always fits into a socket address.
	address := &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", podDir.Fd(), stage1.ControlFile)}
	if err := unix.Connect(fd, address); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to supervisor: %w", err)
	}
	return &Client{fd: fd}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return unix.Close(c.fd) }

// Ask sends one request and waits for the reply. What the supervisor refuses
// is an error.
func (c *Client) Ask(r stage1.Request) (stage1.Reply, error) {
	var reply stage1.Reply
	b, err := json.Marshal(r)
	if err != nil {
		return reply, err
	}
	if _, err := unix.SendmsgN(c.fd, b, nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return reply, fmt.Errorf("ask supervisor: %w", err)
	}
	b = make([]byte, stage1.ControlMax)
	n, err := read(c.fd, b)
	if err != nil {
		return reply, fmt.Errorf("hear from supervisor: %w", err)
	}
	if err := json.Unmarshal(b[:n], &reply); err != nil {
		return reply, fmt.Errorf("hear from supervisor: %w", err)
	}
	switch {
	case reply.Needed > 0:
		return reply, fmt.Errorf("%w: it speaks protocol %d, %q needs %d", ErrVersion, reply.Version, r.Op, reply.Needed)
	case reply.Error != "":
		return reply, errors.New(reply.Error)
	}
	return reply, nil
}

func read(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err == nil && n == 0 {
			err = unix.ECONNRESET
		}
		if err != unix.EINTR {
			return n, err
		}
	}
}
