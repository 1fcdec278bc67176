// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bounds of the fields of a configuration.
const (
	// maxString is Linux's MAX_ARG_STRLEN less the final NUL: no longer string
	// can be handed to a process at all.
	maxString = 128<<10 - 1
	maxPath   = 4095
	maxUser   = 256
	maxList   = 4096
	// maxID is the highest user or group number; the one above it means "no
	// change" to the kernel (CVE-2024-40635).
	maxID = 1<<32 - 2
)

// ParseConfig reads an image's configuration. layers is how many its manifest
// has; a negative one is not compared.
//
// The fields of ispec.Image are all that is read; every other member is
// skipped. What was read is within bounds and has no character in it that could
// end a line or a string elsewhere. Labels, history, author and comments are
// free text: data to show, escaped, and never to act on.
func ParseConfig(b []byte, layers int) (ispec.Image, error) {
	var c ispec.Image
	if _, err := decodeStrict(b, MaxConfig, configShape(), &c); err != nil {
		return ispec.Image{}, fmt.Errorf("image configuration: %w", err)
	}
	if err := checkConfig(c, layers); err != nil {
		return ispec.Image{}, fmt.Errorf("image configuration: %w", err)
	}
	return c, nil
}

func checkConfig(c ispec.Image, layers int) error {
	if err := checkPlatform(c.Platform); err != nil {
		return err
	}
	if err := checkRootFS(c.RootFS, layers); err != nil {
		return fmt.Errorf("rootfs: %w", err)
	}
	for _, check := range []func(ispec.ImageConfig) error{
		checkEnv, checkUser, checkArgs, checkWorkingDir, checkVolumes, checkPorts, checkStopSignal,
	} {
		if err := check(c.Config); err != nil {
			return fmt.Errorf("config: %w", err)
		}
	}
	return nil
}

func checkRootFS(r ispec.RootFS, layers int) error {
	if r.Type != "layers" {
		return fmt.Errorf("type: %s is not layers", quote(r.Type))
	}
	for i, d := range r.DiffIDs {
		if err := ValidDigest(d); err != nil {
			return fmt.Errorf("diff_ids[%d]: %w", i, err)
		}
	}
	if layers >= 0 && len(r.DiffIDs) != layers {
		return fmt.Errorf("diff_ids: %d of them for %d layers", len(r.DiffIDs), layers)
	}
	return nil
}

// checkEnv wants KEY=VALUE: an entry without = or with a wildcard asks some
// engines for a variable of the host (CVE-2026-57231). No value may break a
// line, since values end up in files of lines, /etc/passwd among them
// (CVE-2022-4318, CVE-2026-23953).
func checkEnv(c ispec.ImageConfig) error {
	if err := checkCount("Env", len(c.Env)); err != nil {
		return err
	}
	for i, e := range c.Env {
		if err := checkEnvEntry(e); err != nil {
			return in(fmt.Sprintf("Env[%d]", i), err)
		}
	}
	return nil
}

// in names the field that is wrong as the document spells it.
func in(field string, err error) error { return fmt.Errorf("%s: %w", field, err) }

func checkCount(field string, n int) error {
	if n > maxList {
		return fmt.Errorf("%s: %d entries, at most %d are allowed", field, n, maxList)
	}
	return nil
}

func checkEnvEntry(e string) error {
	key, value, found := strings.Cut(e, "=")
	switch {
	case !found:
		return fmt.Errorf("%s has no =; an image may set variables, not ask for the host's", quote(e))
	case key == "":
		return fmt.Errorf("%s has no name before the =", quote(e))
	case strings.ContainsAny(key, "*?[]") || strings.ContainsFunc(key, unsafeInName):
		return fmt.Errorf("name %s has a character that names do not have", quote(key))
	case len(e) > maxString:
		return fmt.Errorf("%s: %d bytes, at most %d are allowed", quote(key), len(e), maxString)
	}
	refuse := unsafeInValue
	if isPersonal(key) {
		refuse = notPrintable
	}
	if i := strings.IndexFunc(value, refuse); i >= 0 {
		return fmt.Errorf("%s: control character %s in its value", key, quoteAt(value, i))
	}
	return nil
}

// isPersonal names the variables that are copied to account files, search
// paths and terminals: no control character at all in them.
func isPersonal(key string) bool {
	switch key {
	case "HOME", "USER", "LOGNAME", "SHELL", "PATH", "PWD", "HOSTNAME", "TERM", "LANG", "TZ":
		return true
	}
	return false
}

func unsafeInName(r rune) bool { return notPrintable(r) || unicode.IsSpace(r) }

