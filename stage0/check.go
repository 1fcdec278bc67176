// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/stage1/launch"
)

// The three answers of a check.
const (
	yes    = "yes"
	partly = "partly"
	no     = "no"
)

func check(e Env) []CheckItem {
	host := []func(Env) CheckItem{
		checkCgroups, checkControllers, checkCgroupKill, checkOverlay, checkErofs, checkLoop, checkVerity, checkQuota,
		checkSeccomp, checkUserNamespaces, checkMappedIDs, checkLandlock, checkModules, checkResource, checkNftables, checkFirewall,
	}
	if e.Rootless {
		host = checksOfOrdinary()
	}
	var out []CheckItem
	for _, item := range slices.Concat(
		[]func(Env) CheckItem{checkRoot, checkKernel, checkArchitecture}, host,
		[]func(Env) CheckItem{checkLibexec, checkSeccompCompiler, checkDir, checkPolicy, checkClock},
	) {
		out = append(out, item(e))
	}
	return out
}

// release is the kernel's version as two numbers, and as it writes it.
func release() (major, minor int, text string) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return 0, 0, err.Error()
	}
	text = unix.ByteSliceToString(u.Release[:])
	_, _ = fmt.Sscanf(text, "%d.%d", &major, &minor)
	return major, minor, text
}

func atLeast(major, minor int) bool {
	m, n, _ := release()
	return m > major || m == major && n >= minor
}

func checkRoot(Env) CheckItem {
	c := CheckItem{Name: "root", Required: true, Means: "pods cannot be launched", Mend: "run gantry with sudo, or as a system unit"}
	if !Inside() {
		return checkOrdinary(c)
	}
	c.State, c.Have = no, fmt.Sprintf("uid %d", os.Geteuid())
	if os.Geteuid() == 0 && haveCapability(unix.CAP_SYS_ADMIN) {
		c.State = yes
	} else if os.Geteuid() == 0 {
		c.Have, c.Mend = "root without CAP_SYS_ADMIN", "give this container or unit CAP_SYS_ADMIN"
	}
	return c
}

func checkKernel(Env) CheckItem {
	_, _, text := release()
	c := CheckItem{Name: "kernel", Required: true, State: yes, Have: text}
	if !atLeast(5, 14) {
		c.State, c.Means, c.Mend = no, "mounts by descriptor and killing whole groups need Linux 5.14", "boot a newer kernel; 6.1 or later is tested"
	} else if !atLeast(6, 1) {
		c.State, c.Means = partly, "older than any kernel gantry is tested on"
	}
	return c
}

func checkArchitecture(Env) CheckItem {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return CheckItem{Name: "architecture", State: yes, Have: unix.ByteSliceToString(u.Machine[:])}
}

func checkCgroups(Env) CheckItem {
	s, err := cgroups.Probe()
	c := CheckItem{Name: "cgroups", Have: s.Mode}
	switch {
	case err != nil:
		c.State, c.Have, c.Means = no, err.Error(), "limits asked for by name are refused"
	case !s.Writable:
		c.State, c.Have, c.Means, c.Mend = no, s.Mode+", read-only", "limits asked for by name are refused", s.Mend
	case s.Reason != "":
		c.State, c.Means, c.Mend = partly, s.Reason, s.Mend
	default:
		c.State = yes
	}
	return c
}

func checkControllers(e Env) CheckItem {
	s, _ := cgroups.Probe()
	c := CheckItem{Name: "controllers", State: yes, Have: strings.Join(s.Controllers, " ")}
	if e.Rootless && !s.Writable {
		// Those of the host are nobody's gain without a group to use them in.
		c.State, c.Have, c.Means = no, "none that is yours", "no limits"
		return c
	}
	var lack []string
	for _, want := range []string{"memory", "cpu", "pids", "cpuset"} {
		if !slices.ContainsFunc(s.Controllers, func(have string) bool { return have == want || strings.Contains(","+have+",", ","+want+",") }) {
			lack = append(lack, want)
		}
	}
	if len(lack) > 0 {
		c.State, c.Means, c.Mend = partly, "no limits of "+strings.Join(lack, ", "), first(s.Mend, "in a unit, set Delegate=yes")
		if len(s.Controllers) == 0 {
			c.State, c.Have = no, "none"
		}
	}
	return c
}

func checkCgroupKill(Env) CheckItem {
	s, _ := cgroups.Probe()
	c := CheckItem{Name: "cgroup.kill", State: yes, Have: "whole groups are killed at once"}
	if !s.Kill {
		c.State, c.Have, c.Means = no, "groups are killed process by process", "the sweep after a crash takes longer"
	}
	return c
}

