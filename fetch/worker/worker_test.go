// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryrun/gantry/fetch/wire"
)

func TestRetryAfter(t *testing.T) {
	for v, want := range map[string]time.Duration{
		"1": time.Second, "0": 0, "86400": 24 * time.Hour, "-5": 0, "9999999999": maxAsked,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0,
	} {
		got, asked := retryAfter(&http.Response{Header: http.Header{"Retry-After": {v}}})
		if !asked || got != want {
			t.Errorf("%q: %s, %v; want %s", v, got, asked, want)
		}
	}
	if _, asked := retryAfter(&http.Response{Header: http.Header{"Retry-After": {"soon"}}}); asked {
		t.Error("soon is no time")
	}
}

// Guards: a registry that asks for a day. Each wait is short, all of them
// together end, and people are told of every one.
func TestPatienceEnds(t *testing.T) {
	var told []string
	p := &patience{tell: func(s string) { told = append(told, s) }}
	busy := &http.Response{
		StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"86400"}},
		Request: &http.Request{URL: &url.URL{Host: "busy.example"}},
	}
	var all time.Duration
	for n := 0; ; n++ {
		wait, err := p.Retry(0, busy, nil) // each a first attempt, of another request
		if err != nil || wait > maxPatience || n > 100 {
			t.Fatalf("wait %s, error %v, after %d", wait, err, n)
		}
		if wait < 0 {
			break
		}
		all += wait
	}
	if all != allPatience {
		t.Errorf("waits %s in all, want %s", all, allPatience)
	}
	want := "busy.example answered 429 Too Many Requests and asks to wait 24h0m0s; trying again in 1m0s"
	if len(told) != 6 || told[0] != want || !strings.Contains(told[5], "gives up") {
		t.Errorf("told %q", told)
	}
}

// drip serves a blob of size bytes, step of them every 5 ms, cut after most of
// an answer (0: not at all).
func drip(t *testing.T, size, step, most int) (s *session, asked *atomic.Int32) {
	t.Helper()
	asked = &atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		from := 0
		if v := r.Header.Get("Range"); v != "" {
			_, _ = fmt.Sscanf(v, "bytes=%d-", &from)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
			w.Header().Set("Content-Length", fmt.Sprint(size-from))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		for sent := 0; from+sent < size && r.Context().Err() == nil; sent += step {
			if most > 0 && sent >= most {
				panic(http.ErrAbortHandler)
			}
			if _, err := w.Write(make([]byte, min(step, size-from-sent))); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	}))
	t.Cleanup(server.Close)
	order := wire.NetStart{Host: strings.TrimPrefix(server.URL, "http://"), Repository: "a/b", PlainHTTP: true}
	s, err := openSession(t.Context(), order, pace{window: 150 * time.Millisecond, least: 1000}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return s, asked
}

// Guards: a registry that hands out a byte at a time, in one answer or cut
// again and again, is given up soon, by name and with what it sent.
func TestDripIsGivenUp(t *testing.T) {
	d := wire.Content{Digest: "sha256:" + strings.Repeat("a", 64), Size: 1 << 20}
	for name, most := range map[string]int{"held open": 0, "cut": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, asked := drip(t, int(d.Size), 1, most)
			err := s.blob(t.Context(), d, io.Discard)
			if n := asked.Load(); err == nil || n != maxAttempts {
				t.Fatalf("asked %d times: %v", n, err)
			}
			var e *wire.Error
			if most > 0 {
				return
			}
			if !errors.As(err, &e) || e.Code != wire.Slow || !strings.Contains(e.Text, s.origin.Host+" sends too slowly: ") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("manifest", func(t *testing.T) {
		t.Parallel()
		s, _ := drip(t, 900, 1, 0)
		_, err := s.manifest(t.Context(), wire.Named{Reference: "v1", Max: 1000}, io.Discard)
		if e := (*wire.Error)(nil); !errors.As(err, &e) || e.Code != wire.Slow {
			t.Errorf("got %v", err)
		}
	})
}

// Guards: a slow link that keeps the pace, whole or cut, gets there, and a
// reader that takes its time is no slowness of the registry's.
func TestSlowLinkGetsThere(t *testing.T) {
	d := wire.Content{Digest: "sha256:" + strings.Repeat("a", 64), Size: 60_000}
	for name, most := range map[string]int{"held open": 0, "cut": 3000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, asked := drip(t, int(d.Size), 200, most) // 40 times the pace at best
			s.pace.window = time.Second
			if most > 0 {
				s.pace.least = 2000
			}
			if err := s.blob(t.Context(), d, io.Discard); err != nil {
				t.Errorf("asked %d times: %v", asked.Load(), err)
			}
		})
	}
	t.Run("slow reader", func(t *testing.T) {
		t.Parallel()
		s, asked := drip(t, int(d.Size), 200, 0)
		s.pace.window = time.Second
		err := s.blob(t.Context(), d, writer(func([]byte) { time.Sleep(200 * time.Millisecond) }))
		if err != nil || asked.Load() != 1 {
			t.Errorf("asked %d times: %v", asked.Load(), err)
		}
	})
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

