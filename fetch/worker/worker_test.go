// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gantryrun/gantry/fetch/wire"
)

func TestRetryAfter(t *testing.T) {
	for v, want := range map[string]time.Duration{
		"1": time.Second, "0": 0, "86400": maxPatience, "-5": 0,
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
