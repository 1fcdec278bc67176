// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/netns/network"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Input is all that decides a bundle.
type Input struct {
	Image       ispec.ImageConfig
	ImageHealth *ImageHealth // the image's own check, which its specification has no field for
	Options     Options
	Files       ImageFiles
	Host        Host
	Pod         Pod
}

// ImageFiles are the image's own account files, as bytes of bounded size; nil
// where the image has none.
type ImageFiles struct {
	Passwd, Group []byte
}

// Host is what a bundle may depend on of the host and of who called.
type Host struct {
	Environ      []string   // the caller's environment, for -e NAME and -e NAME*
	EnvFiles     [][]byte   // the contents of Options.EnvFiles, in their order
	Dir          string     // the caller's working directory, for -v ./x:/y
	Volumes      string     // where named volumes are
	From         [][]Shared // for each of Options.VolumesFrom, what that pod mounts
	Hostname     string     // used with --net=host
	Capabilities []string   // those we can give, CAP_…; nil means all
	Limits       []specs.POSIXRlimit
	CanRaise     bool     // whether hard limits can be raised (CAP_SYS_RESOURCE)
	SELinux      bool     // whether SELinux is enabled
	Labels       Labels   // what --security-opt apparmor= and label= depend on
	Own          *Users   // of our own user namespace, if we work for an ordinary user
	Hosts        []byte   // /etc/hosts, used with --net=host
	ResolvConf   []byte   // /etc/resolv.conf, used with --net=host and on networks
	Networks     bool     // whether a pod can be on the default network without asking
	Throttles    []string // directories that tell when a processor was too hot

	Groups     []uint32          // the caller's supplementary groups, for --group-add keep-groups
	Zone       []byte            // the file of --tz
	Queues     bool              // message queues are mounted at /dev/mqueue, for --ipc=host
	LabelFiles [][]byte          // the contents of Options.LabelFiles, in their order
	CDI        []string          // those of Options.Devices that are names of CDI
	Edits      []Edits           // what those add
	Devices    map[string][]Node // what is at each path that an option names; several: those below a directory
}

// Pod is the pod the app is for.
type Pod struct {
	UUID string
	// Dir is where the pod directory stands while the app runs.
	Dir string
	// Rootfs is written to root.path, for other runtimes; ours is given the
	// tree by descriptor.
	Rootfs string
	Users  Users // of its user namespace, if the options ask for one
}

// Result is a bundle, and what has no place in a runtime specification.
type Result struct {
	Spec        *specs.Spec
	Seccomp     string // default, unconfined, or a profile's path; the caller fills Spec.Linux.Seccomp
	StopSignal  string
	StopTimeout uint            // seconds
	Health      *Health         `json:",omitempty"` // how health is probed; nil: it is not
	Strict      map[string]bool // limits asked for by name: they must be had
	Binds       []string        // host paths that must exist
	Volumes     []Volume        // directories to make and seed below the pod's
	Mounts      []Mount         // what Spec.Mounts cannot say of what was asked for
	Files       map[string][]byte
	Labels      map[string]string

	Network  network.Choice
	Fallback bool // the network is only a default: without it the pod runs, too
	Ports    []network.Port
}

// Volume is a directory of the pod that an image asked for.
type Volume struct {
	Dir  string // below the pod directory
	Dest string // in the image: what it is seeded from
}

// DefaultPath is PATH where neither image nor user set one.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// defaultStopTimeout is podman's, in seconds.
const defaultStopTimeout = 10

// Spec computes the bundle.
func Spec(in Input) (*Result, error) { return (&builder{Input: in}).build() }

// Check finds what is wrong with options whatever image they are for, so that
// nobody waits for one to learn that. What it returns is the bundle of an
// image that asks for nothing: Binds, Seccomp and the bounding set are those
// that any image gets.
func Check(o Options, h Host) (*Result, error) {
	b := &builder{Input: Input{Options: o, Host: h}, early: true}
	b.Image.Entrypoint = []string{"command"} // it may well have one
	return b.build()
}