// unsafeInValue lets a tab through: a Dockerfile line continued with an
// indentation leaves one in the value, and it ends nothing.
func unsafeInValue(r rune) bool {
	return r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp))
}

// checkUser wants name or number, or either with a group after a colon. What is
// a number is in range as one, so that nobody truncates it to another user
// (CVE-2024-40635, CVE-2026-46680).
func checkUser(c ispec.ImageConfig) error {
	if c.User == "" {
		return nil
	}
	user, group, found := strings.Cut(c.User, ":")
	if err := checkID(user); err != nil {
		return in("User "+quote(c.User), fmt.Errorf("user %w", err))
	}
	if !found {
		return nil
	}
	if err := checkID(group); err != nil {
		return in("User "+quote(c.User), fmt.Errorf("group %w", err))
	}
	return nil
}

func checkID(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > maxUser:
		return fmt.Errorf("is longer than %d bytes", maxUser)
	case strings.ContainsFunc(s, unsafeInName):
		return errors.New("has a control character or a space")
	case strings.ContainsAny(s, ":/,\\\"'"):
		return errors.New("has a character that names do not have")
	case s[0] == '-' || s[0] == '+':
		return errors.New("begins with a sign")
	}
	if strings.Trim(s, "0123456789") != "" {
		return nil
	}
	if n, err := strconv.ParseUint(s, 10, 64); err != nil || n > maxID {
		return fmt.Errorf("is not in the range 0 to %d", maxID)
	}
	return nil
}

// checkArgs leaves line breaks alone: scripts are given as arguments, and
// arguments go to execve and nowhere else.
func checkArgs(c ispec.ImageConfig) error {
	for _, list := range []struct {
		name string
		args []string
	}{{"Entrypoint", c.Entrypoint}, {"Cmd", c.Cmd}} {
		if err := checkCount(list.name, len(list.args)); err != nil {
			return err
		}
		for i, a := range list.args {
			switch {
			case strings.IndexByte(a, 0) >= 0:
				return fmt.Errorf("%s[%d]: NUL in it", list.name, i)
			case len(a) > maxString:
				return fmt.Errorf("%s[%d]: %d bytes, at most %d are allowed", list.name, i, len(a), maxString)
			}
		}
	}
	return nil
}

func checkWorkingDir(c ispec.ImageConfig) error {
	if c.WorkingDir == "" {
		return nil
	}
	if err := checkPath(c.WorkingDir); err != nil {
		return in("WorkingDir", err)
	}
	return nil
}

func checkVolumes(c ispec.ImageConfig) error {
	if err := checkCount("Volumes", len(c.Volumes)); err != nil {
		return err
	}
	for v := range c.Volumes {
		if err := checkPath(v); err != nil {
			return in("Volumes", err)
		}
		if path.Clean(v) == "/" {
			return in("Volumes", fmt.Errorf("%s is the whole root", quote(v)))
		}
	}
	return nil
}

func checkPath(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("%s is not absolute", quote(p))
	case len(p) > maxPath:
		return fmt.Errorf("longer than %d bytes", maxPath)
	case strings.ContainsFunc(p, notPrintable):
		return fmt.Errorf("%s has a control character", quote(p))
	}
	return nil
}

// checkPorts wants port[-port][/protocol].
func checkPorts(c ispec.ImageConfig) error {
	if err := checkCount("ExposedPorts", len(c.ExposedPorts)); err != nil {
		return err
	}
	for p := range c.ExposedPorts {
		if !validPort(p) {
			return in("ExposedPorts", fmt.Errorf("%s is not a port, as in 80/tcp", quote(p)))
		}
	}
	return nil
}

func validPort(s string) bool {
	ports, protocol, found := strings.Cut(s, "/")
	if found && protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
		return false
	}
	first, last, ranged := strings.Cut(ports, "-")
	low, err := strconv.ParseUint(first, 10, 16)
	if err != nil || low == 0 {
		return false
	}
	if !ranged {
		return true
	}
	high, err := strconv.ParseUint(last, 10, 16)
	return err == nil && high >= low
}

// checkStopSignal checks the form; which names there are, the launch knows.
func checkStopSignal(c ispec.ImageConfig) error {
	s := c.StopSignal
	if s == "" {
		return nil
	}
	if len(s) > 16 || strings.ContainsFunc(s, func(r rune) bool { return !isAlnum(r) && r != '+' && r != '-' }) {
		return in("StopSignal", fmt.Errorf("%s is not a signal", quote(s)))
	}
	if strings.Trim(s, "0123456789") == "" {
		if n, err := strconv.Atoi(s); err != nil || n < 1 || n > 64 {
			return in("StopSignal", fmt.Errorf("%s is not in the range 1 to 64", quote(s)))
		}
	}
	return nil
}
