// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"oras.land/oras-go/v2/registry/remote/retry"
)

// Attempts and waits. A registry that asks for patience (Retry-After) gets
// it, up to maxPatience at a time.
const (
	maxAttempts = 5
	firstWait   = 200 * time.Millisecond
	maxWait     = 5 * time.Second
	maxPatience = 60 * time.Second
)

// patience is oras-go's retry policy with Retry-After honoured on every
// status that may carry it, in both its forms.
type patience struct{}

func (patience) Retry(attempt int, resp *http.Response, err error) (time.Duration, error) {
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
	if wait, asked := retryAfter(resp); asked {
		return wait, nil
	}
	return backoff(attempt), nil
}

func retryAfter(resp *http.Response) (time.Duration, bool) {
	if resp == nil {
		return 0, false
	}
	v := resp.Header.Get("Retry-After")
	var wait time.Duration
	if s, err := strconv.Atoi(v); err == nil {
		wait = time.Duration(min(s, int(maxPatience/time.Second))) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		wait = time.Until(t)
	} else {
		return 0, false
	}
	return max(0, min(wait, maxPatience)), true
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
