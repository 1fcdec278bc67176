// SPDX-License-Identifier: Apache-2.0

// Package ability names what a test needs of the machine it runs on. A test
// that lacks something is skipped with the name of what it lacks, and the
// suite's closing lines list every such skip, so that none is silent.
package ability

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Ability is one thing a machine has or lacks.
type Ability struct {
	// Name is what skips and script conditions call it.
	Name  string
	probe func() error
}

// All lists the abilities that have a fixed name, in the order of reading.
func All() []Ability {
	return []Ability{
		Root, Unconfined, Userns, UsernsOrdinary, Cgroup2, CgroupHybrid, Cgroup1, CgroupWritable,
		Overlay, Erofs, ErofsFile, Loop, Verity, ProjectQuota, Landlock, AppArmor, Seccomp, Tun, Systemd, Executables, Networks,
	}
}

// What a machine can have. Each is probed at most once per process.
var (
	Root           = once("root", probeRoot)
	Unconfined     = once("unconfined", probeUnconfined)
	Userns         = once("userns", probeUserns)
	UsernsOrdinary = once("userns-ordinary", probeUsernsOrdinary)
	Cgroup2        = once("cgroup2", probeCgroup2)
	CgroupHybrid   = once("cgroup-hybrid", probeHybrid)
	Cgroup1        = once("cgroup1", probeCgroup1)
	CgroupWritable = once("cgroup-writable", probeCgroupWritable)
	Overlay        = once("overlay", fileSystem("overlay"))
	Erofs          = once("erofs", fileSystem("erofs"))
	ErofsFile      = once("erofs-file", probeErofsFile)
	Loop           = once("loop", probeLoop)
	Verity         = once("verity", probeVerity)
	ProjectQuota   = once("project-quota", probeProjectQuota)
	Landlock       = once("landlock", probeLandlock)
	AppArmor       = once("apparmor", probeAppArmor)
	Seccomp        = once("seccomp", probeSeccomp)
	Tun            = once("tun", probeTun)
	Systemd        = once("systemd", probeSystemd)
	Executables    = once("executables", probeExecutables)
)

// Time is what a slow machine has not enough of: its guest emulates a processor,
// which takes from twenty minutes to two hours. What comes after the guest's
// limit is left out; the machine itself has run it before.
var Time = Ability{"time", probeTime}

// probeTime compares GANTRY_TEST_UNTIL, seconds since the boot, if it is set.
func probeTime() error {
	until, err := strconv.Atoi(os.Getenv("GANTRY_TEST_UNTIL"))
	if err != nil {
		return nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil || now.Sec < int64(until) {
		return err
	}
	return fmt.Errorf("what came before took %d s on this machine", now.Sec)
}

// Tool is the ability to run a program of that name.
func Tool(name string) Ability {
	return Ability{Name: name, probe: func() error {
		_, err := exec.LookPath(name)
		return err
	}}
}

// Missing returns nil if the machine has it, else why it does not.
func (a Ability) Missing() error {
	return a.probe()
}

// Require skips the test unless the machine has every one of them.
func Require(t testing.TB, needs ...Ability) {
	t.Helper()
	for _, a := range needs {
		if err := a.Missing(); err != nil {
			t.Skipf("ability missing: %s: %v", a.Name, err)
		}
	}
}

func once(name string, probe func() error) Ability {
	return Ability{Name: name, probe: sync.OnceValue(probe)}
}

func probeRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("not running as root")
	}
	return nil
}

// probeUnconfined asks for the capability that root inside many sandboxes
// lacks: raising hard limits and cgroup limits.
func probeUnconfined() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		return errors.New("this root has no CAP_SYS_RESOURCE")
	}
	return nil
}

func probeUserns() error {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.SysProcAttr = usernsAttr()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("create a user namespace: %w", err)
	}
	return nil
}

func probeTun() error {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func probeCgroup2() error {
	return fileSystemAt("/sys/fs/cgroup", unix.CGROUP2_SUPER_MAGIC, "cgroup v2")
}

func probeHybrid() error {
	return fileSystemAt("/sys/fs/cgroup/unified", unix.CGROUP2_SUPER_MAGIC, "a unified hierarchy beside v1")
}

func probeCgroup1() error {
	return fileSystemAt("/sys/fs/cgroup/memory", unix.CGROUP_SUPER_MAGIC, "the v1 memory controller")
}

func probeCgroupWritable() error {
	for _, dir := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		notTmpfs := fileSystemAt(dir, unix.TMPFS_MAGIC, "") != nil
		if notTmpfs && unix.Access(dir, unix.W_OK) == nil {
			return nil
		}
	}
	return errors.New("no cgroup hierarchy is writable")
}

func fileSystemAt(dir string, magic int64, what string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look for %s at %s: %w", what, dir, err)
	}
	if st.Type != magic {
		return fmt.Errorf("%s is not %s", dir, what)
	}
	return nil
}

// fileSystem asks for a mount context instead of reading /proc/filesystems,
// because asking loads the module.
func fileSystem(name string) func() error {
	return func() error {
		if err := probeRoot(); err != nil {
			return err
		}
		fd, err := unix.Fsopen(name, unix.FSOPEN_CLOEXEC)
		if err != nil {
			return fmt.Errorf("open a mount context for %s: %w", name, err)
		}
		return unix.Close(fd)
	}
}

func probeLoop() error {
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := unix.IoctlRetInt(int(f.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
		return fmt.Errorf("ask for a free loop device: %w", err)
	}
	return nil
}

func probeLandlock() error {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return fmt.Errorf("ask for Landlock's ABI: %w", errno)
	}
	if abi < 1 {
		return fmt.Errorf("the ABI is %d", abi)
	}
	return nil
}

// LandlockABI returns the version of Landlock in the kernel, 0 if there is none.
func LandlockABI() int {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(abi)
}

func probeAppArmor() error {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(b)) != "Y" {
		return errors.New("AppArmor is off")
	}
	return nil
}

func probeSeccomp() error {
	b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		return err
	}
	if !strings.Contains(string(b), "errno") {
		return fmt.Errorf("seccomp offers only %s", b)
	}
	return nil
}

func probeSystemd() error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return errors.New("systemd is not running")
	}
	_, err := exec.LookPath("systemd-run")
	return err
}

func probeExecutables() error {
	dir := os.Getenv("GANTRY_TEST_BIN")
	if dir == "" {
		return errors.New("GANTRY_TEST_BIN does not name a directory of built executables: use make test")
	}
	_, err := os.Stat(filepath.Join(dir, "gantry"))
	return err
}
