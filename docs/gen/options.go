// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/cmd/gantry/cli"
)

// podmanRun is what podman run has.
//
//go:embed podman-run.txt
var podmanRun string

// podmanOptions are podman's options by name, with their short names.
func podmanOptions() map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(podmanRun) {
		if f := strings.Fields(line); len(f) == 2 && f[0] != "#" {
			out[f[0]] = strings.Trim(f[1], "-")
		}
	}
	return out
}

// differences are how an option of podman's name means something else here,
// or takes less.
func differences() map[string]string {
	return map[string]string{
		"annotation":         "of the bundle; none of them steers gantry",
		"authfile":           "the default is where podman login and docker login write",
		"cgroup-parent":      "a path; a slice is refused: start in it with systemd-run",
		"cgroupns":           "private also on cgroup v1; ns: and container: are refused",
		"cgroups":            "enabled or no-conmon, which are the same here; split and disabled are refused",
		"cpu-rt-period":      "cgroup v1 only: v2 refuses it, podman ignores it with a warning",
		"cpu-rt-runtime":     "cgroup v1 only: v2 refuses it, podman ignores it with a warning",
		"detach":             "prints the UUID when the app's execve succeeded",
		"env-merge":          "the same, also without an image's value: that is empty",
		"group-add":          "keep-groups adds the caller's groups by number",
		"http-proxy":         "off by default: the caller's environment is not the app's unless asked",
		"image-volume":       "anonymous is the default and the same as bind",
		"ipc":                "private, host or none; shareable, container: and pod modes are refused",
		"memory-swappiness":  "cgroup v1 only: v2 refuses it",
		"oom-kill-disable":   "cgroup v1 only, and only with --memory",
		"pid":                "private or host; container: and ns: are refused",
		"pidfile":            "by rename, when the app runs",
		"preserve-fds":       "not with -d",
		"privileged":         "refused: says what to use instead",
		"pull":               "the same policies; what is pulled is also verified",
		"replace":            "the old pod goes when the new one can start",
		"rm":                 "the whole pod goes",
		"sysctl":             "only those of a namespace of the pod's own",
		"tz":                 "a zone is named below /usr/share/zoneinfo",
		"ulimit":             "podman adds nproc; gantry adds none: what the caller has reaches the app",
		"umask":              "0000 to 0777",
		"uts":                "private or host; container: and ns: are refused",
		"blkio-weight":       "refused where the host cannot do it, not ignored",
		"log-driver":         "passthrough is the default in the foreground, file with -d; none is /dev/null, in the foreground too; k8s-file is file, json-file is refused",
		"health-on-failure":  "none, kill or stop; restart is refused: it is the init system's",
		"health-interval":    "from 100ms; nothing runs between two probes",
		"log-opt":            "path, max-size, max-file (2 unless given), tag; max-size rotates and loses no line; what a full disk has no room for is counted in the log",
		"init":               "gantry-init itself stays as process 1",
		"timeout":            "SIGKILL at its end, and the status says so: 137",
		"no-hosts":           "excludes --add-host",
		"personality":        "LINUX or LINUX32, as the runtime specification has them",
		"cidfile":            "a file that is there is replaced, by rename",
		"dns":                "none is refused: leave resolv.conf to a mount",
		"memory":             "0 and less than 2 MiB are refused, -1 and nothing given are no limit",
		"cpus":               "0 is refused: leave it out",
		"shm-size":           "0 is refused: leave it out",
		"publish":            "TCP and UDP; sctp is refused",
		"publish-all":        "refused where the image exposes nothing",
		"volume":             "nosuid and nodev unless suid and dev are given; :O is refused (docs/volumes.md)",
		"mount":              "as --volume; an image is read-only (docs/volumes.md)",
		"tmpfs":              "noexec, nosuid and nodev unless told otherwise",
		"workdir":            "made if missing",
		"add-host":           "host.containers.internal and the host's own entries are not there unless given",
		"env":                "TERM is set with -t only",
		"userns":             "host or auto; keep-id, nomap, ns: and container: are refused, and auto as an ordinary user",
		"unsetenv-all":       "HOSTNAME and HOME are set afterwards",
		"interactive":        "without it standard input is /dev/null, also in the foreground",
		"label":              "labels of images are never copied to a pod",
		"security-opt":       "what cannot be had on this host is refused, never ignored",
		"device":             "the device rules are in force or the launch is refused",
		"device-cgroup-rule": "the device rules are in force or the launch is refused",
	}
}

// runFlags are the options of our run.
func runFlags() (*pflag.FlagSet, error) {
	c, _, err := cli.Root().Find([]string{"run"})
	if err != nil {
		return nil, err
	}
	return c.Flags(), nil
}

// optionTable is docs/options.md.
func optionTable() (string, error) {
	flags, err := runFlags()
	if err != nil {
		return "", err
	}
	podmans, why := podmanOptions(), map[string]cli.Refusal{}
	for _, r := range cli.Refusals() {
		why[r.Name] = r
	}
	var same []string
	var differ, refused, only strings.Builder
	for _, name := range slices.Sorted(maps.Keys(podmans)) {
		switch diff, has := differences()[name]; {
		case why[name].Name != "":
			r := why[name]
			fmt.Fprintf(&refused, "| `--%s` | %s | %s |\n", name, r.Why+taken(r.Same), code(r.Instead))
		case has:
			fmt.Fprintf(&differ, "| `--%s` | %s |\n", name, diff)
		default:
			same = append(same, "`--"+name+"`")
		}
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if _, shared := podmans[f.Name]; !shared && !f.Hidden {
			kind, usage := pflag.UnquoteUsage(f)
			fmt.Fprintf(&only, "| `--%s` | %s |\n", strings.TrimSpace(f.Name+" "+kind), escape(usage))
		}
	})
	return fmt.Sprintf(optionsPage, strings.Join(same, " "), differ.String(), refused.String(), only.String()), nil
}

// taken tells which values are not refused, wherever this is written.
func taken(same []string) string {
	if len(same) == 0 {
		return ""
	}
	values := slices.Clone(same)
	for i, v := range values {
		values[i] = "`" + v + "`"
		if v == runtime.GOARCH {
			values[i] = "the host's"
		}
	}
	return "; " + strings.Join(values, " and ") + " is taken"
}

func code(instead string) string {
	if strings.HasPrefix(instead, "-") {
		option, rest, _ := strings.Cut(instead, ", ")
		if rest != "" {
			rest = ", " + rest
		}
		return "`" + escape(option) + "`" + escape(rest)
	}
	return escape(instead)
}

func escape(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

const optionsPage = `# Options of run, compared with podman's

Written by ` + "`make docs`" + ` from the commands; a test compares the names with those
of podman 4.3.1, Debian's. What podman has and gantry has not is refused by
name, with what to do instead; no option is ignored.

## The same

%s

## The same name, not quite the same

| option | here |
|---|---|
%s
## Refused

| option | why | instead |
|---|---|---|
%s
## Gantry's own

| option | |
|---|---|
%s`

// writeOptions replaces the page.
func writeOptions(name string) error {
	page, err := optionTable()
	if err != nil {
		return err
	}
	return os.WriteFile(name, []byte(page), 0o644)
}