// fileSystem says whether the kernel has a file system now, or could load it.
func fileSystem(name string) (has, loadable bool) {
	if b, err := os.ReadFile("/proc/filesystems"); err == nil && slices.Contains(strings.Fields(string(b)), name) {
		return true, true
	}
	_, _, text := release()
	b, err := os.ReadFile(filepath.Join("/lib/modules", text, "modules.dep"))
	return false, err == nil && strings.Contains(string(b), "/"+name+".ko")
}

func checkOverlay(Env) CheckItem {
	c := CheckItem{Name: "overlayfs", Required: true, State: yes, Have: "in the kernel"}
	if has, loadable := fileSystem("overlay"); !has {
		c.State, c.Have, c.Means, c.Mend = no, "not in the kernel", "apps cannot have a writable root", "boot a kernel with CONFIG_OVERLAY_FS"
		if loadable {
			c.State, c.Have, c.Mend = partly, "a module that is not loaded", "modprobe overlay"
		}
	}
	return c
}

func checkErofs(Env) CheckItem {
	c := CheckItem{Name: "erofs", State: yes, Have: "in the kernel"}
	if has, loadable := fileSystem("erofs"); !has {
		c.State, c.Have = no, "not in the kernel"
		c.Means = "roots are unpacked into plain directories: slower to fetch, and not enforced by the kernel"
		c.Mend = "boot a kernel with CONFIG_EROFS_FS"
		if loadable {
			c.State, c.Have, c.Mend = partly, "a module that is not loaded", "modprobe erofs"
		}
	}
	return c
}

func checkLoop(Env) CheckItem {
	c := CheckItem{Name: "loop devices", State: yes, Have: "/dev/loop-control"}
	if err := unix.Access("/dev/loop-control", unix.W_OK); err != nil {
		c.State, c.Have, c.Means, c.Mend = no, "/dev/loop-control: "+err.Error(), "pods of one image do not share its page cache", "modprobe loop"
	}
	return c
}

func checkSeccomp(Env) CheckItem {
	c := CheckItem{Name: "seccomp", Required: true, State: yes, Have: "filters"}
	if err := unix.Prctl(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil {
		c.State, c.Have, c.Means, c.Mend = no, err.Error(), "the default profile cannot be loaded", "boot a kernel with CONFIG_SECCOMP_FILTER"
	}
	return c
}

func checkUserNamespaces(Env) CheckItem {
	c := CheckItem{Name: "user namespaces", State: yes, Have: "in the kernel"}
	b, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	switch n := strings.TrimSpace(string(b)); {
	case err != nil:
		c.State, c.Have = no, "not in the kernel"
	case n == "0":
		c.State, c.Have, c.Mend = no, "switched off", "sysctl user.max_user_namespaces=15000"
	default:
		c.Have = "up to " + n
	}
	return c
}

func checkMappedIDs(e Env) CheckItem {
	c := CheckItem{Name: "mapped ids", State: yes, Means: "no --userns: a pod's files cannot be shown with its ids"}
	dir := e.Dir
	if _, err := os.Stat(dir); err != nil {
		dir = filepath.Dir(dir)
	}
	err := launch.CanMapIDs(dir)
	pool, whose, poolErr := idPool()
	ids := uint64(0)
	for _, r := range pool {
		ids += uint64(r.Size)
	}
	switch {
	case err != nil:
		c.State, c.Have, c.Mend = no, fmt.Sprintf("not below %s: %v", dir, err), "keep --dir on ext4, xfs, btrfs or tmpfs, on Linux 6.1 or later"
	case !atLeast(6, 1):
		c.State, c.Have, c.Mend = partly, "this kernel may not map the ids of EROFS and of overlays", "boot Linux 6.1 or later"
	case poolErr != nil:
		c.State, c.Have, c.Mend = partly, poolErr.Error(), "give the user gantry the same range in both"
	default:
		c.Have = fmt.Sprintf("%d ids of %s", ids, whose)
	}
	return c
}

// landlockCreateRulesetVersion asks landlock_create_ruleset(2) for the ABI.
const landlockCreateRulesetVersion = 1

func checkLandlock(Env) CheckItem {
	c := CheckItem{Name: "Landlock", State: yes}
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, landlockCreateRulesetVersion)
	switch {
	case errno == 0:
		c.Have = "ABI " + strconv.Itoa(int(abi))
	default:
		c.State, c.Have = no, errno.Error()
		c.Means, c.Mend = "what fetches images is confined without it", "boot with lsm=landlock,… and CONFIG_SECURITY_LANDLOCK"
	}
	return c
}

