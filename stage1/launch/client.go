// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// ErrVersion means that a pod's supervisor is too old for a request.
var ErrVersion = errors.New("the pod's supervisor is older than this gantry")

// ErrSilent means that nobody answers at a pod's control socket.
var ErrSilent = errors.New("it does not answer: the pod is still being started, or its supervisor hangs")

// patience is how long a supervisor may take to answer.
const patience = 5 * time.Second

// Client talks to the supervisor of one pod.
type Client struct {
	fd int
}

// Dial connects to the control socket in a pod directory.
func Dial(podDir *os.File) (*Client, error) { return dial(podDir, patience) }

func dial(podDir *os.File, patience time.Duration) (*Client, error) {
	fd, err := connect(podDir, stage1.ControlFile, patience)
	if err != nil {
		return nil, fmt.Errorf("connect to supervisor: %w", silent(err))
	}
	return &Client{fd: fd}, nil
}

// connect connects to a socket of a directory.
func connect(dir *os.File, name string, patience time.Duration) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// The path below a descriptor always fits into a socket address.
	address := &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)}
	if err = waitFor(fd, patience); err == nil {
		err = unix.Connect(fd, address)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// waitFor bounds every connect, send and receive; 0 is no bound.
func waitFor(fd int, d time.Duration) error {
	t := unix.NsecToTimeval(d.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &t); err != nil {
		return err
	}
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &t)
}

// silent names what the kernel says when the bound was reached.
func silent(err error) error {
	if err == unix.EAGAIN {
		return ErrSilent
	}
	return err
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
		return reply, fmt.Errorf("ask supervisor: %w", silent(err))
	}
	if reply, err = c.hear(); err != nil {
		return reply, err
	}
	switch {
	case reply.Needed > 0:
		return reply, fmt.Errorf("%w: it speaks protocol %d, %q needs %d", ErrVersion, reply.Version, r.Op, reply.Needed)
	case reply.Error != "":
		return reply, errors.New(reply.Error)
	}
	return reply, nil
}

// End waits, however long it takes, for the app to end and returns its final
// status. A supervisor that was killed says nothing: that is an error.
func (c *Client) End(app string) (stage1.Status, error) {
	if err := waitFor(c.fd, 0); err != nil {
		return stage1.Status{}, fmt.Errorf("wait for supervisor: %w", err)
	}
	for {
		reply, err := c.hear()
		if err != nil {
			return stage1.Status{}, err
		}
		if st := reply.Apps[app]; st.Exit != nil {
			return st, nil
		}
	}
}

// hear receives one reply.
func (c *Client) hear() (stage1.Reply, error) {
	var reply stage1.Reply
	b := make([]byte, stage1.ControlMax)
	n, err := read(c.fd, b)
	if err == nil {
		err = json.Unmarshal(b[:n], &reply)
	}
	if err != nil {
		return reply, fmt.Errorf("hear from supervisor: %w", silent(err))
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
