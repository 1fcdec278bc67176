// SPDX-License-Identifier: Apache-2.0

// Package stage1 is the contract between gantry, gantry-init and
// gantry-stage1: the plan of a launch as data, the descriptors that are
// donated, the files of a pod directory, the record of an exit, and the
// control protocol. It holds types only and imports nothing of ours.
package stage1

// PlanVersion is raised whenever an older gantry-init would misread a plan.
const PlanVersion = 7

// Descriptors of gantry-init: stdio, then these. The sources of a plan follow
// in their order from InitSources on.
const (
	InitPlan    = 3 // sealed memory file: the encoded plan and the filter
	InitSync    = 4 // SEQPACKET socket: messages up, permission to go on down
	InitSelf    = 5 // the descriptor gantry-init was executed through
	InitSources = 6
)

// Plan is one launch: what the process is born with, what the parent donates,
// and the steps gantry-init walks in order. It is a pure function of the
// bundle and the options; --dry-run prints it.
type Plan struct {
	Version int      `json:"version"`
	Clone   []string `json:"clone,omitempty"`   // namespaces the process is born in, by OCI name; always in a session of its own
	Sources []Source `json:"sources,omitempty"` // donated, in this order
	Steps   []Step   `json:"steps"`

	KeepKeyring bool `json:"keepKeyring,omitempty"` // the app shares its parent's session keyring

	UIDs   []IDMap `json:"uids,omitempty"` // of the user namespace it is born in
	GIDs   []IDMap `json:"gids,omitempty"`
	Before *Before `json:"before,omitempty"`
	// Context is the option that has SELinux label file systems, for those that
	// gantry-init makes unasked; the Mount steps have it already.
	Context string `json:"context,omitempty"`

	Userns bool `json:"userns,omitempty"` // gantry-init walks as root of a user namespace that is not its parent's
}

// IDMap is one line of uid_map or gid_map.
type IDMap struct {
	Container uint32 `json:"container"`
	Host      uint32 `json:"host"`
	Size      uint32 `json:"size"`
}

// Before is what the parent does in front of the clone, on a thread that ends
// after it: what takes rights that root of a user namespace does not have, or
// is about children only.
type Before struct {
	Join     []Join       `json:"join,omitempty"`
	Time     bool         `json:"time,omitempty"` // the process is born in a time namespace of its own
	Offsets  []TimeOffset `json:"offsets,omitempty"`
	Limits   []Rlimit     `json:"limits,omitempty"` // hard limits that are raised to these
	OOMScore *OOMScore    `json:"oomScore,omitempty"`
}

// TimeOffset is one clock of a time namespace.
type TimeOffset struct {
	Clock    string `json:"clock"`
	Secs     int64  `json:"secs,omitempty"`
	Nanosecs uint32 `json:"nanosecs,omitempty"`
}

// Kinds of Source.
const (
	SourceTree      = "tree"      // the root's detached tree mount, from the caller
	SourceMount     = "mount"     // detached clone of the mount at Path
	SourceNamespace = "namespace" // namespace to join: at Path, or made anew when Path is empty, for network devices
	SourcePidfd     = "pidfd"     // the process whose namespaces are joined
	SourceRoot      = "root"      // its root directory
	SourceStart     = "start"     // listening socket a Hold is ended through, from the caller
	SourcePreserved = "preserved" // the caller's descriptor Number, which the app has under that number; before all others
)

// Source is a descriptor the parent opens or makes before the clone.
type Source struct {
	Kind      string `json:"kind"`
	Path      string `json:"path,omitempty"`
	Recursive bool   `json:"recursive,omitempty"` // of a mount: with what is mounted below
	Namespace string `json:"namespace,omitempty"` // of a namespace: its OCI name
	Changed   string `json:"changed,omitempty"`   // of a namespace: the field that changes it, so that it must not be our own
	Number    int    `json:"number,omitempty"`    // of a preserved one
	For       string `json:"for,omitempty"`       // what the user calls it, for messages

	Map *MountMap `json:"map,omitempty"` // of a mount: whose ids its files are shown with
}

// MountMap is the user namespace of an id-mapped mount: that at Path, or a new
// one with these maps.
type MountMap struct {
	Path  string  `json:"path,omitempty"`
	UIDs  []IDMap `json:"uids,omitempty"`
	GIDs  []IDMap `json:"gids,omitempty"`
	Below bool    `json:"below,omitempty"` // for what is mounted below as well
}

