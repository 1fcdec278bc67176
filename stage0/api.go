// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/gantryrun/gantry/internal/hint"
	netspec "github.com/gantryrun/gantry/netns/network"
	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/network"
	"github.com/gantryrun/gantry/stage0/podlog"
	"github.com/gantryrun/gantry/stage1"
)

// Pull says when an image is looked for outside the store.
type Pull string

// The pull policies, as podman spells them. The zero value is PullMissing.
const (
	PullMissing Pull = "missing" // only when the store lacks it
	PullAlways  Pull = "always"
	PullNewer   Pull = "newer"
	PullNever   Pull = "never"
)

// Fetcher brings an image into the store under the current policy. The CLI
// wires it; stage0 itself opens no connection.
type Fetcher func(ctx context.Context, ref string, pull Pull) error

// RunOptions are what run, create and prepare take beside the image and its
// arguments.
type RunOptions struct {
	bundle.Options

	Name      string // --name; empty means none
	Replace   bool   // --replace: remove the exited or running pod of that name first
	Platform  string // --platform: os/arch[/variant]; empty means this host's
	Pull      Pull   // --pull
	Fetch     Fetcher
	Insecure  bool         // --insecure-options=image: run it though no rule trusts it
	Remove    bool         // --rm
	LogDriver string       // --log-driver: passthrough, file, journald, none; empty: passthrough, or file when detached
	LogOpts   []string     // --log-opt: NAME=VALUE
	PidFile   string       // --pidfile: written when the app runs
	UUIDFile  string       // --uuid-file (podman's --cidfile): written before anything can fail
	HooksDirs []string     // --hooks-dir: files that say which OCI hooks run
	Preserve  int          // --preserve-fds: so many descriptors from 3 on are the app's too; for Run alone
	Notes     func(string) // told once what was only a default and cannot be had here; may be nil
	Warn      func(string) // told each time a check was given up; may be nil

	log stage1.Log // by LogDriver and LogOpts, once they were checked
}

// Run admits ref, prepares a pod and replaces this process by its supervisor:
// it returns only on failure. It must be called on the locked main thread.
func Run(ctx context.Context, e Env, ref string, o RunOptions) error { return run(ctx, e, ref, o) }

// RunDetached is Run in a session of its own. It returns the pod's UUID when
// the app's execve succeeded.
func RunDetached(ctx context.Context, e Env, ref string, o RunOptions) (string, error) {
	return runDetached(ctx, e, ref, o)
}

// Prepare does everything of Run that can be done ahead and returns the UUID
// of a pod that RunPrepared starts.
func Prepare(ctx context.Context, e Env, ref string, o RunOptions) (string, error) {
	return prepare(ctx, e, ref, o)
}

// LaunchOptions are what run-prepared takes.
type LaunchOptions struct {
	Detach  bool   // -d: start it in a session of its own and return
	PidFile string // --pidfile
	Notes   func(string)
	Warn    func(string)
	// Preserve is how many descriptors from 3 on the app gets.
	Preserve int
	// ReadyFD and LockFD are descriptors a detaching parent donated, passed
	// by the hidden flags --ready-fd and --lock-fd; 0 means none.
	ReadyFD, LockFD int
}

// RunPrepared starts a prepared pod in place of this process. With Detach it
// returns once the app runs; otherwise it returns only on failure. Of two
// racing calls one gets ErrBusy at once.
func RunPrepared(ctx context.Context, e Env, id string, o LaunchOptions) error {
	return runPrepared(ctx, e, id, o)
}

// DryRun is what run would do: everything that is decided before the host is
// touched.
type DryRun struct {
	Image  Launch   `json:"image"`            // what was proven of the image
	Images []Launch `json:"images,omitempty"` // and of those that are mounted
	Config any      `json:"config"`           // the bundle's config.json
	Plan   any      `json:"plan"`             // the launch's ordered steps
}

// Plan returns what Run would do and does nothing of it, except fetching when
// o.Pull asks for it.
func Plan(ctx context.Context, e Env, ref string, o RunOptions) (DryRun, error) {
	return dryRun(ctx, e, ref, o)
}

// Record is one pod as list and status show it. Times are zero when unknown.
type Record struct {
	UUID     string    `json:"uuid"`
	Name     string    `json:"name,omitempty"`
	State    string    `json:"state"` // embryo preparing aborted prepared running exited deleting garbage
	Image    string    `json:"image"`
	Manifest string    `json:"manifest,omitempty"` // digest
	Command  []string  `json:"command,omitempty"`
	Created  time.Time `json:"created"`
	Started  time.Time `json:"started,omitzero"`
	Exited   time.Time `json:"exited,omitzero"`
	// PID is the app's while it runs; Supervisor is the process that holds
	// the pod.
	PID        int `json:"pid,omitempty"`
	Supervisor int `json:"supervisor,omitempty"`
	// Health is starting, healthy or unhealthy, once it was probed.
	Health  string `json:"health,omitempty"`
	Network string `json:"network,omitempty"`
	// Networks and Ports are what the pod has there.
	Networks []network.Attachment `json:"networks,omitempty"`
	Ports    []netspec.Port       `json:"ports,omitempty"`

	Labels  map[string]string `json:"labels,omitempty"`
	Volumes []string          `json:"volumes,omitempty"` // named ones that its apps mount
	Exit    *Exit             `json:"exit,omitempty"`    // once it exited
	Problem string            `json:"problem,omitempty"`
}

// Exit is how an app ended.
type Exit struct {
	// Known is false when the supervisor was killed before it could record
	// the end: then only State says anything.
	Known  bool   `json:"known"`
	Code   int    `json:"code"`             // 128+n after signal n, as shells count
	Signal string `json:"signal,omitempty"` // SIGKILL…
	OOM    bool   `json:"oom,omitempty"`
}

