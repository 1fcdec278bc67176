// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/tests/built"
)

// swap exchanges two names as fast as it can until the returned function is
// called, as somebody does who shares the root or a volume.
func swap(a, b string) (stop func()) {
	var done sync.WaitGroup
	quit := make(chan struct{})
	done.Add(1)
	go func() {
		defer done.Done()
		runtime.LockOSThread()
		for {
			select {
			case <-quit:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			}
		}
	}()
	return func() { close(quit); done.Wait() }
}

// empty wants nothing to have been made in a directory of the host.
func empty(t *testing.T, dir string) {
	t.Helper()
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Fatalf("made on the host: %v, %v", names, err)
	}
}

const up = "../../../../../../../../../../../.."

// races is how often a race is tried: enough for a runtime that loses it, which
// is a matter of a few, and not much on an emulated machine.
const races = 12

// CVE-2019-5736: a container had the runtime execute itself inside, and wrote
// to its program through /proc/PID/exe once that no longer ran. Here the
// command, and the command of an exec, are scripts whose interpreter is
// /proc/self/exe; and whatever process looks like ours is opened for writing.
func TestCVE_2019_5736_OurProgramIsExecutedAndWrittenFromInside(t *testing.T) {
	programs := map[string][]byte{}
	for _, name := range []string{"gantry-oci", "gantry-init", "gantry-stage1"} {
		b, err := os.ReadFile(built.Path(t, name))
		check(t, err)
		programs[name] = b
	}
	b := newBox(t, "/attack")
	check(t, os.WriteFile(filepath.Join(b.rootfs, "attack"), []byte("#!/proc/self/exe\n"), 0o755))
	if r := b.run("one"); r.code == 0 {
		t.Errorf("a script interpreted by /proc/self/exe: %+v", r)
	}
	b.spec.Process.Args = []string{"sh", "-c", `while :; do for p in /proc/[0-9]*; do
		case $(readlink $p/exe) in */busybox) ;; ?*) exec 9<$p/exe; (sleep 0.05; echo x >/proc/self/fd/9) 2>>/tmp/said; echo x >$p/exe; esac
	done 2>>/tmp/said; done`}
	b.started("two")
	for range 10 {
		b.oci("exec", "two", "/attack")
		b.oci("exec", "two", "true")
	}
	for name, before := range programs {
		now, err := os.ReadFile(built.Path(t, name))
		if err != nil || string(now) != string(before) {
			t.Errorf("%s was changed from inside, %v", name, err)
		}
	}
}

// CVE-2024-21626: the working directory, or the command, through a descriptor
// that leads to the host's tree; of the container and of exec, and with a
// descriptor of a directory that the caller had open.
func TestCVE_2024_21626_DescriptorsLeadNowhere(t *testing.T) {
	b := newBox(t, "true")
	for fd := range 12 {
		b.spec.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", fd)
		if r := b.run("c"); r.code == 0 || !strings.Contains(r.stderr, "working directory") && !strings.Contains(r.stderr, "make directory") {
			t.Errorf("cwd %s: %+v", b.spec.Process.Cwd, r)
		}
	}
	b.spec.Process.Cwd, b.spec.Process.Args = "/", []string{"sleep", "1000"}
	b.started("d")
	for fd := range 12 {
		for _, args := range [][]string{
			{"--cwd", fmt.Sprintf("/proc/self/fd/%d", fd), "d", "true"},
			{"d", fmt.Sprintf("/proc/self/fd/%d/%s/bin/sh", fd, up), "-c", "true"},
			{"--env", fmt.Sprintf("PATH=/proc/self/fd/%d/%s/bin", fd, up), "d", "env"},
		} {
			if r := b.oci(append([]string{"exec"}, args...)...); r.code == 0 {
				t.Errorf("exec %q worked: %s", args, r.out)
			}
		}
	}
	if r := b.oci("exec", "d", "ls", "/proc/self/fd"); r.out != "0\n1\n2\n3\n" {
		t.Errorf("an exec has descriptors %q; 3 is the listing's own", r.out)
	}
}

// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc and
// /sys are links, or are mounted over, so that labels and masks go elsewhere.
func TestCVE_2019_16884_2019_19921_2023_27561_2023_28642_ProcIsFaked(t *testing.T) {
	for _, name := range []string{"proc", "sys"} {
		b := newBox(t, "true")
		check(t, os.Symlink("tmp", filepath.Join(b.rootfs, name)))
		b.refused("is a symbolic link in the image")
	}
	fake := t.TempDir()
	for _, target := range []string{"/proc/self/attr", "/proc/1", "/proc/../proc/sys", "/proc//sys/kernel"} {
		b := newBox(t, "true")
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: target, Type: "bind", Source: fake, Options: []string{"bind"}})
		b.refused("cannot be mounted over")
	}
	empty(t, fake)
	// Whoever can rename in the root can have /proc be anything later. But where
	// it is procfs, what was to be hidden is hidden: masks do not go astray.
	for range 3 * races {
		b := newBox(t, "sh", "-c", "stat -f -c %T /proc; stat -c %t:%T /proc/timer_list; cat /proc/sys/vm/swappiness >/proc/sys/vm/swappiness && echo written")
		b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = []string{"/proc/timer_list"}, []string{"/proc/sys"}
		check(t, os.Mkdir(filepath.Join(b.rootfs, "proc"), 0o755), os.Symlink("tmp", filepath.Join(b.rootfs, "link")))
		stop := swap(filepath.Join(b.rootfs, "proc"), filepath.Join(b.rootfs, "link"))
		r := b.run("c")
		stop()
		if strings.HasPrefix(r.out, "proc\n") && r.out != "proc\n1:3\n" && strings.Count(r.out, "\n") > 1 {
			t.Fatalf("/proc is not masked: %q", r.out)
		}
	}
}

// CVE-2021-30465, CVE-2024-45310: the destination of a mount is exchanged for a
// link out of the root between check and mount, or while its directories and
// files are made.
func TestCVE_2021_30465_2024_45310_MountDestinationIsSwapped(t *testing.T) {
	outside := t.TempDir()
	for range races {
		b := newBox(t, "true")
		dir, link := filepath.Join(b.rootfs, "a/target"), filepath.Join(b.rootfs, "a/link")
		check(t, os.MkdirAll(dir, 0o755), os.Symlink(up+outside, link))
		b.spec.Mounts = append(b.spec.Mounts,
			specs.Mount{Destination: "/a/target/x/y", Type: "tmpfs", Source: "tmpfs"},
			specs.Mount{Destination: "/a/target/z/file", Type: "bind", Source: "/etc/hostname", Options: []string{"bind"}},
			specs.Mount{Destination: "/a/target", Type: "bind", Source: b.rootfs + "/tmp", Options: []string{"bind"}})
		stop := swap(dir, link)
		b.run("c") // it may fail; it may not reach outside
		stop()
		empty(t, outside)
	}
}

// CVE-2026-41579, CVE-2026-47766: /dev is a link out of the root, or becomes
// one while devices and links are made.
func TestCVE_2026_41579_2026_47766_DevIsALink(t *testing.T) {
	outside := t.TempDir()
	b := newBox(t, "true")
	check(t, os.Symlink(outside, filepath.Join(b.rootfs, "dev")))
	b.refused("is a symbolic link in the image")
	for range races {
		b := newBox(t, "true")
		var kept []specs.Mount // devices in the image's own directory
		for _, m := range b.spec.Mounts {
			if !strings.HasPrefix(m.Destination, "/dev") {
				kept = append(kept, m)
			}
		}
		b.spec.Mounts = kept
		dir, link := filepath.Join(b.rootfs, "dev"), filepath.Join(b.rootfs, "link")
		check(t, os.Mkdir(dir, 0o755), os.Symlink(up+outside, link))
		stop := swap(dir, link)
		b.run("c")
		stop()
		empty(t, outside)
	}
	empty(t, outside)
}