// Step is one action of gantry-init. Exactly one field is set.
type Step struct {
	Join       *Join       `json:"join,omitempty"`
	Reborn     *Reborn     `json:"reborn,omitempty"`
	Root       *Root       `json:"root,omitempty"`
	Mount      *Mount      `json:"mount,omitempty"`
	Bind       *Bind       `json:"bind,omitempty"`
	Mkdir      *Mkdir      `json:"mkdir,omitempty"`
	Symlink    *Symlink    `json:"symlink,omitempty"`
	Device     *Device     `json:"device,omitempty"`
	Wait       *Wait       `json:"wait,omitempty"`
	Hold       *Hold       `json:"hold,omitempty"`
	Hooks      *Hooks      `json:"hooks,omitempty"`
	Unshare    *Unshare    `json:"unshare,omitempty"`
	Terminal   *Terminal   `json:"terminal,omitempty"`
	Loopback   *Loopback   `json:"loopback,omitempty"`
	Hostname   *Hostname   `json:"hostname,omitempty"`
	Sysctl     *Sysctl     `json:"sysctl,omitempty"`
	ReadOnly   *ReadOnly   `json:"readOnly,omitempty"`
	Mask       *Mask       `json:"mask,omitempty"`
	Remount    *Remount    `json:"remount,omitempty"`
	Pivot      *Pivot      `json:"pivot,omitempty"`
	Chroot     *Chroot     `json:"chroot,omitempty"`
	Rlimit     *Rlimit     `json:"rlimit,omitempty"`
	OOMScore   *OOMScore   `json:"oomScore,omitempty"`
	Persona    *Persona    `json:"personality,omitempty"`
	Scheduler  *Scheduler  `json:"scheduler,omitempty"`
	IOPriority *IOPriority `json:"ioPriority,omitempty"`
	Affinity   *Affinity   `json:"affinity,omitempty"`
	MemPolicy  *MemPolicy  `json:"memoryPolicy,omitempty"`
	Umask      *Umask      `json:"umask,omitempty"`
	Label      *Label      `json:"label,omitempty"`
	Cwd        *Cwd        `json:"cwd,omitempty"`
	Bounding   *Bounding   `json:"bounding,omitempty"`
	User       *User       `json:"user,omitempty"`
	Caps       *Caps       `json:"caps,omitempty"`
	NoNewPrivs *NoNewPrivs `json:"noNewPrivileges,omitempty"`
	DeathSig   *DeathSig   `json:"deathSignal,omitempty"`
	Seccomp    *Seccomp    `json:"seccomp,omitempty"`
	Exec       *Exec       `json:"exec,omitempty"`
}

// Attr is what mount_setattr changes on a mount: MOUNT_ATTR_* bits for the
// mount itself, for it and everything below, and one propagation (MS_*).
type Attr struct {
	Set            uint64 `json:"set,omitempty"`
	Clear          uint64 `json:"clear,omitempty"`
	SetBelow       uint64 `json:"setBelow,omitempty"`
	ClearBelow     uint64 `json:"clearBelow,omitempty"`
	Propagation    uint64 `json:"propagation,omitempty"`
	PropagateBelow bool   `json:"propagateBelow,omitempty"`
}

// Zero tells whether there is nothing to change.
func (a Attr) Zero() bool { return a == Attr{} }

// Join enters namespaces: through a namespace descriptor one, through a pidfd
// all those named in Kinds (CLONE_NEW* bits) at once.
type Join struct {
	FD    int    `json:"fd"` // index into Sources
	Kinds uint64 `json:"kinds"`
}

// Reborn has a process of a single thread join what the kernel lets no process
// of several join, user and time namespaces, and become gantry-init for the
// steps that follow.
type Reborn struct {
	Join  []Join `json:"join"`
	Root  bool   `json:"root,omitempty"`  // it becomes root of the user namespace
	Clone uint64 `json:"clone,omitempty"` // gantry-init is born in these new namespaces (CLONE_NEW* bits)

	UIDs []IDMap `json:"uids,omitempty"` // of a new user namespace among them, which the process before maps: then it is that one's root
	GIDs []IDMap `json:"gids,omitempty"`
}

// Root makes the file system that becomes / and attaches it above the old
// root in the private mount namespace.
type Root struct {
	FD          int      `json:"fd"`              // index into Sources: the lower, or the whole root
	Upper       string   `json:"upper,omitempty"` // writable overlay, host path
	Work        string   `json:"work,omitempty"`
	In          int      `json:"in,omitempty"`          // source, counted from 1, of a donated mount that Upper and Work are names in
	Options     []string `json:"options,omitempty"`     // of the overlay
	Need        []string `json:"need,omitempty"`        // mount points a read-only root must have, else an empty upper is put over it
	Attr        Attr     `json:"attr,omitzero"`         // of the new root
	HostPrivate uint64   `json:"hostPrivate,omitempty"` // propagation given to the copied host mounts first
	At          string   `json:"at,omitempty"`          // host path to attach it to, where hooks look for it; empty: on top of /
	Shared      bool     `json:"shared,omitempty"`      // the mount namespace is others' too: nothing in it changes but what is mounted At
}

