// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// writeOCI writes gantry-oci(8) from what the program says of itself: its
// commands are no cobra tree, and no package to import.
func writeOCI(dir string) error {
	temp, err := os.MkdirTemp("", "gantry-gen-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	program := filepath.Join(temp, "gantry-oci")
	build := exec.Command("go", "build", "-o", program, "./cmd/gantry-oci")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build gantry-oci: %w\n%s", err, out)
	}
	page, err := ociPage(func(args ...string) (string, error) {
		cmd := exec.Command(program, args...)
		// Defaults that depend on who asks are root's.
		cmd.Env = []string{"HOME=/"}
		out, err := cmd.Output()
		return string(out), err
	})
	if err != nil {
		return fmt.Errorf("describe gantry-oci: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "gantry-oci.8"), []byte(page), 0o644)
}

// ociPage is the manual of a program that help answers for.
func ociPage(help func(args ...string) (string, error)) (string, error) {
	text, err := help("--help")
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(text, "\nCommands:\n")
	commands, flags, ok := strings.Cut(rest, "\nFlags:\n")
	if !ok {
		return "", fmt.Errorf("no flags in %q", text)
	}
	var b strings.Builder
	b.WriteString(ociHead)
	b.WriteString(".SH OPTIONS\n" + roffFlags(flags) + ".SH COMMANDS\n")
	for line := range strings.Lines(commands) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		text, err := help(name, "--help")
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		usage, rest, _ := strings.Cut(text, "\n\n")
		short, flags, _ := strings.Cut(rest, "\n\n")
		fmt.Fprintf(&b, ".SS %s\n\\fB%s\\fP\n.PP\n%s.\n", name, roff(strings.TrimPrefix(usage, "usage: ")), roff(sentence(short)))
		b.WriteString(roffFlags(flags))
	}
	b.WriteString(ociTail)
	return b.String(), nil
}

func roffFlags(usages string) string {
	// pflag's usages: names, perhaps the name of a value, text.
	flagLine := regexp.MustCompile(`^ +((?:-\w, )?--[\w-]+)(?: (\S+))? {2,}(.*)$`)
	var b strings.Builder
	for line := range strings.Lines(usages) {
		m := flagLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil || strings.HasSuffix(m[1], "--help") {
			continue
		}
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fP", roff(m[1]))
		if m[2] != "" {
			fmt.Fprintf(&b, " \\fI%s\\fP", roff(m[2]))
		}
		fmt.Fprintf(&b, "\n%s\n", roff(m[3]))
	}
	return b.String()
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// roff escapes what has a meaning there.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

const ociHead = `.nh
.TH "GANTRY-OCI" "8" "Jan 1970" "gantry" "gantry manual"
.SH NAME
gantry\-oci \- an OCI runtime
.SH SYNOPSIS
\fBgantry\-oci [flags] COMMAND [flags] [arguments]\fP
.SH DESCRIPTION
Makes, starts, signals and deletes containers from bundles as the OCI runtime specification describes them, by the
command line that podman, containerd and CRI\-O call. It leaves when a container is created: nothing of it runs beside
a container, except in the foreground of \fBrun\fP and \fBexec\fP.
.PP
What a bundle asks for and cannot be had is an error with the name of its field and of the section of the specification.
`

const ociTail = `.SH EXIT STATUS
0, or 1 after an error. \fBrun\fP and \fBexec\fP end with the status of the command, 128 + n if signal n ended it, 127
if it is not there, 126 if it cannot be executed; other errors of \fBexec\fP are 255.
.SH FILES
.TP
\fI/run/gantry\-oci/ID\fP
what is remembered of a container, unless \fB\-\-root\fP says otherwise
.TP
\fI/run/gantry\-oci\-cache\fP
compiled seccomp filters
.SH SEE ALSO
\fBgantry\fP(1)
`
