// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/bounded"
	"github.com/gantryrun/gantry/internal/rootfs"
	"github.com/gantryrun/gantry/stage0/bundle"
)

// Bounds of foreign files: an image's account files, and what the user names
// on the host (environments, seccomp profiles) or the pod gets from it.
const (
	maxAccountFile = 1 << 20
	maxHostFile    = 1 << 20
)

// hostFacts gathers what a bundle may depend on, and no more than these
// options can make it depend on.
func hostFacts(o bundle.Options, note func(string)) (bundle.Host, error) {
	h := bundle.Host{Environ: environ()}
	var err error
	if h.Capabilities, err = givable(); err != nil {
		return h, err
	}
	for _, name := range o.EnvFiles {
		b, err := readHostFile(name)
		if err != nil {
			return h, fmt.Errorf("--env-file: %w", err)
		}
		h.EnvFiles = append(h.EnvFiles, b)
	}
	if len(o.Volumes)+len(o.Mounts)+len(o.SecurityOpt) > 0 || o.SeccompProfile != "" {
		if h.Dir, err = os.Getwd(); err != nil {
			return h, fmt.Errorf("find working directory: %w", err)
		}
		h.SELinux = hasSELinux()
	}
	if len(o.Ulimits) > 0 {
		h.Limits, h.CanRaise = ownLimits(), haveCapability(unix.CAP_SYS_RESOURCE)
	}
	if err := moreFacts(&h, o, note); err != nil {
		return h, err
	}
	h.Networks = mayNetwork()
	h.Throttles = throttles(bundle.FirstThrottle)
	if slices.Contains(o.Net, "host") {
		h.Hostname, _ = os.Hostname()
		h.Hosts = readOptional("/etc/hosts")
		h.ResolvConf = readOptional("/etc/resolv.conf")
	} else if !slices.Contains(o.Net, "none") {
		h.ResolvConf = resolvers()
	}
	return h, nil
}

// readHostFile reads a file the user named, of bounded size.
func readHostFile(name string) ([]byte, error) {
	return bounded.File(name, maxHostFile)
}

func readOptional(name string) []byte {
	b, err := readHostFile(name)
	if err != nil {
		return nil // a host without it gives the pod none
	}
	return b
}

// imageFiles reads the image's account files. They are the image's word: a
// link leads nowhere but inside the image, a FIFO does not hang us, and a
// huge one is refused (CVE-2024-9676, CVE-2026-47262).
func imageFiles(root *os.File) (bundle.ImageFiles, error) {
	var f bundle.ImageFiles
	for _, file := range []struct {
		name string
		to   *[]byte
	}{{"etc/passwd", &f.Passwd}, {"etc/group", &f.Group}} {
		b, err := rootfs.ReadRegular(root, file.name, maxAccountFile)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return f, fmt.Errorf("read the image's /%s: %w", file.name, err)
		}
		*file.to = b
	}
	return f, nil
}

// givable returns the capabilities of our own bounding set, by name.
func givable() ([]string, error) {
	names := bundle.AllCapabilities()
	out := make([]string, 0, len(names))
	for i, name := range names {
		set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(i), 0, 0, 0)
		if err == unix.EINVAL {
			break // an older kernel ends its list here
		}
		if err != nil {
			return nil, fmt.Errorf("read capability %s: %w", name, err)
		}
		if set == 1 {
			out = append(out, name)
		}
	}
	return out, nil
}

// haveCapability says whether a capability is in our effective set.
func haveCapability(n uint) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[n/32].Effective&(1<<(n%32)) != 0
}

// ownLimits are this process's resource limits, which the app inherits where
// the user sets no others.
func ownLimits() []specs.POSIXRlimit {
	var out []specs.POSIXRlimit
	for i, name := range bundle.RlimitNames() {
		var l unix.Rlimit
		if err := unix.Getrlimit(i, &l); err == nil {
			out = append(out, specs.POSIXRlimit{Type: name, Soft: l.Cur, Hard: l.Max})
		}
	}
	return out
}

// processLimits are those of a running app, as the kernel has them.
func processLimits(pid int) map[string][]string {
	out := map[string][]string{}
	for i, name := range bundle.RlimitNames() {
		var l unix.Rlimit
		if err := unix.Prlimit(pid, i, nil, &l); err != nil {
			continue
		}
		out[strings.ToLower(strings.TrimPrefix(name, "RLIMIT_"))] = []string{limitText(l.Cur), limitText(l.Max)}
	}
	return out
}

func limitText(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}
