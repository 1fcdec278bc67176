// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Refusal is an option of podman's run that ours does not have.
type Refusal struct {
	Name, Short string // Short is the one-letter name, or ""
	Why         string // what is so here
	Instead     string // what to do, or ""
}

// Refusals are what people know from podman or Docker and would miss. They are
// looked up when a flag is unknown, so a launch pays nothing for them.
func Refusals() []Refusal {
	return []Refusal{
		{"arch", "", "the platform is one option here", "--platform linux/ARCH"},
		{"attach", "a", "in the foreground all streams are attached", "-i, for standard input; -d and 'gantry logs' for none"},
		{"cert-dir", "", "certificates are configuration, not options of a launch", ""},
		{"chrootdirs", "", "directories below the root are the image's", ""},
		{"conmon-pidfile", "", "there is no conmon: this process is the supervisor", "--pidfile, and $! in the shell"},
		{"cpu-count", "", "it is for Windows", "--cpus"},
		{"cpu-percent", "", "it is for Windows", "--cpus"},
		{"creds", "", "a password on a command line is everybody's", "--authfile"},
		{"decryption-key", "", "encrypted images are not supported", ""},
		{"detach-keys", "", "run never detaches from under its caller", "-d"},
		{"disable-content-trust", "", "signatures are judged at every launch", "--insecure-options=image, which warns each time"},
		{"domainname", "", "NIS domains are not supported", "--hostname"},
		{"expose", "", "a port is published or it is not", "--publish PORT"},
		{"gpus", "", "GPUs are named by their vendor's CDI specification", "--device nvidia.com/gpu=all"},
		{"group-entry", "", "the image's /etc/group is left as it is", "--volume FILE:/etc/group:ro"},
		{"health-log-destination", "", "the last results are kept with the pod", "'gantry inspect' shows them"},
		{"health-max-log-count", "", "the last five results are kept", ""},
		{"health-max-log-size", "", "500 bytes of each result are kept", ""},
		{"health-startup-cmd", "", "start-up checks are not supported", "--health-start-period"},
		{"health-startup-interval", "", "start-up checks are not supported", "--health-start-period"},
		{"health-startup-retries", "", "start-up checks are not supported", "--health-start-period"},
		{"health-startup-success", "", "start-up checks are not supported", "--health-start-period"},
		{"health-startup-timeout", "", "start-up checks are not supported", "--health-start-period"},
		{"hosts-file", "", "the base of /etc/hosts cannot be chosen", "--add-host, or --volume FILE:/etc/hosts"},
		{"hostuser", "", "no user of this host is added to the image's", "--user UID:GID"},
		{"init-path", "", "the init of --init is gantry's own", "--init"},
		{"io-maxbandwidth", "", "it is for Windows", "--device-read-bps"},
		{"io-maxiops", "", "it is for Windows", "--device-read-iops"},
		{"isolation", "", "it is for Windows", ""},
		{"kernel-memory", "", "Linux has taken it away (5.4)", "--memory"},
		{"link", "", "names of neighbours come with a network", "--net NAME"},
		{"no-hostname", "", "/etc/hostname is the pod's", "--volume FILE:/etc/hostname"},
		{"os", "", "the platform is one option here", "--platform OS/ARCH"},
		{"passwd", "", "nothing is added to the image's /etc/passwd: what podman does with --passwd=false", ""},
		{"passwd-entry", "", "nothing is added to the image's /etc/passwd", "--volume FILE:/etc/passwd:ro"},
		{"pod", "", "several apps in one pod are not supported yet", "a pod for each, on one network"},
		{"pod-id-file", "", "several apps in one pod are not supported yet", "a pod for each, on one network"},
		{"rdt-class", "", "classes of cache and memory bandwidth are not given out by run", "gantry-oci has them"},
		{"requires", "", "order between pods is the init system's", "write Requires= and After= into units"},
		{"restart", "", "restarting is the init system's, until pods have a policy of their own", "write Restart= into a unit"},
		{"retry", "", "a fetch is resumed where it stopped, at the next run", ""},
		{"retry-delay", "", "a fetch is resumed where it stopped, at the next run", ""},
		{"rmi", "", "images are kept until they are removed", "'gantry image rm' removes them"},
		{"rootfs", "", "what is launched is a verified image", "'gantry-oci run' launches a bundle"},
		{"runtime", "", "gantry is the runtime", ""},
		{"sdnotify", "", "readiness is not passed on yet", ""},
		{"seccomp-policy", "", "an image does not choose what confines it", "--seccomp"},
		{"secret", "", "secrets have no store here", "--volume FILE:/run/secrets/NAME:ro"},
		{"shm-size-systemd", "", "systemd inside is not supported yet", "--tmpfs /run"},
		{"sig-proxy", "", "signals always reach the app", "-d, when they should not"},
		{"storage-opt", "", "the writable layer has no quota of its own", ""},
		{"systemd", "", "systemd inside is not supported yet", "--tmpfs /run, and --stop-signal SIGRTMIN+3"},
		{"tls-verify", "", "checks are given up by name", "--insecure-options=tls"},
		{"variant", "", "the platform is one option here", "--platform OS/ARCH/VARIANT"},
		{"volume-driver", "", "volumes are directories of this host", "--volume"},
	}
}

// refused turns pflag's "unknown flag" into why there is none.
func refused(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return flagError(c, err)
	}
	for _, r := range Refusals() {
		if name := unknown.GetSpecifiedName(); name == r.Name || r.Short != "" && name == r.Short {
			err := fmt.Errorf("--%s is not supported: %s", r.Name, r.Why)
			switch {
			case r.Instead == "":
				return err
			case r.Instead[0] == '-':
				return withHint(err, "use %s", r.Instead)
			}
			return withHint(err, "%s", r.Instead)
		}
	}
	return flagError(c, err)
}