// Text says in a word how it ended: "0", "137 (SIGKILL, out of memory)",
// "killed".
func (x Exit) Text() string { return exitText(x) }

// ListOptions select pods.
type ListOptions struct {
	All    bool     // exited and prepared ones too; otherwise only running
	Filter []string // KEY=VALUE, as podQuestions has the keys; see selection
}

// List returns the pods, newest first. One that vanishes meanwhile is left
// out; one whose files cannot be read is listed with its Problem.
func List(e Env, o ListOptions) ([]Record, error) { return list(e, o) }

// Status returns one pod by UUID, unambiguous prefix or name.
func Status(e Env, id string) (Record, error) { return status(e, id) }

// Wait blocks, without polling, until the pod is not running any more.
func Wait(ctx context.Context, e Env, id string) (Record, error) { return wait(ctx, e, id) }

// Inspection is everything recorded about a pod.
type Inspection struct {
	Record
	Dir     string              `json:"dir"`
	Options bundle.Options      `json:"options"`
	Launch  *Launch             `json:"launch,omitempty"`
	Mounts  []bundle.Mount      `json:"mounts,omitempty"` // what config.json cannot say of them
	Images  []Launch            `json:"images,omitempty"` // what was proven of those that are mounted
	Config  any                 `json:"config,omitempty"` // config.json
	Cgroups []string            `json:"cgroups,omitempty"`
	Probes  *Health             `json:"probes,omitempty"` // the last ones of the app's health
	Limits  map[string][]string `json:"limits,omitempty"` // rlimits of the running app as the kernel has them
}

// Inspect returns everything recorded about one pod.
func Inspect(e Env, id string) (Inspection, error) { return inspect(e, id) }

// Logs writes the selected lines of a pod's log as podlog.Source.Print does.
func Logs(ctx context.Context, e Env, id string, o podlog.Options, out, errw io.Writer) error {
	return logs(ctx, e, id, o, out, errw)
}

// ExecOptions are what exec takes. Nothing in it can give more privilege than
// the app has.
type ExecOptions struct {
	Command     []string
	Env         []string // --env
	EnvFiles    []string // --env-file
	User        string   // --user
	Workdir     string   // --workdir
	TTY         bool
	Interactive bool
	Detach      bool
	PidFile     string
	ReadyFD     int // donated by a detaching gantry, hidden flag --ready-fd
}

// Exec runs a command inside a running pod with exactly its app's sandbox.
// This process becomes its supervisor and ends with its status, so Exec
// returns only on failure, or detached when the command runs.
func Exec(ctx context.Context, e Env, id string, o ExecOptions) (int, error) {
	return enter(ctx, e, id, o)
}

// StopOptions are what stop takes.
type StopOptions struct {
	Timeout *time.Duration // nil is the pod's own; 0 kills at once
}

// Stop asks the app to end with its stop signal, kills it after the time-out,
// and waits until everything is released. A pod that is not running is not an
// error.
func Stop(ctx context.Context, e Env, id string, o StopOptions) error { return stop(ctx, e, id, o) }

// Kill sends a signal (KILL, SIGTERM, 15) to the app.
func Kill(e Env, id, signal string) error { return kill(e, id, signal) }

// RemoveOptions are what rm takes.
type RemoveOptions struct {
	Force bool // stop it first when it runs
	StopOptions
}

// Remove deletes a pod and frees its name.
func Remove(ctx context.Context, e Env, id string, o RemoveOptions) error {
	return remove(ctx, e, id, o)
}

// GCOptions are what gc takes.
type GCOptions struct {
	Grace          time.Duration // exited longer ago than this goes
	ExpirePrepared time.Duration // prepared longer ago than this goes; 0 is 24 h
	MarkOnly       bool          // stamp exits, delete nothing
}

// GCReport says what gc did.
type GCReport struct {
	Marked   []string `json:"marked"`   // crashed pods now recorded as exited
	Removed  []string `json:"removed"`  // pods deleted
	Names    []string `json:"names"`    // names freed
	Problems []string `json:"problems"` // what could not be removed, and why
}

// GC records exits nobody recorded, deletes what exited before the grace
// period, and sweeps what crashes left: aborted preparations, embryos, names,
// cgroups.
func GC(ctx context.Context, e Env, o GCOptions) (GCReport, error) { return gc(ctx, e, o) }

// Process is one process of a pod.
type Process struct {
	PID     int           `json:"pid"`    // as the host counts
	Inside  int           `json:"inside"` // as the pod counts
	PPID    int           `json:"ppid"`
	User    int           `json:"uid"`
	State   string        `json:"state"`
	CPU     time.Duration `json:"cpu"` // nanoseconds
	RSS     int64         `json:"rss"` // bytes
	Started time.Time     `json:"started"`
	Command string        `json:"command"`
}

// Ps returns the processes of a running pod.
func Ps(e Env, id string) ([]Process, error) { return ps(e, id) }

// CheckItem is one ability of this host.
type CheckItem struct {
	Name     string `json:"name"`
	State    string `json:"state"`              // yes, partly, no
	Required bool   `json:"required,omitempty"` // nothing can be launched without it
	Have     string `json:"have"`
	Means    string `json:"means,omitempty"` // what does not work without it
	Mend     string `json:"mend,omitempty"`  // how to get it
}

// Check says what this host can and cannot do, in a fixed order.
func Check(e Env) []CheckItem { return check(e) }

// ErrBusy is returned when another process is starting, removing or preparing
// the same pod: at once, but for a removal, which waits a second for it.
var ErrBusy = hint.With(errors.New("another process has it"), "it is being prepared, started or removed: try again in a moment")

// ErrNotRunning is returned when a pod has no running app to act on.
var ErrNotRunning = errors.New("is not running")
