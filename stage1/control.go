// SPDX-License-Identifier: Apache-2.0

package stage1

// The control protocol: one request and one reply per SEQPACKET message on
// the socket "control" of the pod directory, each a JSON object of at most
// ControlMax bytes; descriptors travel with the message that names them.
//
// A request carries the version of the protocol its operation needs. A
// supervisor that is older answers with its own version and no result, so
// that the client can say which version is needed; one that is newer answers
// as asked. Unknown fields are ignored on both sides.
//
// When the app has ended, every client that is connected is sent one Reply
// more, unasked, with the final Status of the app.
const (
	ControlVersion = 1
	ControlMax     = 64 << 10
)

// Operations, with the protocol version that introduced them.
const (
	OpHello  = "hello"  // 1: who are you
	OpStatus = "status" // 1: Status of the apps
	OpSignal = "signal" // 1: send Signal to App
	OpStop   = "stop"   // 1: send Signal (0: the app's own), SIGKILL after Timeout
)

// Request is what a client sends.
type Request struct {
	Version int    `json:"version"`
	Op      string `json:"op"`
	App     string `json:"app,omitempty"` // empty: the only one
	Signal  int    `json:"signal,omitempty"`
	Timeout int64  `json:"timeout,omitempty"` // ns; 0: the app's own
}

// Reply is the answer to one Request.
type Reply struct {
	Version int               `json:"version"`          // highest the supervisor speaks
	Needed  int               `json:"needed,omitempty"` // set when the request was too new
	Error   string            `json:"error,omitempty"`  // for people
	Errno   int               `json:"errno,omitempty"`  // for programs
	Gantry  string            `json:"gantry,omitempty"` // hello: version of the supervisor's program
	ID      string            `json:"id,omitempty"`     // hello: the pod
	Ops     []string          `json:"ops,omitempty"`    // hello: operations known
	Apps    map[string]Status `json:"apps,omitempty"`   // status
}