// CVE-2025-31133: what masked paths are hidden by was the /dev/null of the
// image, a link to a file of /proc, and became writable there.
func TestCVE_2025_31133_MaskIsNotTheImagesNull(t *testing.T) {
	for range races {
		b := newBox(t, "sh", "-c", "stat -c %t:%T /proc/timer_list; mount | grep -c 'timer_list.*ro,' || mount | grep timer_list")
		b.spec.Linux.MaskedPaths = []string{"/proc/timer_list", "/proc/kcore", "/sys/firmware"}
		dev := filepath.Join(b.rootfs, "dev")
		check(t, os.Mkdir(dev, 0o755), os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(dev, "null")),
			os.WriteFile(filepath.Join(dev, "other"), nil, 0o644))
		b.spec.Mounts = withoutMount(b.spec.Mounts, "/dev")
		stop := swap(filepath.Join(dev, "null"), filepath.Join(dev, "other"))
		r := b.run("c")
		stop()
		if r.code == 0 && !strings.HasPrefix(r.out, "1:3\n") {
			t.Fatalf("/proc/timer_list is %q", r.out)
		}
	}
}

func withoutMount(mounts []specs.Mount, below string) (out []specs.Mount) {
	for _, m := range mounts {
		if !strings.HasPrefix(m.Destination+"/", below+"/") {
			out = append(out, m)
		}
	}
	return out
}

// CVE-2025-52881: writes to /proc (limits, labels, sysctls) are redirected, by
// a file system over /proc that looks alike, or by a race.
func TestCVE_2025_52881_WritesToProcAreNotRedirected(t *testing.T) {
	fake := t.TempDir()
	for _, dir := range []string{"self", "thread-self", "sys/net/ipv4", "self/attr"} {
		check(t, os.MkdirAll(filepath.Join(fake, dir), 0o755))
	}
	files := []string{"self/oom_score_adj", "sys/net/ipv4/ip_default_ttl"}
	for _, name := range files {
		check(t, os.WriteFile(filepath.Join(fake, name), []byte("fake\n"), 0o666))
	}
	b := newBox(t, "sleep", "1000")
	adj := 321
	b.spec.Process.OOMScoreAdj = &adj
	b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "77"}
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = nil, nil
	b.spec.Mounts = append(withoutMount(b.spec.Mounts, "/proc"), specs.Mount{Destination: "/proc", Type: "bind", Source: fake, Options: []string{"bind"}})
	b.save()
	if r := b.oci("run", "--detach", "--bundle", b.bundle, "c"); r.code == 0 {
		pid := b.state("c").Pid
		if got := read(t, fmt.Sprintf("/proc/%d/oom_score_adj", pid)); got != "321" {
			t.Errorf("oom_score_adj is %s", got)
		}
	} else if !strings.Contains(r.stderr, "/proc") {
		t.Errorf("refused for another reason: %s", r.stderr)
	}
	for _, name := range files {
		if got := read(t, filepath.Join(fake, name)); got != "fake" {
			t.Errorf("%s was written: %q", name, got)
		}
	}
}

// CVE-2022-29162, 24769, 27649, 27650, 27651, 27652: no set of a process has
// what is inheritable unless the bundle says so, in run and in exec.
func TestCVE_2022_29162_NothingIsInheritable(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	st := b.started("c")
	status := func(r result) string {
		t.Helper()
		if r.code != 0 {
			t.Fatal(r)
		}
		return r.out
	}
	for what, text := range map[string]string{
		"run":        read(t, fmt.Sprintf("/proc/%d/status", st.Pid)) + "\n",
		"exec":       status(b.oci("exec", "c", "cat", "/proc/self/status")),
		"exec -u":    status(b.oci("exec", "--user", "1000:1000", "c", "cat", "/proc/self/status")),
		"exec --cap": status(b.oci("exec", "--cap", "CAP_NET_RAW", "c", "cat", "/proc/self/status")),
	} {
		for _, set := range []string{"CapInh", "CapAmb"} {
			if !strings.Contains(text, set+":\t0000000000000000\n") {
				t.Errorf("%s has\n%s", what, text)
			}
		}
	}
}

