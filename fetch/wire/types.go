// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// Ready is a worker's first message: what confinement the kernel gave it, as
// read back from the kernel.
type Ready struct {
	UID        int    `json:"uid"`
	GID        int    `json:"gid"`
	Seccomp    bool   `json:"seccomp"`
	Landlock   int    `json:"landlock"` // ABI in force, 0 when the kernel has none
	NoNewPrivs bool   `json:"noNewPrivs"`
	Root       string `json:"root"` // "empty" or "files"
}

// Credential goes to exactly one registry host.
type Credential struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identityToken,omitempty"`
	RegistryToken string `json:"registryToken,omitempty"`
}

// Empty reports whether nothing is known for the host.
func (c Credential) Empty() bool { return c == Credential{} }

// NetStart tells the net worker its one registry and repository.
type NetStart struct {
	Host        string     `json:"host"` // canonical: docker.io, registry:5000
	Repository  string     `json:"repository"`
	Credential  Credential `json:"credential"`
	PlainHTTP   bool       `json:"plainHTTP"`             // asked for by --insecure-options=http
	InsecureTLS bool       `json:"insecureTLS"`           // asked for by --insecure-options=tls
	Authorities []byte     `json:"authorities,omitempty"` // PEM, besides those of the host
	Certificate []byte     `json:"certificate,omitempty"` // PEM, shown to this registry alone
	Key         []byte     `json:"key,omitempty"`
	UserAgent   string     `json:"userAgent"`
}

// Named asks for a manifest by tag or digest, of at most Max bytes.
type Named struct {
	Reference string `json:"reference"`
	Max       int64  `json:"max,omitempty"`
}

// Content describes bytes: asked for, or claimed by the source. What is
// claimed is never believed before it was hashed.
type Content struct {
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType,omitempty"`
	Offset    int64  `json:"offset,omitempty"` // in an archive
	Reference string `json:"reference,omitempty"`
}

// Note is a sentence for people, said while they wait.
type Note struct {
	Text string `json:"text"`
}

// MaxNote bounds one, and so does MaxNotes their number in a conversation.
const (
	MaxNote  = 300
	MaxNotes = 100
)

// Discover asks for the signatures attached to any of Subjects.
type Discover struct {
	Subjects []Content `json:"subjects"`
	Legacy   bool      `json:"legacy"` // look at sha256-<hex>.sig too
	Count    int       `json:"count"`
	Each     int64     `json:"each"`
	Total    int64     `json:"total"`
}

// Discovered ends a stream of signatures. Notes say what was seen and left
// alone, for the message of a refusal.
type Discovered struct {
	Count int      `json:"count"`
	Notes []string `json:"notes,omitempty"`
}

// LayoutStart tells the layout worker what to look for. Its one descriptor is
// the layout's index.json, or the whole archive.
type LayoutStart struct {
	Archive bool   `json:"archive"`
	Docker  bool   `json:"docker,omitempty"` // an archive of docker save
	Any     bool   `json:"any,omitempty"`    // an archive of either kind
	Tag     string `json:"tag"`
	Digest  string `json:"digest"`
	Path    string `json:"path"` // for messages
}

// DockerImage is an image in an archive of docker save: where its parts are,
// and what their digests are said to be. Missing says that the archive is none
// of docker save.
type DockerImage struct {
	Missing bool      `json:"missing,omitempty"`
	Config  Content   `json:"config"`
	Layers  []Content `json:"layers"`
}

// InflateStart is the order for one archive: compressed bytes at 4, plain ones
// out at 5.
type InflateStart struct {
	Compression string          `json:"compression"` // gzip or zstd
	Limits      json.RawMessage `json:"limits"`
}

// ConvertStart is the order for one layer; its descriptors are inherited:
// compressed bytes at 4, data at 5, index at 6.
type ConvertStart struct {
	MediaType string          `json:"mediaType"`
	DiffID    string          `json:"diffID"`
	Limits    json.RawMessage `json:"limits"`
}

// MergeStart is the order for one image; the result's descriptor is 4, the
// layers' indexes follow, bottom first.
type MergeStart struct {
	Layers int             `json:"layers"`
	Limits json.RawMessage `json:"limits"`
}

// SignatureHead precedes the bytes of one signature on a discovery pipe.
type SignatureHead struct {
	Format      string            `json:"format"`
	Digest      string            `json:"digest"` // what it is attached to
	Manifest    int64             `json:"manifest"`
	Payload     int64             `json:"payload"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Code classifies a failure so that the parent can say what to do about it.
type Code string

// Codes.
const (
	NotFound     Code = "not-found"
	Unauthorized Code = "unauthorized"
	Forbidden    Code = "forbidden"
	TooMany      Code = "too-many-requests"
	Server       Code = "server"
	NoHost       Code = "no-such-host"
	Refused      Code = "refused"
	Unreachable  Code = "unreachable"
	Timeout      Code = "timeout"
	Cut          Code = "cut"
	Slow         Code = "slow"
	TLS          Code = "tls"
	Blocked      Code = "blocked" // our own transport rules refused it
	BadMedia     Code = "media-type"
	TooBig       Code = "too-big"
	BadContent   Code = "content"
	Bad          Code = "bad"     // foreign material we refuse
	NoRoom       Code = "no-room" // on this host
	Other        Code = "other"
)

// Error crosses the socket. Text comes from a worker that may be lying, so it
// is bounded and stripped of anything a terminal would act upon.
type Error struct {
	Code   Code   `json:"code"`
	Status int    `json:"status,omitempty"`
	Host   string `json:"host,omitempty"`
	Text   string `json:"text"`
}

func (e *Error) Error() string { return e.Text }

// Is lets a worker's full disk be one of the parent.
func (e *Error) Is(target error) bool { return e.Code == NoRoom && target == syscall.ENOSPC }

const maxText = 4 << 10

func (e *Error) clean() {
	if e == nil {
		return
	}
	e.Text = Clean(e.Text, maxText)
	e.Host = Clean(e.Host, 255)
	e.Code = Code(Clean(string(e.Code), 32))
}

// Line is Clean for what must not begin a line of its own.
func Line(s string, limit int) string {
	return strings.Join(strings.Fields(Clean(s, limit)), " ")
}

// Clean makes foreign text fit to print: bounded, valid UTF-8, without control
// characters other than the newline.
func Clean(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// Question is what the verify worker is asked, through its pipe: a
// signature.Policy, a signature.Subject and a list of signature.Signature.
type Question struct {
	Policy     json.RawMessage `json:"policy"`
	Subject    json.RawMessage `json:"subject"`
	Signatures json.RawMessage `json:"signatures"`
}
