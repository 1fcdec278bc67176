// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gantryrun/gantry/fetch/wire"
)

// pace is how slow a body may be: at least so many bytes in so much time of
// waiting for them. A link of 8 kB/s that four layers share gives each twice
// that.
type pace struct {
	window time.Duration
	least  int64
}

// usual is about 1 kB/s.
func usual() pace { return pace{window: time.Minute, least: 64 << 10} }

// hold makes a transport's bodies keep the pace.
func (p pace) hold(base http.RoundTripper, req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	resp, err := base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	b := &paced{ReadCloser: resp.Body, pace: p, host: req.URL.Host, cancel: cancel, left: p.window}
	b.timer = time.AfterFunc(p.window, b.late)
	b.timer.Stop()
	resp.Body = b
	return resp, nil
}

// paced is a body that must keep a pace. Only time spent in Read counts, so a
// parent that takes its time costs the registry nothing.
type paced struct {
	io.ReadCloser
	pace
	host   string
	cancel context.CancelFunc // unblocks Read
	timer  *time.Timer
	tooLow atomic.Bool
	left   time.Duration // of this window
	got    int64         // in this window
}

func (b *paced) late() {
	b.tooLow.Store(true)
	b.cancel()
}

func (b *paced) Read(p []byte) (int, error) {
	if b.tooLow.Load() {
		return 0, b.slow()
	}
	begin := time.Now()
	b.timer.Reset(b.left)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	b.got += int64(n)
	b.left -= time.Since(begin)
	switch {
	case errors.Is(err, io.EOF):
	case b.got >= b.least && !b.tooLow.Load():
		b.got, b.left = 0, b.window
	case b.left <= 0 || b.tooLow.Load():
		b.late()
		return n, b.slow()
	}
	return n, err
}

func (b *paced) slow() error {
	return fail(wire.Slow, "%s sends too slowly: %d bytes in %s, where gantry waits for at least %d", b.host, b.got, b.window, b.least)
}

func (b *paced) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel()
	return err
}