// Mount makes a new file system and attaches it in the root.
type Mount struct {
	Type     string   `json:"type"`
	Source   string   `json:"source,omitempty"`
	Options  []string `json:"options,omitempty"` // for fsconfig: "key" or "key=value"
	Attr     Attr     `json:"attr,omitzero"`
	Target   string   `json:"target"`
	Plain    bool     `json:"plain,omitempty"`  // the target may not be reached through a symbolic link
	CopyUp   bool     `json:"copyUp,omitempty"` // start with what the image has at Target
	Yield    bool     `json:"yield,omitempty"`  // left out where Target lies on another mount of the pod
	Optional bool     `json:"optional,omitempty"`
	// Else is the source of a bind mount, counted from 1, that takes its place
	// where the namespace it is about does not belong to the user namespace.
	Else int `json:"else,omitempty"`
	// Label is the root's own, of SELinux, where no option can give it.
	Label string `json:"label,omitempty"`
}

// Bind attaches a donated detached mount in the root.
type Bind struct {
	FD     int    `json:"fd"` // index into Sources
	Attr   Attr   `json:"attr,omitzero"`
	Target string `json:"target"`
	Sub    string `json:"sub,omitempty"`    // what of the source is attached, looked up below it
	CopyUp bool   `json:"copyUp,omitempty"` // if empty, fill it with what the image has at Target
	Yield  bool   `json:"yield,omitempty"`  // left out where Target lies on another mount of the pod
	OnProc bool   `json:"onProc,omitempty"` // the one allow-list of files below /proc
}

// Mkdir makes a directory and its missing parents.
type Mkdir struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
}

// Symlink makes a link in the root; one that is there already stays.
type Symlink struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

// Device makes a device node, or binds the host's where mknod is not allowed.
type Device struct {
	Path  string `json:"path"`
	Type  string `json:"type"` // c, b, u or p
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
	Mode  uint32 `json:"mode"`
	UID   uint32 `json:"uid,omitempty"`
	GID   uint32 `json:"gid,omitempty"`
}

// Wait holds until the parent sent Name; with Ask it says first that it waits.
type Wait struct {
	Name string `json:"name"`
	Ask  bool   `json:"ask,omitempty"`
}

// WaitCgroup is what the parent sends once the process is in its cgroup.
const WaitCgroup = "cgroup"

// WaitNetwork is what it sends once the pod's network namespace has what it is
// to have.
const WaitNetwork = "network"

// WaitHooks is what it sends once the hooks of the runtime's namespaces ran.
const WaitHooks = "hooks"

// Hooks runs programs of the bundle one after the other, with the state of
// the container on their standard input. The first that fails ends the launch.
type Hooks struct {
	Kind  string `json:"kind"`  // createContainer or startContainer
	State string `json:"state"` // a JSON object without the pid, which is added
	List  []Hook `json:"list"`
	// Inside: they are found in the container and run as the app would, with
	// nothing of the host open and, if Seccomp says so, in its filter.
	Inside  bool     `json:"inside,omitempty"`
	Seccomp *Seccomp `json:"seccomp,omitempty"`
}

// Hook is one program.
type Hook struct {
	Path    string   `json:"path"`
	Args    []string `json:"args"`
	Env     []string `json:"env,omitempty"`
	Timeout int      `json:"timeout,omitempty"` // seconds; 0 is none
}

// Hold says Created and waits, with no parent any more, until somebody sends
// StartMessage to a listening SEQPACKET socket. What is sent up from then on
// goes to that somebody. That the command exists is made sure of before.
// Without a socket it is the parent who stays and says it.
type Hold struct {
	FD      int      `json:"fd"` // index into Sources; -1: the parent's own socket
	Command string   `json:"command"`
	Env     []string `json:"env,omitempty"`
}

// StartMessage ends a Hold.
const StartMessage = "start"

// Unshare leaves for new namespaces (CLONE_NEW* bits).
type Unshare struct {
	Kinds uint64 `json:"kinds"`
}

// Terminal opens a pty of the container's devpts, makes it the controlling
// terminal and stdio, binds it to /dev/console, and sends its master up.
type Terminal struct {
	Rows    uint16 `json:"rows,omitempty"`
	Columns uint16 `json:"columns,omitempty"`
	UID     uint32 `json:"uid,omitempty"`
	Console bool   `json:"console,omitempty"`
	Apart   bool   `json:"apart,omitempty"` // it becomes the controlling one of another process
}

// Loopback turns on the only interface of a new network namespace.
type Loopback struct{}

// Hostname sets the names of the UTS namespace.
type Hostname struct {
	Name   string `json:"name,omitempty"`
	Domain string `json:"domain,omitempty"`
}

// Sysctl writes below /proc/sys; Key has slashes.
type Sysctl struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// ReadOnly makes a path of the root read-only with all below it.
type ReadOnly struct {
	Path string `json:"path"`
}

