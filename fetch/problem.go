// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image"
)

// Problem is a failure with the sentence that helps: what failed, on what,
// and what to do about it.
type Problem struct {
	What string
	Mend string
	Err  error // for errors.Is; may be nil
}

func (p *Problem) Error() string { return p.What }
func (p *Problem) Unwrap() error { return p.Err }

// Hint is what to do next.
func (p *Problem) Hint() string { return p.Mend }

// Outcomes a caller acts on.
var (
	// ErrNotFound: the source is there, the image is not.
	ErrNotFound = errors.New("image not found")
	// ErrUnreachable: the source cannot be asked at all.
	ErrUnreachable = errors.New("source cannot be reached")
	// ErrNever: the image is not (completely) here and may not be fetched.
	ErrNever = errors.New("image is not here and must not be fetched")
)

// explain words what the net worker reports. Anything else passes as it is.
func (s *registry) explain(err error) error {
	var e *wire.Error
	if err == nil || !errors.As(err, &e) || errors.Is(err, context.Canceled) {
		return err
	}
	name, host := s.ref.Familiar(), s.ref.Host
	p := &Problem{Err: e}
	say := func(mend, format string, args ...any) {
		p.What, p.Mend = fmt.Sprintf("fetch %s: ", name)+fmt.Sprintf(format, args...), mend
	}
	switch e.Code {
	case wire.NotFound:
		p.Err = errors.Join(ErrNotFound, e)
		say("check the spelling; a private repository also answers so to those who may not see it ("+s.lookedAt()+")",
			"%s has no such image or tag (%s)", host, e.Text)
	case wire.Unauthorized, wire.Forbidden:
		say(s.loginHint(), "%s; %s", e.Text, s.lookedAt())
	case wire.TooMany:
		say("wait, or log in: registries allow more to users they know ("+s.lookedAt()+")", "%s, also after waiting", e.Text)
	case wire.Server:
		if e.Status == 501 { // the one that is not tried again
			say("ask who runs "+host+" which requests it serves", "%s", e.Text)
			break
		}
		say("the registry is in trouble; try again later", "%s, also after several attempts", e.Text)
	case wire.NoHost:
		p.Err = errors.Join(ErrUnreachable, e)
		say("check the name "+host+" and this host's DNS (/etc/resolv.conf)", "no such host (%s)", e.Text)
	case wire.Refused:
		p.Err = errors.Join(ErrUnreachable, e)
		say("is the registry running, and is the port in "+host+" right?", "connection refused (%s)", e.Text)
	case wire.Unreachable, wire.Timeout:
		p.Err = errors.Join(ErrUnreachable, e)
		say("check the network between this host and "+host, "%s cannot be reached (%s)", host, e.Text)
	case wire.Cut:
		p.Err = errors.Join(ErrUnreachable, e)
		say("try again: what arrived completely is kept", "the connection to %s is cut again and again (%s)", host, e.Text)
	case wire.Slow:
		p.Err = errors.Join(ErrUnreachable, e)
		say("try again later, or from a nearer registry: layers that arrived completely are kept", "%s", e.Text)
	case wire.TLS:
		say(s.tlsHint(e), "TLS with %s: %s", host, e.Text)
	case wire.Blocked:
		say("the registry behaves oddly; ask who runs it", "refused: %s", e.Text)
	case wire.BadContent, wire.TooBig:
		say("the registry, or something on the way to it, sends wrong bytes; nothing of it was kept", "%s", e.Text)
	default:
		say("try again; if "+host+" still answers so, ask who runs it", "%s", e.Text)
	}
	return p
}

// lookedAt says which credential was used, or where none was found.
func (s *registry) lookedAt() string {
	switch {
	case s.auth.File != "":
		return "the credential of " + s.auth.File + " was used"
	case len(s.auth.Looked) > 0:
		return strings.Join(s.auth.Looked, " and ") + " has no credential for " + s.ref.Host
	}
	return "no credential file was found"
}

func (s *registry) loginHint() string {
	if s.auth.File != "" {
		return "log in again (podman login " + s.ref.Host + ", or docker login), or name another file with --authfile"
	}
	return "log in (podman login " + s.ref.Host + ", or docker login), or name a file with --authfile"
}

func (s *registry) tlsHint(e *wire.Error) string {
	switch {
	case strings.Contains(e.Text, "plain HTTP"):
		return "if that is what you want: Insecure=http in a file of registries.d, as docs/images.md shows, or for once --insecure-options=http"
	case strings.Contains(e.Text, "certificate required"), strings.Contains(e.Text, "bad certificate"):
		return "it wants to know us: name Certificate= and Key= for it in a file of registries.d, as docs/images.md shows"
	case strings.Contains(e.Text, "has expired"), strings.Contains(e.Text, "for another name"):
		return "ask who runs it for a certificate that fits; to go without: --insecure-options=tls"
	}
	return "name its authority in a file of registries.d, as docs/images.md shows, or install it in this host's certificate store; to go without: --insecure-options=tls"
}

// missing words that nothing may be fetched.
func missing(ref image.Reference, why string) error {
	return &Problem{
		What: fmt.Sprintf("%s: %s, and --pull=never forbids to fetch it", ref.Familiar(), why),
		Mend: "gantry fetch " + ref.Familiar(),
		Err:  ErrNever,
	}
}
