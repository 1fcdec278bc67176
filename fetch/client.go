// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/fetch/wire"
)

// stillTime is how long a stream from a worker may stand still. The worker has
// shorter limits of its own and tries again; this one is for a worker that
// does not.
const stillTime = 10 * time.Minute

// client speaks to a worker that serves many requests at once.
type client struct {
	p       *process
	name    string   // of the image, for notes
	tell    Progress // gets notes
	mu      sync.Mutex
	next    uint32
	pending map[uint32]chan wire.Message
	down    chan struct{} // closed when the conversation is over
	err     error         // why; valid after down
}

// converse starts the conversation. Messages for requests nobody made end it.
func converse(p *process, start any, name string, tell Progress) (*client, error) {
	if err := p.begin(start); err != nil {
		return nil, err
	}
	if tell == nil {
		tell = silent{}
	}
	c := &client{p: p, name: name, tell: tell, pending: map[uint32]chan wire.Message{}, down: make(chan struct{})}
	go c.listen()
	return c, nil
}

func (c *client) listen() {
	notes := 0
	for {
		m, _, err := c.p.conn.Recv(false)
		if err == nil && m.Op == wire.OpNote {
			if notes++; notes <= wire.MaxNotes {
				c.note(m)
				continue
			}
			err = fmt.Errorf("more than %d notes: %w", wire.MaxNotes, wire.ErrProtocol)
		}
		if err == nil && m.Op != wire.OpDone {
			err = wire.ErrProtocol
		}
		if err != nil {
			c.hangUp(err)
			return
		}
		c.mu.Lock()
		reply, asked := c.pending[m.ID]
		delete(c.pending, m.ID)
		c.mu.Unlock()
		if !asked {
			c.hangUp(fmt.Errorf("answer to a question nobody asked: %w", wire.ErrProtocol))
			return
		}
		reply <- m
	}
}

// note passes on why the worker waits.
func (c *client) note(m wire.Message) {
	var n wire.Note
	if m.Decode(&n) == nil {
		c.tell.Line("fetch " + c.name + ": " + wire.Line(n.Text, wire.MaxNote))
	}
}

func (c *client) hangUp(err error) {
	c.p.kill()
	c.err = c.p.failure(err)
	close(c.down)
}

// ask sends a request. The one answer arrives on the channel.
func (c *client) ask(op string, body any, files ...*os.File) (<-chan wire.Message, error) {
	reply := make(chan wire.Message, 1)
	c.mu.Lock()
	c.next++
	id := c.next
	c.pending[id] = reply
	c.mu.Unlock()
	if err := c.p.conn.Send(wire.Message{ID: id, Op: op, Body: wire.Body(body)}, files...); err != nil {
		// Whoever hangs up may have said why before: what it sent is still
		// read, and tells more than that it is gone.
		select {
		case <-c.down:
			return nil, c.err
		case <-time.After(settleTime):
			return nil, c.p.failure(err)
		}
	}
	return reply, nil
}

// await waits for an answer, no longer than within (0: as long as it takes).
func (c *client) await(ctx context.Context, reply <-chan wire.Message, within time.Duration, result any) error {
	var late <-chan time.Time
	if within > 0 {
		t := time.NewTimer(within)
		defer t.Stop()
		late = t.C
	}
	select {
	case m := <-reply:
		if m.Error != nil {
			return m.Error
		}
		if result == nil {
			return nil
		}
		return m.Decode(result)
	case <-c.down:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	case <-late:
		c.p.kill()
		return fmt.Errorf("%s worker did not answer in time", c.p.kind)
	}
}

// call is ask and await for requests whose answer is all there is.
func (c *client) call(ctx context.Context, op string, body, result any) error {
	reply, err := c.ask(op, body)
	if err != nil {
		return err
	}
	return c.await(ctx, reply, stillTime, result)
}

// stream sends a request whose answer is bytes through a pipe and then a word
// on how it went. Bytes must be read to their end or closed.
func (c *client) stream(ctx context.Context, op string, body any) (*stream, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer w.Close()
	widen(r)
	reply, err := c.ask(op, body, w)
	if err != nil {
		r.Close()
		return nil, err
	}
	s := &stream{c: c, ctx: ctx, r: r, reply: reply}
	s.stop = context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	return s, nil
}

// widen asks for a pipe of 1 MiB, which saves half of the switches between
// the processes. It may be refused: the default works too.
func widen(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) })
}

// stream is bytes from a worker. EOF means that the worker says it sent all.
type stream struct {
	c      *client
	ctx    context.Context
	r      *os.File
	reply  <-chan wire.Message
	stop   func() bool
	answer any // where the last word goes, if it matters
}

func (s *stream) Read(b []byte) (int, error) {
	if err := s.r.SetReadDeadline(time.Now().Add(stillTime)); err != nil {
		return 0, err
	}
	// In this order: what is cancelled later moves the deadline again.
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.Read(b)
	switch {
	case n > 0 || err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		if err := s.c.await(s.ctx, s.reply, settleTime, s.answer); err != nil {
			return 0, err
		}
		return 0, io.EOF
	case s.ctx.Err() != nil:
		return 0, s.ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.c.p.kill()
		return 0, fmt.Errorf("%s worker sent nothing for %s", s.c.p.kind, stillTime)
	}
	return 0, err
}

func (s *stream) Close() error {
	s.stop()
	return s.r.Close()
}