// Mask hides a path of the root.
type Mask struct {
	Path string `json:"path"`
}

// Remount changes the attributes of the mount that is at Path, when what had
// to be made in it is there.
type Remount struct {
	Path    string   `json:"path"`
	Attr    Attr     `json:"attr"`
	Options []string `json:"options,omitempty"` // that its file system gets as well
}

// Pivot makes the root / and lets go of the host's tree.
type Pivot struct{}

// Chroot makes a directory / where the mount namespace is others' too, and
// its root cannot be changed: the one donated, or the Root made before.
type Chroot struct {
	FD      int  `json:"fd,omitempty"` // index into Sources
	Donated bool `json:"donated,omitempty"`
}

// Rlimit sets one resource limit.
type Rlimit struct {
	Name string `json:"name"` // RLIMIT_NOFILE, for messages
	Type int    `json:"type"`
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// OOMScore sets oom_score_adj.
type OOMScore struct {
	Adj int `json:"adj"`
}

// Persona sets the execution domain.
type Persona struct {
	Domain uint64 `json:"domain"`
}

// Scheduler is what sched_setattr(2) sets.
type Scheduler struct {
	Name     string `json:"name"` // SCHED_FIFO, for messages
	Policy   uint32 `json:"policy"`
	Flags    uint64 `json:"flags,omitempty"`
	Nice     int32  `json:"nice,omitempty"`
	Priority uint32 `json:"priority,omitempty"`
	Runtime  uint64 `json:"runtime,omitempty"` // nanoseconds, as the next two
	Deadline uint64 `json:"deadline,omitempty"`
	Period   uint64 `json:"period,omitempty"`
}

// IOPriority is what ioprio_set(2) sets.
type IOPriority struct {
	Class    string `json:"class"` // IOPRIO_CLASS_BE, for messages
	Priority int    `json:"priority"`
	Value    uint32 `json:"value"`
}

// Affinity is the processors sched_setaffinity(2) leaves.
type Affinity struct {
	List string   `json:"list"` // 0-3,7; for messages
	Mask []uint64 `json:"mask"`
}

// MemPolicy is what set_mempolicy(2) sets.
type MemPolicy struct {
	Name string   `json:"name"` // MPOL_BIND, for messages
	Mode uint32   `json:"mode"` // with its flags
	Mask []uint64 `json:"mask,omitempty"`
}

// Umask sets the file creation mask.
type Umask struct {
	Mask uint32 `json:"mask"`
}

// Label has the security module label the process at exec, and reads the
// request back.
type Label struct {
	Module string `json:"module"` // apparmor or selinux
	Label  string `json:"label"`
}

// Cwd enters the working directory and checks that it is reachable from /.
type Cwd struct {
	Path string `json:"path"`
}

// Bounding drops all capabilities but these from the bounding set.
type Bounding struct {
	Set uint64 `json:"set"`
}

// User sets groups and user, keeping permitted capabilities for Caps.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
}

// Caps sets the capabilities of the process.
type Caps struct {
	Effective   uint64 `json:"effective"`
	Permitted   uint64 `json:"permitted"`
	Inheritable uint64 `json:"inheritable"`
	Ambient     uint64 `json:"ambient"`
}

// NoNewPrivs sets no_new_privs.
type NoNewPrivs struct{}

// DeathSig has the kernel send Signal when the parent is gone; it checks that
// the parent still is there.
type DeathSig struct {
	Signal int `json:"signal"`
}

// Seccomp loads the filter that is appended to the encoded plan. With Listen
// its listener is handed over (ListenerSize) before anything else is done.
type Seccomp struct {
	Flags  uint64 `json:"flags,omitempty"`
	Listen bool   `json:"listen,omitempty"`
}

// Exec becomes the app. With Init, gantry-init stays as process 1 in the
// app's sandbox and the app is its child.
type Exec struct {
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Init bool     `json:"init,omitempty"`
	// Apart has a child of the same parent become the app, in the pid
	// namespace joined before.
	Apart *Apart `json:"apart,omitempty"`
}

// Apart is what that child does on its own between its birth and its execve:
// it leads a session, with standard input as its controlling terminal if
// Terminal says so.
type Apart struct {
	Terminal bool      `json:"terminal,omitempty"`
	DeathSig *DeathSig `json:"deathSignal,omitempty"`
	Seccomp  *Seccomp  `json:"seccomp,omitempty"`
	// Scheduler is what a process does not pass on to a child.
	Scheduler *Scheduler `json:"scheduler,omitempty"`
}

// HoldArg is the argument of gantry-init that only keeps a group from being
// empty until the app is born there.
const HoldArg = "hold"

// KeepArg is the argument of gantry-init before a program, and its arguments,
// that is to end with its parent whatever becomes of its credentials.
const KeepArg = "keep"