func (b *builder) build() (*Result, error) {
	if b.Options.Privileged {
		return nil, hint.With(
			fmt.Errorf("--privileged is not supported"),
			"name what the app needs instead: --cap-add, --volume, --security-opt seccomp=unconfined, --security-opt unmask=ALL",
		)
	}
	b.r = &Result{
		Spec:   &specs.Spec{Version: specVersion, Root: &specs.Root{Path: b.Pod.Rootfs, Readonly: b.Options.ReadOnly}, Linux: &specs.Linux{}},
		Strict: map[string]bool{},
		Files:  map[string][]byte{},
	}
	for _, step := range []func() error{
		b.network, b.modes, b.cgroupParent, b.process, b.user, b.environment, b.capabilities, b.limits,
		b.mounts, b.files, b.zone, b.resources, b.devices, b.security, b.linux, b.userns, b.personality, b.stop, b.health, b.labels, b.edits,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return b.r, nil
}

// specVersion is the lowest version that has all we write, so that runtimes
// of older distributions take the bundle too.
const specVersion = "1.0.2"

// builder fills one Result from one Input, step by step.
type builder struct {
	Input
	r     *Result
	early bool   // the image is not known yet, nor the names in its files
	home  string // of the user, from the image's passwd
	name  string // the hostname that the app sees
	root  bool   // the app runs as uid 0
	host  bool   // --net=host

	networked bool // it is on networks by name
	joined    bool // its network namespace is another's

	hostPID, hostIPC, hostUTS, hostCgroup bool // --pid=host and its kin
}

func (b *builder) process() error {
	args, err := command(b.Image, b.Options)
	if err != nil {
		return err
	}
	cwd := first(b.Options.Workdir, b.Image.WorkingDir, "/")
	if !path.IsAbs(cwd) {
		return fmt.Errorf("working directory %q: it must be an absolute path", cwd)
	}
	if err := clean("working directory", cwd); err != nil {
		return err
	}
	b.r.Spec.Process = &specs.Process{
		Terminal:    b.Options.TTY,
		Args:        args,
		Cwd:         path.Clean(cwd),
		OOMScoreAdj: b.Options.OOMScoreAdj,
	}
	if n := b.Options.OOMScoreAdj; n != nil && (*n < -1000 || *n > 1000) {
		return fmt.Errorf("--oom-score-adj %d: between -1000 and 1000 are allowed", *n)
	}
	if b.name, err = b.hostname(); err == nil && !b.hostUTS {
		b.r.Spec.Hostname = b.name
	}
	return err
}

// command follows podman and Docker: arguments replace the image's CMD; an
// entrypoint of the user's, even an empty one, replaces the image's and drops
// its CMD.
func command(img ispec.ImageConfig, o Options) ([]string, error) {
	entry, cmd := img.Entrypoint, img.Cmd
	if o.Entrypoint != nil {
		var err error
		if entry, err = parseEntrypoint(*o.Entrypoint); err != nil {
			return nil, err
		}
		cmd = nil
	}
	if len(o.Args) > 0 {
		cmd = o.Args
	}
	args := append(append([]string{}, entry...), cmd...)
	switch {
	case len(args) == 0:
		return nil, hint.With(fmt.Errorf("no command: the image names none"), "write one after the image: gantry run IMAGE -- COMMAND")
	case args[0] == "":
		return nil, EmptyCommand()
	}
	for _, a := range args {
		if strings.ContainsRune(a, 0) {
			return nil, fmt.Errorf("argument %q: it holds a NUL", a)
		}
	}
	return args, nil
}

// EmptyCommand is the error of a command whose name is empty, as a shell makes of
// "$VARIABLE" that is not set.
func EmptyCommand() error {
	return hint.With(errors.New("the command to run is empty"), `write its name or path; if it was a variable of the shell's, it is not set`)
}

func (b *builder) hostname() (string, error) {
	name := b.Options.Hostname
	switch {
	case name != "":
	case (b.host || b.hostUTS) && b.Host.Hostname != "":
		name = b.Host.Hostname
	default:
		name = shortUUID(b.Pod.UUID)
	}
	if len(name) > 64 {
		return "", fmt.Errorf("--hostname %q: 64 characters are the limit", name)
	}
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '-' && c != '.' && c != '_') {
			return "", fmt.Errorf("--hostname %q: use letters, digits, '-' and '.'", name)
		}
	}
	return name, nil
}

// stop settles how the app is asked to end: the user's signal, the image's,
// or TERM.
func (b *builder) stop() error {
	name, from := b.Options.StopSignal, "--stop-signal"
	if name == "" {
		name, from = b.Image.StopSignal, "the image's stop signal"
	}
	if name == "" {
		name = "SIGTERM"
	}
	sig, err := ParseSignal(name)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	b.r.StopSignal = sig
	b.r.StopTimeout = defaultStopTimeout
	if t := b.Options.StopTimeout; t != nil {
		b.r.StopTimeout = *t
	}
	return nil
}

// labels are the user's alone. An image's labels are data to look at; none of
// them ever reaches a place something acts on (CVE-2026-53488).
func (b *builder) labels() error {
	fromFiles, err := b.labelFiles()
	if err != nil {
		return err
	}
	if b.r.Labels, err = keyValues("--label", append(fromFiles, b.Options.Labels...), true); err != nil {
		return err
	}
	b.r.Spec.Annotations, err = keyValues("--annotation", b.Options.Annotations, false)
	return err
}

// keyValues parses NAME=VALUE flags; with bare, NAME alone has an empty value.
func keyValues(flag string, values []string, bare bool) (map[string]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(values))
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		if key == "" || !ok && !bare {
			return nil, fmt.Errorf("%s %q: write NAME=VALUE", flag, v)
		}
		m[key] = value
	}
	return m, nil
}

func shortUUID(uuid string) string {
	if len(uuid) > 8 {
		return uuid[:8]
	}
	return uuid
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// clean refuses control characters where a value ends in a file or a mount.
func clean(what, s string) error {
	for _, c := range s {
		if c < 0x20 || c == 0x7f {
			return fmt.Errorf("%s %q: control characters are not allowed", what, s)
		}
	}
	return nil
}