// CVE-2023-25809, CVE-2022-0492: the cgroups of the host are not writable from
// inside, and no release_agent is, whatever of a cgroup namespace and of ro the
// bundle says; the container has CAP_SYS_ADMIN, which is what it takes. Groups
// of its own it may be given.
func TestCVE_2023_25809_2022_0492_CgroupsAreNotWritable(t *testing.T) {
	const probe = `for d in /sys/fs/cgroup /sys/fs/cgroup/*; do [ -f $d/release_agent ] || continue
		mkdir $d/x && echo made $d/x; echo "" >$d/release_agent && echo wrote $d/release_agent; echo $$ >$d/cgroup.procs && echo moved in $d; done 2>/dev/null; true`
	for _, namespace := range []string{"own", "none", "joined"} {
		for _, writable := range []bool{false, true} {
			b := newBox(t, "sh", "-c", probe)
			caps := append(b.spec.Process.Capabilities.Bounding, "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE")
			b.spec.Process.Capabilities.Bounding, b.spec.Process.Capabilities.Effective, b.spec.Process.Capabilities.Permitted = caps, caps, caps
			var kept []specs.LinuxNamespace
			for _, ns := range b.spec.Linux.Namespaces {
				if ns.Type == specs.CgroupNamespace && namespace == "joined" {
					ns.Path = "/proc/self/ns/cgroup"
				}
				if ns.Type != specs.CgroupNamespace || namespace != "none" {
					kept = append(kept, ns)
				}
			}
			b.spec.Linux.Namespaces = kept
			for i, m := range b.spec.Mounts {
				if m.Type == "cgroup" && writable {
					b.spec.Mounts[i].Options = []string{"nosuid", "noexec", "nodev", "relatime", "rw"}
				}
			}
			if got := b.output(); got != "" {
				t.Errorf("cgroup namespace %s, rw %v: %s", namespace, writable, got)
			}
		}
	}
}

// CVE-2025-65105, CVE-2025-64750: a label that the kernel does not take is an
// error, of run and of exec, and never a process without.
func TestCVE_2025_65105_2025_64750_LabelsAreInForceOrRefused(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	b.spec.Process.ApparmorProfile = "gantry-no-such-profile"
	b.refused("apparmor label")
	b.spec.Process.ApparmorProfile = ""
	b.started("c")
	for _, flag := range []string{"--apparmor", "--process-label"} {
		r := b.oci("exec", flag, "gantry-no-such-label", "c", "true")
		if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil && flag == "--process-label" {
			continue // the policy decides
		}
		if r.code != 255 || !strings.Contains(r.stderr, "label gantry-no-such-label") {
			t.Errorf("exec %s: %+v", flag, r)
		}
	}
}

// CVE-2026-30892: a user that was misread became root. -1 is worse, for the
// kernel it means "as before" (the like of CVE-2024-40635).
func TestCVE_2026_30892_UsersThatAreNone(t *testing.T) {
	for field, u := range map[string]specs.User{
		"process.user.uid":               {UID: 1<<32 - 1},
		"process.user.gid":               {GID: 1<<32 - 1},
		"process.user.additionalGids[1]": {AdditionalGids: []uint32{5, 1<<32 - 1}},
	} {
		b := newBox(t, "id")
		b.spec.Process.User = u
		b.refused(field + ": 4294967295 is not")
	}
	b := newBox(t, "sleep", "1000")
	b.started("c")
	for _, user := range []string{"", "root", "0x0", "-1", "+0", " 0", "4294967295", "0:4294967295", "4294967296", "1000:", "1000:x", ":0", "1e3"} {
		if r := b.oci("exec", "--user", user, "c", "id"); r.code != 255 {
			t.Errorf("exec --user %q: %d %s%s", user, r.code, r.out, r.stderr)
		}
	}
	if r := b.oci("exec", "--user", "1000:1000", "c", "id"); !strings.HasPrefix(r.out, "uid=1000 gid=1000") {
		t.Errorf("exec --user 1000:1000: %+v", r)
	}
}

// CVE-2017-5226: an app on our terminal could push keys into it (TIOCSTI). Its
// session is its own, and none of ours.
func TestCVE_2017_5226_NeitherRunNorExecIsInOurSession(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	st := b.started("c")
	session := func(stat string) string { return strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])[3] }
	if got := session(read(t, fmt.Sprintf("/proc/%d/stat", st.Pid))); got != fmt.Sprint(st.Pid) {
		t.Errorf("the container's session is that of process %s, not its own", got)
	}
	r := b.oci("exec", "c", "sh", "-c", "cat /proc/$$/stat; echo $$")
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if len(lines) != 2 || session(lines[0]) != lines[1] {
		t.Errorf("the session of an exec is %v", r)
	}
}

