// SPDX-License-Identifier: Apache-2.0

// Package stage0 takes a reference to a running pod and looks after pods that
// exist: it admits an image, prepares a sealed pod directory, hands it to
// stage1, and lists, enters, stops and removes what became of it.
package stage0

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/stage1/launch"
)

// Where things are unless a flag or a variable says otherwise.
const (
	DefaultDir        = "/var/lib/gantry"
	DefaultRunDir     = "/run/gantry"
	DefaultConfigPath = "/usr/lib/gantry:/run/gantry/conf:/etc/gantry"
)

// Env is where gantry keeps and finds things. All paths are absolute.
type Env struct {
	Dir        string   `json:"dir"`                // images and pods
	RunDir     string   `json:"runDir"`             // what a reboot forgets: names, caches
	Libexec    string   `json:"libexecDir"`         // gantry-init and its siblings
	ConfigPath []string `json:"configPath"`         // low to high precedence
	Rootless   bool     `json:"rootless,omitempty"` // all of it is an ordinary user's

	user *launch.Userns // the user namespace we are root of, for such a user
}

// NewEnv completes what the flags left empty from GANTRY_DIR, GANTRY_RUN_DIR,
// GANTRY_CONFIG_PATH and GANTRY_LIBEXEC_DIR, then from the defaults.
// configPath is colon-separated. It touches no file but the ones it needs to
// find the libexec directory, and refuses directories that are not ours alone.
func NewEnv(dir, runDir, configPath, libexec string) (Env, error) {
	e := Env{}
	ownDir, ownRunDir, ownConfig := DefaultDir, DefaultRunDir, DefaultConfigPath
	uid, ordinary := ordinary()
	var err error
	if e.Rootless = ordinary; ordinary {
		ownDir, ownRunDir, ownConfig = userDirs(uid)
	}
	dir, configPath = first(dir, os.Getenv("GANTRY_DIR"), ownDir), first(configPath, os.Getenv("GANTRY_CONFIG_PATH"), ownConfig)
	if dir == "" || configPath == "" {
		return Env{}, homeError(uid)
	}
	if ordinary && Inside() {
		if e.user, err = launch.OwnUserns(); err != nil {
			return Env{}, err
		}
	}
	if e.Dir, err = absolute("--dir", dir); err != nil {
		return Env{}, err
	}
	runDir = first(runDir, os.Getenv("GANTRY_RUN_DIR"))
	if runDir == "" && ordinary {
		if err := checkRunDir(ownRunDir); err != nil {
			return Env{}, err
		}
	}
	if e.RunDir, err = absolute("--run-dir", first(runDir, runDirOf(e.Dir, ownDir, ownRunDir))); err != nil {
		return Env{}, err
	}
	for _, d := range strings.Split(configPath, ":") {
		if d == "" {
			continue
		}
		if d, err = absolute("--config-path", d); err != nil {
			return Env{}, err
		}
		e.ConfigPath = append(e.ConfigPath, d)
	}
	if e.Libexec, err = absolute("--libexec-dir", first(libexec, os.Getenv("GANTRY_LIBEXEC_DIR"), findLibexec())); err != nil {
		return Env{}, err
	}
	return e, errors.Join(oursAlone("--dir", e.Dir), oursAlone("--run-dir", e.RunDir))
}

// unknownID is what root of a user namespace sees of users that are not in it.
const unknownID = 65534

// oursAlone refuses a directory that others can write: they could put another store
// in the place of ours, filters that filter nothing into the cache, or mark
// files as verified. One that is not there yet will be made for root alone.
func oursAlone(flag, dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil // whoever needs it says why it cannot be had
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("%s %s: others can write it (mode %04o); 'chmod go-w %s' mends that", flag, dir, st.Mode&0o7777, dir)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		owner := fmt.Sprintf("user %d", st.Uid)
		if st.Uid == unknownID {
			owner = "somebody else"
		}
		return hint.With(fmt.Errorf("%s %s: it belongs to %s", flag, dir, owner), "'gantry config' without that flag or variable shows the directories of this user")
	}
	return nil
}

// Args returns the global flags that give another gantry process this Env.
func (e Env) Args() []string {
	return []string{
		"--dir", e.Dir, "--run-dir", e.RunDir,
		"--config-path", strings.Join(e.ConfigPath, ":"), "--libexec-dir", e.Libexec,
	}
}

// runDirOf gives each directory a volatile one of its own, so that two
// installations never share names or caches.
func runDirOf(dir, usual, usualRun string) string {
	if dir == usual {
		return usualRun
	}
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(usualRun, "dirs", hex.EncodeToString(sum[:8]))
}

// findLibexec looks beside the running executable first, so that a build
// directory or an unpacked tarball works as it stands.
func findLibexec() string {
	dirs := []string{"/usr/libexec/gantry", "/usr/lib/gantry/libexec"}
	if exe, err := os.Executable(); err == nil {
		dirs = append([]string{filepath.Dir(exe)}, dirs...)
	}
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, "gantry-init")); err == nil {
			return d
		}
	}
	return dirs[len(dirs)-2]
}

func absolute(flag, path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("%s %q: %w", flag, path, err)
	}
	return abs, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