func checkModules(Env) CheckItem {
	c := CheckItem{Name: "security modules", State: yes}
	b, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		c.State, c.Have = partly, "unknown: "+errText(err)
		c.Mend = "mount -t securityfs securityfs /sys/kernel/security"
		return c
	}
	c.Have = strings.TrimSpace(string(b))
	return c
}

func checkResource(Env) CheckItem {
	c := CheckItem{Name: "CAP_SYS_RESOURCE", State: yes, Have: "hard limits can be raised"}
	if !haveCapability(unix.CAP_SYS_RESOURCE) {
		c.State, c.Have = partly, "we do not have it"
		c.Means, c.Mend = "--ulimit above our own hard limits is refused", "raise the limits where gantry is started (LimitNOFILE= and its kin)"
	}
	return c
}

// libexecs are the executables a launch and a fetch need.
func libexecs() []string { return []string{"gantry-init", "gantry-stage1", "gantry-fetch"} }

func checkLibexec(e Env) CheckItem {
	c := CheckItem{Name: "executables", Required: true, State: yes, Have: e.Libexec}
	var lack []string
	for _, name := range libexecs() {
		if err := unix.Access(filepath.Join(e.Libexec, name), unix.X_OK); err != nil {
			lack = append(lack, name)
		}
	}
	if len(lack) > 0 {
		c.State, c.Means = no, "missing in "+e.Libexec+": "+strings.Join(lack, ", ")
		c.Mend = "install them beside gantry, or name their directory with --libexec-dir"
	}
	return c
}

func checkSeccompCompiler(e Env) CheckItem {
	name := filepath.Join(e.Libexec, "gantry-seccomp")
	c := CheckItem{Name: "gantry-seccomp", State: yes, Have: name}
	if err := unix.Access(name, unix.X_OK); err != nil {
		c.State, c.Have, c.Means = no, errText(err), "seccomp profiles that are not cached yet cannot be compiled"
		c.Mend = "install it beside gantry, or run with --seccomp=unconfined"
	}
	return c
}

func checkDir(e Env) CheckItem {
	c := CheckItem{Name: "directory", Required: true, State: yes, Have: e.Dir}
	st, err := os.Stat(e.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.Have += " (is made when it is needed)"
	case err != nil:
		c.State, c.Means = no, errText(err)
	case st.Mode().Perm()&0o077 != 0:
		c.State, c.Means, c.Mend = partly, "others can look into it: images hold set-user-ID programs", "chmod 0700 "+e.Dir
	}
	if c.State == yes {
		var fsys unix.Statfs_t
		if err := unix.Statfs(existing(e.Dir), &fsys); err == nil {
			c.Have += fmt.Sprintf(", %d MiB free", fsys.Bavail*uint64(fsys.Bsize)>>20)
			if fsys.Flags&unix.ST_RDONLY != 0 {
				c.State, c.Means, c.Mend = no, "it is read-only", "remount it, or name another with --dir"
			}
		}
	}
	return c
}

// existing is the nearest ancestor that exists.
func existing(dir string) string {
	for dir != "/" {
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

func checkPolicy(e Env) CheckItem {
	rules, problems := policyRules(e)
	c := CheckItem{Name: "trust", State: yes, Have: fmt.Sprintf("%d rules", rules)}
	switch {
	case problems > 0:
		c.State, c.Means, c.Mend = partly, fmt.Sprintf("%d rules are closed: they deny what they are about", problems), "'gantry trust ls' says why"
	case rules == 0:
		c.State, c.Have, c.Means = no, "no rule", "no image runs: nobody is trusted"
		c.Mend = "gantry trust add --prefix NAME KEY.pub"
	}
	return c
}

func checkClock(Env) CheckItem {
	c := CheckItem{Name: "clock", State: yes, Have: "synchronised"}
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	switch {
	case err != nil:
		c.State, c.Have = partly, "unknown: "+err.Error()
	case state == unix.TIME_ERROR:
		c.State, c.Have = partly, "not known to be synchronised"
		c.Means, c.Mend = "times in receipts and records may be wrong", "timedatectl set-ntp true"
	}
	return c
}

// errText is an error without the path that the item names already.
func errText(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// Versions returns what each of our executables says of itself, for
// `gantry version`; one that cannot be run says why.
func Versions(e Env) map[string]string {
	out := map[string]string{}
	for _, name := range append(libexecs(), "gantry-seccomp") {
		b, err := exec.Command(filepath.Join(e.Libexec, name), "--version").Output()
		if out[name] = strings.TrimSpace(string(b)); err != nil {
			out[name] = errText(err)
		}
	}
	return out
}
