// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/retry"
)

// Attempts and waits. A registry that asks for patience (Retry-After) gets
// it, up to maxPatience at a time and allPatience in one fetch. People are
// told of every wait of toldWait and more.
const (
	maxAttempts = 5
	firstWait   = 200 * time.Millisecond
	maxWait     = 5 * time.Second
	maxPatience = time.Minute
	allPatience = 5 * time.Minute
	toldWait    = time.Second
)

// patience is oras-go's retry policy with Retry-After honoured on every
// status that may carry it, in both its forms. One lasts for a fetch.
type patience struct {
	tell func(string)
	mu   sync.Mutex
	used time.Duration // of allPatience
}

func (p *patience) Retry(attempt int, resp *http.Response, err error) (time.Duration, error) {
	if attempt >= maxAttempts {
		return -1, nil
	}
	if errors.Is(err, io.EOF) { // cut before the first byte of an answer
		return backoff(attempt), nil
	}
	if again, err := retry.DefaultPredicate(resp, err); err != nil || !again {
		return -1, err
	}
	if resp != nil && resp.StatusCode == http.StatusNotImplemented {
		return -1, nil
	}
	asked, ok := retryAfter(resp)
	if !ok {
		wait := backoff(attempt)
		p.say(resp, "", wait)
		return wait, nil
	}
	wait := min(asked, maxPatience)
	if !p.spend(wait) {
		p.tell(fmt.Sprintf("%s asks to wait %s; this fetch has waited long enough and gives up", resp.Request.URL.Host, asked))
		return -1, nil
	}
	p.say(resp, fmt.Sprintf(" and asks to wait %s", asked), wait)
	return wait, nil
}

// spend takes a wait from what this fetch may wait in all.
func (p *patience) spend(wait time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used+wait > allPatience {
		return false
	}
	p.used += wait
	return true
}

// say tells people of a wait they would notice.
func (p *patience) say(resp *http.Response, asked string, wait time.Duration) {
	if resp == nil || wait < toldWait {
		return
	}
	p.tell(fmt.Sprintf("%s answered %d %s%s; trying again in %s", resp.Request.URL.Host, resp.StatusCode,
		http.StatusText(resp.StatusCode), asked, wait.Round(100*time.Millisecond)))
}

// maxAsked keeps an absurd number of seconds from overflowing.
const maxAsked = 365 * 24 * time.Hour

func retryAfter(resp *http.Response) (time.Duration, bool) {
	if resp == nil {
		return 0, false
	}
	v := resp.Header.Get("Retry-After")
	var wait time.Duration
	if s, err := strconv.Atoi(v); err == nil {
		wait = time.Duration(min(s, int(maxAsked/time.Second))) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		wait = time.Until(t).Round(time.Second)
	} else {
		return 0, false
	}
	return max(0, min(wait, maxAsked)), true
}

func backoff(attempt int) time.Duration {
	wait := min(firstWait<<attempt, maxWait)
	return wait - time.Duration(rand.Int64N(int64(wait/4))) //nolint:gosec // it only spreads attempts in time
}

// pause waits or is cancelled.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