// Guards: addresses only a confused or hostile registry would send us to.
func TestDialledAddresses(t *testing.T) {
	far, near := &dialer{registry: "ghcr.io"}, &dialer{registry: "127.0.0.1", loopback: true}
	for addr, want := range map[string]struct{ far, near bool }{
		"169.254.169.254:80": {}, "[fe80::1]:443": {}, "0.0.0.0:80": {}, "[::]:80": {},
		"[::ffff:169.254.169.254]:80": {}, "[fd00:ec2::254]:80": {},
		"127.0.0.1:80": {false, true}, "[::1]:80": {false, true}, "[::ffff:127.0.0.1]:80": {false, true},
		"10.0.0.1:443": {true, true}, "140.82.112.3:443": {true, true}, "[2606:50c0::1]:443": {true, true},
	} {
		if got := far.check("tcp", addr, nil) == nil; got != want.far {
			t.Errorf("%s from a distant registry: %v", addr, got)
		}
		if got := near.check("tcp", addr, nil) == nil; got != want.near {
			t.Errorf("%s from a registry here: %v", addr, got)
		}
	}
}

// Guards: a registry without TLS is found out also when it says nothing to a
// TLS hello and hangs up.
func TestPlainRegistryHangsUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			c.Close()
		}
	}()
	u, err := origin(t.Context(), wire.NetStart{Host: l.Addr().String(), PlainHTTP: true})
	if err != nil || u.Scheme != "http" {
		t.Errorf("%v, %v", u, err)
	}
}

func TestLoopbackNames(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "a.localhost": true, "127.0.0.1": true, "127.8.8.8": true, "::1": true,
		"localhost.evil.org": false, "127.0.0.1.nip.io": false, "10.0.0.1": false, "mylocalhost": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("isLoopback(%q) = %v", host, got)
		}
	}
}

// Guards: where a blob's bytes start is what the server says, and only the
// one thing asked for is accepted.
func TestPosition(t *testing.T) {
	d := wire.Content{Digest: "sha256:x", Size: 100}
	for _, tt := range []struct {
		status int
		rng    string
		length int64
		offset int64
		good   bool
	}{
		{200, "", 100, 0, true},
		{200, "", -1, 0, true},
		{200, "", 99, 0, false},
		{200, "", 101, 10, false},
		{200, "", 100, 10, true},
		{206, "bytes 10-99/100", 90, 10, true},
		{206, "bytes 10-99/*", 90, 10, true},
		{206, "bytes 10-99/101", 90, 10, false},
		{206, "bytes 0-99/100", 100, 10, false},
		{206, "", 90, 10, false},
		{206, "bytes 0-99/100", 100, 0, false},
		{416, "", 0, 10, false},
	} {
		resp := &http.Response{
			StatusCode: tt.status, ContentLength: tt.length, Header: http.Header{"Content-Range": {tt.rng}},
			Body: http.NoBody, Request: &http.Request{Method: http.MethodGet, URL: &url.URL{Host: "h"}},
		}
		err := position(resp, d, tt.offset, strings.NewReader(strings.Repeat("x", 100)))
		if (err == nil) != tt.good {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestSignatureNames(t *testing.T) {
	hex := strings.Repeat("a", 64)
	for name, want := range map[string]bool{
		"sha256-" + hex: true, "sha256-" + hex + ".sig": true, "sha256-" + hex[1:]: false, "v1": false, "": false,
	} {
		if got := isSignatureName(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