// CVE-2022-0811, CVE-2022-0532: sysctls of the host, hidden in the value or the
// name of an allowed one, or by a namespace that is the host's.
func TestCVE_2022_0811_2022_0532_SysctlsOfTheHost(t *testing.T) {
	core := read(t, "/proc/sys/kernel/core_pattern")
	for key, value := range map[string]string{
		"kernel.core_pattern":              "|/x",
		"kernel.shm_rmid_forced":           "1\nkernel.core_pattern=|/x",
		"net.ipv4.ip_default_ttl":          "64\x00",
		"net/../kernel/core_pattern":       "|/x",
		"net.//.kernel.core_pattern":       "|/x",
		"fs.mqueue./../../kernel.pid_max":  "1",
		"net.ipv4.ip_forward+kernel.x":     "1+kernel.core_pattern=|/x",
		"kernel.hostname/../core_pattern":  "|/x",
		"/proc/sys/net/ipv4/ip_forward":    "1",
		"net\n.ipv4.ip_forward":            "1",
		"vm.overcommit_memory":             "1",
		"user.max_user_namespaces":         "1",
		"kernel.yama.ptrace_scope":         "0",
		"net.ipv4.conf.all.forwarding\x00": "1",
	} {
		b := newBox(t, "true")
		b.spec.Linux.Sysctl = map[string]string{key: value}
		b.refused("sysctl")
	}
	b := newBox(t, "true")
	b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "64"}
	for i, ns := range b.spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			b.spec.Linux.Namespaces[i].Path = "/proc/self/ns/net"
		}
	}
	b.refused("is the host's network namespace, which linux.sysctl[net.ipv4.ip_default_ttl] would change")
	if now := read(t, "/proc/sys/kernel/core_pattern"); now != core {
		t.Errorf("core_pattern is %q", now)
	}
}

// The names of the host, and its mounts, in the same way.
func TestNamespacesOfTheHostAreNotChanged(t *testing.T) {
	name, err := os.Hostname()
	check(t, err)
	for kind, says := range map[specs.LinuxNamespaceType]string{
		specs.UTSNamespace: "hostname", specs.MountNamespace: "mount namespace",
	} {
		for _, path := range []string{"", "/proc/self/ns/" + map[specs.LinuxNamespaceType]string{specs.UTSNamespace: "uts", specs.MountNamespace: "mnt"}[kind]} {
			if kind == specs.MountNamespace && path == "" {
				continue // allowed, and noted
			}
			b := newBox(t, "true")
			b.spec.Hostname = "gantry-attack"
			var kept []specs.LinuxNamespace
			for _, ns := range b.spec.Linux.Namespaces {
				if ns.Type != kind {
					kept = append(kept, ns)
				} else if path != "" {
					kept = append(kept, specs.LinuxNamespace{Type: kind, Path: path})
				}
			}
			b.spec.Linux.Namespaces = kept
			b.refused(says)
		}
	}
	if now, _ := os.Hostname(); now != name {
		check(t, unix.Sethostname([]byte(name)))
		t.Errorf("the host's name became %q", now)
	}
}

