// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"bytes"
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

	"github.com/gantryrun/gantry/internal/conf"
	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/userns"
)

// userVar tells a gantry that is root of a user namespace whose it is.
const userVar = "GANTRY_ROOTLESS_UID"

// ordinary is the user we work for if that is not root: we are that user, or
// root of a user namespace that was made for them.
func ordinary() (uid int, ok bool) {
	if uid = os.Geteuid(); uid != 0 {
		return uid, true
	}
	uid, err := strconv.Atoi(os.Getenv(userVar))
	if err != nil || uid <= 0 {
		return 0, false
	}
	// Whoever sets the variable as root gains nothing, and root who inherits
	// it is root.
	b, err := os.ReadFile("/proc/self/uid_map")
	fields := bytes.Fields(b)
	return uid, err == nil && len(fields) >= 3 && string(fields[0]) == "0" && string(fields[1]) == strconv.Itoa(uid) && string(fields[2]) == "1"
}

// Inside tells whether this process is root of what it works with: of the
// host, or of an ordinary user's user namespace.
func Inside() bool { return os.Geteuid() == 0 }

// BecomeRoot has an ordinary user's gantry go on as root of a user namespace:
// that of the running pod, if one is named, else a new one. It returns at once
// where we are root already, and else only on failure.
func (e Env) BecomeRoot(id string) error {
	if Inside() {
		return nil
	}
	// From inside, all that is not the user's seems to belong to nobody.
	if err := conf.Vet(e.ConfigPath); err != nil {
		return err
	}
	ns, err := e.userNamespace(id)
	if err != nil {
		return err
	}
	defer ns.Close()
	return userns.Enter(ns, append(environ(), userVar+"="+strconv.Itoa(os.Geteuid())))
}

func (e Env) userNamespace(id string) (*os.File, error) {
	if id != "" {
		if ns := e.namespaceOf(id); ns != nil {
			return ns, nil
		}
	}
	uids, gids, err := ownMaps()
	if err != nil {
		return nil, err
	}
	return userns.New(uids, gids)
}

// namespaceOf opens the user namespace of a running pod's supervisor; nil if
// there is none. Whoever is wrong about it gets less, not more: entering takes
// that it is ours.
func (e Env) namespaceOf(id string) *os.File {
	p, err := e.pods().Find(id)
	if err != nil {
		return nil
	}
	defer p.Close()
	if st, err := p.State(); err != nil || st != pod.Running {
		return nil
	}
	rt, err := readRuntime(p)
	if err != nil {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", rt.Supervisor))
	if err != nil {
		return nil
	}
	return ns
}

// ownMaps are the ids this user may have: the own ones, and where newuidmap and
// newgidmap are, those of subuid(5) and subgid(5).
func ownMaps() (uids, gids []userns.Map, err error) {
	uid, gid := os.Geteuid(), os.Getegid()
	var ranges [2][]userns.Range
	owners := []string{strconv.Itoa(uid)}
	if name := accountName(uid); name != "" {
		owners = append(owners, name)
	}
	for i, file := range []string{subUIDFile, subGIDFile} {
		entries, err := subIDs(file)
		if err != nil {
			return nil, nil, err
		}
		ranges[i] = userns.Owned(entries, owners...)
	}
	if len(ranges[0]) == 0 || len(ranges[1]) == 0 || !canMap() {
		ranges = [2][]userns.Range{}
	}
	return userns.Ordinary(uint32(uid), ranges[0]), userns.Ordinary(uint32(gid), ranges[1]), nil
}

func canMap() bool {
	for _, program := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(program); err != nil {
			return false
		}
	}
	return true
}

// accountName is the user's name in /etc/passwd, else what the environment
// calls them: newuidmap(1) looks for itself who asks.
func accountName(uid int) string {
	b, err := readHostFile("/etc/passwd")
	if err != nil {
		return os.Getenv("USER")
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == strconv.Itoa(uid) {
			return f[0]
		}
	}
	return os.Getenv("USER")
}

// userDirs are the defaults of an ordinary user, by the XDG base directories;
// empty where only HOME could tell, and does not.
func userDirs(uid int) (dir, runDir, configPath string) {
	home := os.Getenv("HOME")
	if !filepath.IsAbs(home) || errors.Is(unix.Access(home, unix.X_OK), fs.ErrPermission) {
		home = ""
	}
	base := func(name, otherwise string) string {
		switch d := os.Getenv(name); {
		case filepath.IsAbs(d):
			return filepath.Join(d, "gantry")
		case home == "":
			return ""
		}
		return filepath.Join(home, otherwise, "gantry")
	}
	runtime := os.Getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(runtime) {
		runtime = fmt.Sprintf("/run/user/%d", uid)
	}
	if config := base("XDG_CONFIG_HOME", ".config"); config != "" {
		configPath = "/usr/lib/gantry:/etc/gantry:" + config // /run/gantry is root's alone, with the layer in it
	}
	return base("XDG_DATA_HOME", ".local/share"), filepath.Join(runtime, "gantry"), configPath
}

// homeError says why HOME does not tell where an ordinary user's files are.
func homeError(uid int) error {
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		return hint.With(
			fmt.Errorf("HOME is %s, which user %d may not enter: there is no place for images and pods", home, uid),
			"'su -' and 'sudo --login' set the user's own; or give --dir, --run-dir and --config-path",
		)
	}
	return hint.With(errors.New("HOME is not set: there is no place for images and pods"), "set it, or give --dir, --run-dir and --config-path")
}

// checkRunDir tells what to do where an ordinary user has no runtime directory.
func checkRunDir(runDir string) error {
	parent := filepath.Dir(runDir)
	if _, err := os.Stat(parent); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return hint.With(
		fmt.Errorf("there is no %s: what a reboot forgets has no place", parent),
		"log in through PAM or 'loginctl enable-linger', which make XDG_RUNTIME_DIR, or give --run-dir",
	)
}

// environ is what the user's environment was.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, userVar+"=") })
}
