// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Refusal is an option of podman's run that ours does not have.
type Refusal struct {
	Name, Short string // Short is the one-letter name, or ""
	Why         string // what is so here
	Instead     string // what to do, or ""

	Same []string // values that ask for what is so anyway: they are taken
}

// Refusals are what people know from podman or Docker and would miss. They are
// looked up when a flag is unknown.
func Refusals() []Refusal {
	return []Refusal{
		{"arch", "", "the platform is one option here", "--platform linux/ARCH", []string{runtime.GOARCH}},
		{"attach", "a", "in the foreground all streams are attached", "-i, for standard input; -d and 'gantry logs' for none", nil},
		{"cert-dir", "", "certificates are configuration, not options of a launch", "", nil},
		{"chrootdirs", "", "directories below the root are the image's", "", nil},
		{"conmon-pidfile", "", "there is no conmon: this process is the supervisor", "--pidfile, and $! in the shell", nil},
		{"cpu-count", "", "it is for Windows", "--cpus", nil},
		{"cpu-percent", "", "it is for Windows", "--cpus", nil},
		{"creds", "", "a password on a command line is everybody's", "--authfile", nil},
		{"decryption-key", "", "encrypted images are not supported", "", nil},
		{"detach-keys", "", "run never detaches from under its caller", "-d", nil},
		{"disable-content-trust", "", "signatures are judged at every launch", "--insecure-options=image, which warns each time", nil},
		{"domainname", "", "NIS domains are not supported", "--hostname", nil},
		{"expose", "", "a port is published or it is not", "--publish PORT", nil},
		{"gpus", "", "GPUs are named by their vendor's CDI specification", "--device nvidia.com/gpu=all", nil},
		{"group-entry", "", "the image's /etc/group is left as it is", "--volume FILE:/etc/group:ro", nil},
		{"health-log-destination", "", "the last results are kept with the pod", "'gantry inspect' shows them", nil},
		{"health-max-log-count", "", "the last five results are kept", "", nil},
		{"health-max-log-size", "", "500 bytes of each result are kept", "", nil},
		{"health-startup-cmd", "", "start-up checks are not supported", "--health-start-period", nil},
		{"health-startup-interval", "", "start-up checks are not supported", "--health-start-period", nil},
		{"health-startup-retries", "", "start-up checks are not supported", "--health-start-period", nil},
		{"health-startup-success", "", "start-up checks are not supported", "--health-start-period", nil},
		{"health-startup-timeout", "", "start-up checks are not supported", "--health-start-period", nil},
		{"hosts-file", "", "the base of /etc/hosts cannot be chosen", "--add-host, or --volume FILE:/etc/hosts", nil},
		{"hostuser", "", "no user of this host is added to the image's", "--user UID:GID", nil},
		{"init-path", "", "the init of --init is gantry's own", "--init", nil},
		{"io-maxbandwidth", "", "it is for Windows", "--device-read-bps", nil},
		{"io-maxiops", "", "it is for Windows", "--device-read-iops", nil},
		{"isolation", "", "it is for Windows", "", nil},
		{"kernel-memory", "", "Linux has taken it away (5.4)", "--memory", nil},
		{"link", "", "names of neighbours come with a network", "--net NAME", nil},
		{"no-hostname", "", "/etc/hostname is the pod's", "--volume FILE:/etc/hostname", nil},
		{"os", "", "the platform is one option here", "--platform OS/ARCH", []string{"linux"}},
		{"passwd", "", "nothing is added to the image's /etc/passwd: what podman does with --passwd=false", "", []string{"false"}},
		{"passwd-entry", "", "nothing is added to the image's /etc/passwd", "--volume FILE:/etc/passwd:ro", nil},
		{"pod", "", "several apps in one pod are not supported yet", "a pod for each, on one network", nil},
		{"pod-id-file", "", "several apps in one pod are not supported yet", "a pod for each, on one network", nil},
		{"rdt-class", "", "classes of cache and memory bandwidth are not given out by run", "gantry-oci has them", nil},
		{"requires", "", "order between pods is the init system's", "write Requires= and After= into units", nil},
		{"restart", "", "restarting is the init system's, until pods have a policy of their own", "write Restart= into a unit", []string{"no", "never"}},
		{"retry", "", "a fetch is resumed where it stopped, at the next run", "", nil},
		{"retry-delay", "", "a fetch is resumed where it stopped, at the next run", "", nil},
		{"rmi", "", "images are kept until they are removed", "'gantry image rm' removes them", []string{"false"}},
		{"rootfs", "", "what is launched is a verified image", "'gantry-oci run' launches a bundle", nil},
		{"runtime", "", "gantry is the runtime", "", nil},
		{"sdnotify", "", "readiness is not passed on yet", "", []string{"ignore"}},
		{"seccomp-policy", "", "an image does not choose what confines it", "--seccomp", nil},
		{"secret", "", "secrets have no store here", "--volume FILE:/run/secrets/NAME:ro", nil},
		{"shm-size-systemd", "", "systemd inside is not supported yet", "--tmpfs /run", nil},
		{"sig-proxy", "", "signals always reach the app", "-d, when they should not", []string{"true"}},
		{"storage-opt", "", "the writable layer has no quota of its own", "", nil},
		{"systemd", "", "systemd inside is not supported yet", "--tmpfs /run, and --stop-signal SIGRTMIN+3", []string{"false"}},
		{"tls-verify", "", "checks are given up by name", "--insecure-options=tls", []string{"true"}},
		{"variant", "", "the platform is one option here", "--platform OS/ARCH/VARIANT", nil},
		{"volume-driver", "", "volumes are directories of this host", "--volume", nil},
	}
}

// refused turns pflag's "unknown flag" into why there is none.
func refused(c *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	if errors.As(err, &value) {
		if same, ok := value.GetFlag().Value.(sameOnly); ok {
			return same.r.err()
		}
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return flagError(c, err)
	}
	for _, r := range Refusals() {
		if name := unknown.GetSpecifiedName(); name == r.Name || r.Short != "" && name == r.Short {
			return r.err()
		}
	}
	return flagError(c, err)
}

func (r Refusal) err() error {
	err := fmt.Errorf("--%s is not supported: %s", r.Name, r.Why)
	switch {
	case r.Instead == "":
		return err
	case r.Instead[0] == '-':
		return withHint(err, "use %s", r.Instead)
	}
	return withHint(err, "%s", r.Instead)
}

// refusedUnlessSame adds the options that have values which change nothing.
func refusedUnlessSame(s *pflag.FlagSet) {
	for _, r := range Refusals() {
		if len(r.Same) == 0 {
			continue
		}
		f := s.VarPF(sameOnly{r}, r.Name, r.Short, "")
		f.Hidden = true
		if r.isBool() {
			f.NoOptDefVal = "true"
		}
	}
}

func (r Refusal) isBool() bool { return r.Same[0] == "true" || r.Same[0] == "false" }

// sameOnly is a flag that takes nothing but the values of its Same.
type sameOnly struct{ r Refusal }

func (sameOnly) String() string { return "" }
func (sameOnly) Type() string   { return "string" }

func (v sameOnly) Set(value string) error {
	if v.r.isBool() {
		if b, err := strconv.ParseBool(value); err == nil {
			value = strconv.FormatBool(b)
		}
	}
	if slices.Contains(v.r.Same, value) {
		return nil
	}
	return v.r.err()
}
