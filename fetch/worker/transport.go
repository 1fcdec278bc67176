// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/gantryrun/gantry/fetch/wire"
)

const (
	dialTimeout   = 20 * time.Second
	headerTimeout = 60 * time.Second
	maxRedirects  = 5
)

// guard is the lowest HTTP layer: every request, every redirect and every
// token request passes here one by one, whatever the layers above decided.
//
//   - the registry named by the user: yes;
//   - where the registry redirects to: yes, without any credential, never from
//     https to http (CVE-2020-15157, CVE-2025-24976);
//   - the token server the registry named in a 401, as checked by oras-go
//     (CVE-2019-10214): yes, at exactly that URL;
//   - anything else: no.
//
// Addresses are checked when they are dialled, after the name was resolved,
// so a name that changes its mind (DNS rebinding) gains nothing.
type guard struct {
	base     http.RoundTripper
	home     http.RoundTripper // to the registry itself, which may know us by a certificate
	registry *url.URL          // scheme and host
	pace     pace
	mu       sync.Mutex
	realms   map[string]bool
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	home := sameOrigin(req.URL, g.registry)
	switch {
	case home || g.isRealm(req.URL):
	case req.Response == nil:
		return nil, fail(wire.Blocked, "%s sends us to %s, which is neither itself nor its token server",
			g.registry.Host, req.URL.Host)
	case g.registry.Scheme == "https" && req.URL.Scheme != "https":
		return nil, fail(wire.Blocked, "%s redirects to %s://%s, away from https", g.registry.Host, req.URL.Scheme, req.URL.Host)
	case req.Body != nil && req.Body != http.NoBody:
		return nil, fail(wire.Blocked, "%s redirects an upload to %s", g.registry.Host, req.URL.Host)
	default:
		req = req.Clone(req.Context())
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	base := g.base
	if home {
		base = g.home
	}
	resp, err := g.pace.hold(base, req)
	if err == nil && home && resp.StatusCode == http.StatusUnauthorized {
		g.remember(resp.Header.Values("WWW-Authenticate"))
	}
	return resp, err
}

func (g *guard) isRealm(u *url.URL) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.realms[realmKey(u)]
}

func realmKey(u *url.URL) string { return u.Scheme + "://" + u.Host + u.Path }

// remember notes the token server of a challenge. Whether it may be used is
// decided by oras-go's validateRealm; a realm over http of a registry over
// https is not even remembered.
func (g *guard) remember(challenges []string) {
	for _, c := range challenges {
		_, rest, found := strings.Cut(c, `realm="`)
		if !found {
			continue
		}
		realm, _, _ := strings.Cut(rest, `"`)
		u, err := url.Parse(realm)
		if err != nil || g.registry.Scheme == "https" && u.Scheme != "https" {
			continue
		}
		g.mu.Lock()
		if len(g.realms) < 8 {
			g.realms[realmKey(u)] = true
		}
		g.mu.Unlock()
	}
}

func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Host, b.Host)
}

// newTransport makes the guarded transport for one registry.
func newTransport(registry *url.URL, o wire.NetStart, p pace) (*guard, error) {
	config, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	dial := &dialer{registry: registry.Hostname(), loopback: isLoopback(registry.Hostname()), proxies: proxies()}
	base := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dial.DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
		// A layer is compressed already, and its digest is over the bytes sent.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	g := &guard{registry: registry, pace: p, realms: map[string]bool{}, base: base, home: base}
	if len(o.Certificate) > 0 {
		own, err := tls.X509KeyPair(o.Certificate, o.Key)
		if err != nil {
			return nil, fail(wire.TLS, "the certificate for %s cannot be used: %v", o.Host, err)
		}
		home := base.Clone()
		home.TLSClientConfig.Certificates = []tls.Certificate{own}
		g.home = home
	}
	return g, nil
}

// tlsConfig trusts the host's authorities and those that are for this registry:
// its token server and its storage often have theirs from the same.
func tlsConfig(o wire.NetStart) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.InsecureTLS} //nolint:gosec // asked for by name
	if len(o.Authorities) == 0 {
		return c, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a host without any
	}
	if !pool.AppendCertsFromPEM(o.Authorities) {
		return nil, fail(wire.TLS, "the authorities for %s have no certificate in PEM", o.Host)
	}
	c.RootCAs = pool
	return c, nil
}

// dialer refuses addresses that only a confused or hostile registry would
// send us to.
type dialer struct {
	registry string
	loopback bool // the registry itself is on this host
	proxies  []string
}

// DialContext lets the user's own choices (the registry, the proxies) be
// wherever they are, and checks everybody else's address.
func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	nd := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	if !strings.EqualFold(host, d.registry) && !slices.Contains(d.proxies, addr) {
		nd.Control = d.check
	}
	return nd.DialContext(ctx, network, addr)
}

func (d *dialer) check(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("check address %s: %w", address, err)
	}
	ip := ap.Addr().Unmap().WithZone("")
	if d.loopback && ip.IsLoopback() {
		return nil
	}
	for _, p := range auth.DefaultBlockedRealmPrefixes() {
		if p.Contains(ip) {
			return fail(wire.Blocked, "the registry sends us to %s, an address of this host or of the infrastructure around it", ip)
		}
	}
	return nil
}

// proxies are the addresses the user's environment names.
func proxies() []string {
	var out []string
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		v := os.Getenv(name)
		if v == "" {
			continue
		}
		if !strings.Contains(v, "://") {
			v = "http://" + v
		}
		u, err := url.Parse(v)
		if err != nil {
			continue
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
		}
		if port == "" {
			port = "80"
		}
		out = append(out, net.JoinHostPort(u.Hostname(), port))
	}
	return out
}

func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fail(wire.Blocked, "more than %d redirects", maxRedirects)
	}
	return nil
}

// apiHost is where a canonical host serves its API.
func apiHost(host string) string {
	if host == "docker.io" {
		return "registry-1.docker.io"
	}
	return host
}

// origin decides between https and http. Plain http is only ever spoken to a
// registry on this host, or when asked for by name, and only when it does not
// speak TLS: it answers the hello with something else, or hangs up.
func origin(ctx context.Context, s wire.NetStart) (*url.URL, error) {
	u := &url.URL{Scheme: "https", Host: apiHost(s.Host)}
	if !s.PlainHTTP && !isLoopback(u.Hostname()) {
		return u, nil
	}
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), "443")
	}
	d := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: dialTimeout},
		Config:    &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // only to learn whether it speaks TLS at all
	}
	conn, err := d.DialContext(ctx, "tcp", addr)
	var record tls.RecordHeaderError
	switch {
	case err == nil:
		conn.Close()
		return u, nil
	case errors.As(err, &record), u.Port() == "", errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		u.Scheme = "http"
		return u, nil
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return nil, err
	}
	return u, nil // a TLS server that did not like our hello: https will say why
}