// CVE-2025-52565: the terminal is opened and bound by names that the image, or
// a racing process, exchanges. A link at /dev/console, /dev/ptmx or /dev/pts
// leads nowhere outside.
func TestCVE_2025_52565_ConsoleIsSwapped(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	check(t, os.WriteFile(victim, []byte("untouched"), 0o600))
	for _, name := range []string{"console", "ptmx", "pts"} {
		for range races / 3 {
			b := newBox(t, "sh", "-c", "stat -c %F /dev/console; stat -c %a /proc/sysrq-trigger")
			b.spec.Process.Terminal = true
			b.spec.Mounts = withoutMount(b.spec.Mounts, "/dev")
			dev := filepath.Join(b.rootfs, "dev")
			check(t, os.MkdirAll(filepath.Join(dev, "pts"), 0o755),
				os.Symlink(up+victim, filepath.Join(dev, "link")))
			if name != "pts" {
				check(t, os.WriteFile(filepath.Join(dev, name), nil, 0o644))
			}
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{
				Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"},
			})
			socket := receiver(t)
			b.args = []string{"--console-socket", socket}
			stop := swap(filepath.Join(dev, name), filepath.Join(dev, "link"))
			b.save()
			b.oci("run", "--detach", "--bundle", b.bundle, "--console-socket", socket, "c")
			stop()
			b.oci("delete", "--force", "c")
			if got := read(t, victim); got != "untouched" {
				t.Fatalf("the host's file has %q", got)
			}
			for line := range strings.Lines(read(t, "/proc/self/mounts")) {
				if strings.Contains(line, b.bundle) || strings.Contains(line, victim) {
					t.Fatalf("the host has a mount: %s", line)
				}
			}
		}
	}
}

// receiver listens for terminals and keeps none.
func receiver(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "console")
	check(t, err)
	path := filepath.Join(dir, "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err, unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 16))
	t.Cleanup(func() { unix.Close(fd); os.RemoveAll(dir) })
	return path
}

// CVE-2019-18837, CVE-2025-54867: links in the root are followed within it.
func TestCVE_2019_18837_2025_54867_LinksOfTheRootStayInside(t *testing.T) {
	outside := t.TempDir()
	check(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644))
	b := newBox(t, "sh", "-c", "ls /data /data2; cat /data/secret")
	check(t, os.Symlink(outside, filepath.Join(b.rootfs, "data")), os.Symlink(up+outside, filepath.Join(b.rootfs, "data2")),
		os.MkdirAll(filepath.Join(b.rootfs, outside), 0o755))
	b.spec.Process.Cwd = "/data"
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/data2/made", Type: "tmpfs", Source: "tmpfs"})
	b.spec.Linux.MaskedPaths = append(b.spec.Linux.MaskedPaths, "/data/secret")
	b.spec.Linux.ReadonlyPaths = append(b.spec.Linux.ReadonlyPaths, "/data")
	r := b.run("c")
	if strings.Contains(r.out, "secret") {
		t.Errorf("the host's file is seen: %s", r.out)
	}
	if names, _ := os.ReadDir(outside); len(names) != 1 {
		t.Errorf("made on the host: %v", names)
	}
	if b, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(b) != "secret" {
		t.Errorf("the host's file: %q %v", b, err)
	}
}

// CVE-2019-10144, 10145, 10147 (rkt enter), CVE-2025-27612 (youki): an exec has
// what the container has and no more.
func TestCVE_2019_10144_2025_27612_ExecHasTheContainersSandbox(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"swapon"}, Action: specs.ActErrno},
	}}
	st := b.started("c")
	want := sandbox(read(t, fmt.Sprintf("/proc/%d/status", st.Pid)))
	if got := sandbox(b.oci("exec", "c", "cat", "/proc/self/status").out); got != want {
		t.Errorf("the container has\n%san exec\n%s", want, got)
	}
	group := read(t, fmt.Sprintf("/proc/%d/cgroup", st.Pid))
	r := b.oci("exec", "--detach", "--pid-file", filepath.Join(b.bundle, "pid"), "c", "sleep", "1000")
	if r.code != 0 {
		t.Fatal(r)
	}
	if got := read(t, "/proc/"+read(t, filepath.Join(b.bundle, "pid"))+"/cgroup"); got != group {
		t.Errorf("the container is in\n%s\nan exec in\n%s", group, got)
	}
}

func sandbox(status string) string {
	var out strings.Builder
	for line := range strings.Lines(status + "\n") {
		for _, field := range []string{"Cap", "NoNewPrivs", "Seccomp:", "Uid", "Gid", "Groups"} {
			if strings.HasPrefix(line, field) {
				out.WriteString(line)
			}
		}
	}
	return out.String()
}

// A directory of the host that is not there stays so.
func missing(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s was made: %v", name, err)
	}
}
