// SPDX-License-Identifier: Apache-2.0

// Package wire is what gantry and its confined workers say to each other:
// small versioned JSON messages over a SEQPACKET socket, with descriptors
// passed from the parent to the worker and never the other way. Bulk bytes
// travel through pipes named by a message, so no message is ever large.
package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Version is spoken by both sides; they are installed together, so they must
// agree exactly.
const Version = 1

// MaxMessage bounds one message. A longer one is cut by the kernel, noticed,
// and ends the conversation.
const MaxMessage = 64 << 10

// maxFiles bounds the descriptors of one message.
const maxFiles = 4

// Socket is the descriptor number a worker finds its socket at.
const Socket = 3

// Kinds of workers.
const (
	Net     = "net"     // registry client: the only one with a network
	Layout  = "layout"  // reads the index of a layout or an archive
	Verify  = "verify"  // judges foreign signature material
	Convert = "convert" // one layer: compressed tar in, data and index out
	Merge   = "merge"   // layer indexes in, one file system image out
	Inflate = "inflate" // a compressed archive in, a plain one out
)

// Message is one packet.
type Message struct {
	V     int             `json:"v"`
	ID    uint32          `json:"id,omitempty"`
	Op    string          `json:"op"`
	Body  json.RawMessage `json:"body,omitempty"`
	Error *Error          `json:"error,omitempty"`
}

// Ops.
const (
	OpReady        = "ready" // worker: confined, and how well
	OpStart        = "start"
	OpResolve      = "resolve"
	OpManifest     = "manifest"
	OpSignatures   = "signatures"
	OpBlob         = "blob"
	OpPushBlob     = "push-blob"
	OpPushManifest = "push-manifest"
	OpDocker       = "docker" // what an archive of docker save holds
	OpNeed         = "need"   // worker: the parent is asked for a blob of the layout
	OpNote         = "note"   // worker: a sentence for people, no answer
	OpDone         = "done"   // the answer to everything else
)

// ErrProtocol says that the other side does not keep to the protocol.
var ErrProtocol = errors.New("protocol violation")

// Conn is one end of the socket. Send may be called from many goroutines,
// Recv from one.
type Conn struct {
	f   *os.File
	raw syscall.RawConn
}

// Pair makes a connected socket: our end, and the descriptor to donate.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make worker socket: %w", err)
	}
	c, err := New(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(fds[1]), "worker socket"), nil
}

// New takes over a SEQPACKET socket.
func New(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("prepare worker socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "worker socket")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("prepare worker socket: %w", err)
	}
	return &Conn{f: f, raw: raw}, nil
}

// Close ends the conversation.
func (c *Conn) Close() error { return c.f.Close() }

// SetDeadline bounds Send and Recv from now on; the zero time lifts it.
func (c *Conn) SetDeadline(t time.Time) error { return c.f.SetDeadline(t) }

// Send writes one message and donates files. The caller keeps its own
// descriptors and closes them.
func (c *Conn) Send(m Message, files ...*os.File) error {
	m.V = Version
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s message: %w", m.Op, err)
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("send %s message: %d bytes, more than %d: %w", m.Op, len(b), MaxMessage, ErrProtocol)
	}
	rights, done, err := rightsOf(files)
	if err != nil {
		return fmt.Errorf("send %s message: %w", m.Op, err)
	}
	defer done()
	var sendErr error
	err = c.raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendmsg(int(fd), b, rights, nil, unix.MSG_NOSIGNAL)
		return sendErr != unix.EAGAIN
	})
	if err = errors.Join(err, sendErr); err != nil {
		return fmt.Errorf("send %s message: %w", m.Op, err)
	}
	return nil
}

// rightsOf builds the control message without File.Fd, which would make the
// parent's pipes blocking and deaf to deadlines.
func rightsOf(files []*os.File) (rights []byte, done func(), err error) {
	if len(files) == 0 {
		return nil, func() {}, nil
	}
	var fds []int
	done = func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err == nil {
			var dupErr error
			err = raw.Control(func(fd uintptr) {
				var n int
				n, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
				if dupErr == nil {
					fds = append(fds, n)
				}
			})
			err = errors.Join(err, dupErr)
		}
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("donate %s: %w", f.Name(), err)
		}
	}
	return unix.UnixRights(fds...), done, nil
}

// Recv reads one message. Descriptors are accepted only when wanted: without
// room for them in the call the kernel drops what the other side attached, so
// a hostile worker cannot fill our table.
func (c *Conn) Recv(wantFiles bool) (Message, []*os.File, error) {
	buf := make([]byte, MaxMessage)
	var oob []byte
	if wantFiles {
		oob = make([]byte, unix.CmsgSpace(maxFiles*4))
	}
	var n, oobn, flags int
	var recvErr error
	reset := false
	err := c.raw.Read(func(fd uintptr) bool {
		n, oobn, flags, _, recvErr = unix.Recvmsg(int(fd), buf, oob, unix.MSG_CMSG_CLOEXEC)
		// Whoever ends with our messages unread resets the socket. That is
		// told once, and before what it had sent, which is still there.
		if recvErr == unix.ECONNRESET && !reset {
			reset = true
			n, oobn, flags, _, recvErr = unix.Recvmsg(int(fd), buf, oob, unix.MSG_CMSG_CLOEXEC)
		}
		return recvErr != unix.EAGAIN && recvErr != unix.EINTR
	})
	if err = errors.Join(err, recvErr); err != nil {
		return Message{}, nil, fmt.Errorf("receive message: %w", err)
	}
	if n == 0 {
		return Message{}, nil, io.EOF
	}
	files, err := filesOf(oob[:oobn])
	if err != nil {
		return Message{}, nil, err
	}
	m, err := decode(buf[:n], flags)
	if err != nil {
		closeAll(files)
		return Message{}, nil, err
	}
	return m, files, nil
}

func decode(b []byte, flags int) (Message, error) {
	if flags&unix.MSG_TRUNC != 0 {
		return Message{}, fmt.Errorf("message of more than %d bytes: %w", MaxMessage, ErrProtocol)
	}
	var m Message
	if err := json.Unmarshal(b, &m); err != nil {
		return Message{}, fmt.Errorf("message is not one of ours: %w", ErrProtocol)
	}
	if m.V != Version {
		return Message{}, fmt.Errorf("message of protocol version %d, want %d: gantry and gantry-fetch come from different releases: %w", m.V, Version, ErrProtocol)
	}
	m.Error.clean()
	return m, nil
}

func filesOf(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("read donated descriptors: %w", err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("read donated descriptors: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "donated"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Body encodes v for a Message. Our own types always encode.
func Body(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("wire: encode %T: %v", v, err))
	}
	return b
}

// Decode reads a message's body into v.
func (m Message) Decode(v any) error {
	if err := json.Unmarshal(m.Body, v); err != nil {
		return fmt.Errorf("%s message has a body that is not ours: %w", m.Op, ErrProtocol)
	}
	return nil
}
