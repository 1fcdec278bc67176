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
	"os"
	"strings"
	"syscall"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/gantryrun/gantry/fetch/wire"
)

// describe turns any failure into what crosses the socket: a class the parent
// acts upon and a text for people.
func describe(err error) *wire.Error {
	var own *wire.Error
	if errors.As(err, &own) {
		out := *own
		out.Text = wire.Clean(own.Text, 2<<10)
		return &out
	}
	e := &wire.Error{Code: wire.Other, Text: wire.Clean(err.Error(), 2<<10)}
	var status *errcode.ErrorResponse
	if errors.As(err, &status) {
		return describeStatus(status)
	}
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		return &wire.Error{Code: wire.Unauthorized, Status: http.StatusUnauthorized, Text: "the registry asks for a user and a password"}
	}
	e.Code = classify(err)
	if text := plain(err); text != "" {
		e.Text = wire.Clean(text, 2<<10)
	}
	return e
}

// describeStatus words an HTTP status with what the registry says itself.
func describeStatus(r *errcode.ErrorResponse) *wire.Error {
	e := &wire.Error{Status: r.StatusCode, Host: r.URL.Host}
	switch {
	case r.StatusCode == http.StatusNotFound:
		e.Code = wire.NotFound
	case r.StatusCode == http.StatusUnauthorized:
		e.Code = wire.Unauthorized
	case r.StatusCode == http.StatusForbidden:
		e.Code = wire.Forbidden
	case r.StatusCode == http.StatusTooManyRequests:
		e.Code = wire.TooMany
	case r.StatusCode >= 500:
		e.Code = wire.Server
	default:
		e.Code = wire.Other
	}
	e.Text = fmt.Sprintf("%s answered %d %s", r.URL.Host, r.StatusCode, http.StatusText(r.StatusCode))
	if len(r.Errors) > 0 {
		e.Text += ": " + r.Errors.Error()
	}
	e.Text = wire.Clean(e.Text, 1<<10)
	return e
}

func classify(err error) wire.Code {
	var own *wire.Error
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &own):
		return own.Code
	case errors.Is(err, errdef.ErrNotFound):
		return wire.NotFound
	case isTLS(err):
		return wire.TLS
	case errors.As(err, &dns):
		if dns.IsTimeout || dns.IsTemporary && !dns.IsNotFound {
			return wire.Unreachable
		}
		return wire.NoHost
	case errors.Is(err, syscall.ECONNREFUSED):
		return wire.Refused
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return wire.Unreachable
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return wire.Timeout
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), strings.Contains(err.Error(), "server closed idle connection"):
		return wire.Cut
	}
	return wire.Other
}

// remoteAlert is what crypto/tls calls an alert of the other side, which is of a
// type that it keeps to itself.
const remoteAlert = "remote error"

func isTLS(err error) bool {
	var (
		record   tls.RecordHeaderError
		verify   *tls.CertificateVerificationError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		alert    tls.AlertError
		op       *net.OpError
	)
	if errors.As(err, &op) && op.Op == remoteAlert {
		return true
	}
	return errors.As(err, &record) || errors.As(err, &verify) || errors.As(err, &unknown) ||
		errors.As(err, &hostname) || errors.As(err, &invalid) || errors.As(err, &alert) ||
		errors.Is(err, http.ErrSchemeMismatch)
}

// plain says in a sentence what Go says in a chain of operations.
func plain(err error) string {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		dns      *net.DNSError
		op       *net.OpError
	)
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return "it speaks plain HTTP, not TLS"
	case errors.As(err, &unknown):
		return "its certificate is signed by an authority this host does not trust"
	case errors.As(err, &hostname):
		return "its certificate is for another name: " + hostname.Error()
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired or is not valid yet (is the clock right?): " + invalid.Error()
	case errors.As(err, &dns):
		return "look up " + dns.Name + ": " + dns.Err
	case errors.As(err, &op) && op.Op == remoteAlert:
		return "it ends the handshake: " + op.Err.Error()
	case errors.As(err, &op) && op.Addr != nil:
		return op.Op + " " + op.Addr.String() + ": " + op.Err.Error()
	}
	return ""
}

// fail makes an error of a class.
func fail(code wire.Code, format string, args ...any) *wire.Error {
	return &wire.Error{Code: code, Text: fmt.Sprintf(format, args...)}
}
