// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const preface = `# Conformance

What the validation programs of [runtime-tools](https://github.com/opencontainers/runtime-tools) v0.9.0 find, run against gantry-oci and, in the same minutes, against runc and crun:

~~~sh
make conformance
~~~

It wants root, builds the programs once into the test cache (from the module in ` + "`tests/conformance/suite`" + `, which is not part of ours), installs the peers from Debian, and replaces this page and [every line as TSV](../tests/conformance/results). It ends with status 1 while there is a line that runc or crun pass and gantry-oci does not.

The programs are of 2019: they know cgroup v1 only, and exit with 0 whatever they found, so lines of TAP are counted. A program that ends early prints fewer lines: that is marked **!** and named at the end. On a host with the hybrid layout all runtimes are run without its part of version 2, beside which crun does not work. Two runs at a time disturb each other: the programs share a cgroup.

How to read some of them:

- hooks, prestart, prestart_fail, poststart, poststart_fail, poststop, poststop_fail and process_rlimits_fail print no lines, or only when they do not find what they want.
- process_capabilities_fail wants an error for a capability that does not exist and ends with status 1 without one. The specification has since changed its mind (config.md, Linux Process): it "MUST be logged as a warning by the runtime. Runtimes SHOULD NOT fail".
- process_capabilities and linux_rootfs_propagation ask for all capabilities. Where the runtime itself lacks one, no line about it can pass.
- process_rlimits finds a raised soft limit of open files: Go raises it for the program that looks, since 1.19.
- delete wants an error for a container that was created and not started; all three delete it, having done nothing yet.
- killsig signals a shell as soon as it is started. On a busy machine it may have no trap yet, and as process 1 it is not killed either.
- misc_props leaves its program out of the bundle and then runs it. pidfile kills a container whose command, true, has ended.
- mounts looks for the order of mounts in /proc/self/mountinfo, which lists them by number since Linux 6.8. The sources of gantry-oci's bind mounts have theirs from outside, where they are opened before the first file system is made. They are mounted as config.md, Mounts, has it ("The runtime MUST mount entries in the listed order"): what is listed later covers what came before.
- hooks_stdin wants "created" as the status that prestart hooks are told; runtime.md, State, has that of a container of which "the runtime has finished the create operation". It also wants the process number that state tells later, when the command, true, has ended and there is none: who is slow passes.
- linux_cgroups_blkio wants blkio.leaf_weight, which kernels have not had since 5.0; linux_cgroups_memory wants a limit of kernel memory, which they have not had since 5.16. linux_cgroups_network and linux_cgroups_hugetlb want hierarchies of version 1 that are rarely mounted, linux_cgroups_blkio also a device 8:0: a runtime that cannot set what is asked refuses the bundle, and no line is printed.

`

// write writes the lines of each runtime, and the page.
func write(all []findings, missing []line, needed []excuse, doc, results string) error {
	if err := os.MkdirAll(results, 0o755); err != nil {
		return err
	}
	for _, f := range all {
		if err := os.WriteFile(filepath.Join(results, f.name+".tsv"), []byte(f.tsv()), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(doc, []byte(page(all, missing, needed)), 0o644)
}

func (f findings) tsv() string {
	var b strings.Builder
	b.WriteString("program\tnumber\tresult\tdescription\n")
	for _, o := range f.outcomes {
		for _, l := range o.lines {
			fmt.Fprintf(&b, "%s\t%s\t%s\t%s\n", l.program, l.number, l.result, l.description)
		}
	}
	return b.String()
}

func page(all []findings, missing []line, needed []excuse) string {
	var b strings.Builder
	b.WriteString(preface)
	fmt.Fprintf(&b, "Linux %s, cgroup %s.", kernel(), layout())
	for _, f := range all {
		fmt.Fprintf(&b, " %s is %q.", f.name, f.version)
	}
	b.WriteString("\n\nok / not ok / skip:\n\n| program |")
	for _, f := range all {
		fmt.Fprintf(&b, " %s |", f.name)
	}
	b.WriteString("\n|---" + strings.Repeat("|---", len(all)) + "|\n")
	sums := make([][3]int, len(all))
	for i, o := range all[0].outcomes {
		fmt.Fprintf(&b, "| %s |", prose(o.program))
		for j, f := range all {
			o := f.outcomes[i]
			fmt.Fprintf(&b, " %s |", o.summary())
			for k, result := range []string{"ok", "not ok", "skip"} {
				sums[j][k] += o.count(result)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("| **all** |")
	for _, s := range sums {
		fmt.Fprintf(&b, " **%d/%d/%d** |", s[0], s[1], s[2])
	}
	b.WriteString("\n\n## What another passes and gantry-oci does not\n\n")
	if len(missing) == 0 {
		b.WriteString("Nothing.\n")
	}
	for _, l := range shorten(missing) {
		fmt.Fprintf(&b, "- %s: %s\n", prose(l.program), prose(l.description))
	}
	for _, e := range needed {
		fmt.Fprintf(&b, "\nExcused are lines of %s (… %s): %s\n", e.program, e.suffix, e.why)
	}
	b.WriteString("\n## Programs that ended early, or printed nothing\n\n")
	for i := range all[0].outcomes {
		ends(&b, all, i)
	}
	return b.String()
}

// ends tells how a program ended, for those runtimes where it did not simply.
func ends(b *strings.Builder, all []findings, program int) {
	silent := []string{}
	for _, f := range all {
		o := f.outcomes[program]
		switch {
		case o.end != "":
			fmt.Fprintf(b, "- %s, %s: %s\n", prose(o.program), f.name, prose(steady(o.end)))
		case len(o.lines) == 0:
			silent = append(silent, f.name)
		}
	}
	if len(silent) > 0 {
		fmt.Fprintf(b, "- %s: no lines with %s\n", prose(all[0].outcomes[program].program), strings.Join(silent, ", "))
	}
}

// prose keeps Markdown from reading a text that is not meant as such.
func prose(text string) string {
	return strings.NewReplacer("<", "\\<", "*", "\\*", "[", "\\[").Replace(text)
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "?"
	}
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return release
}

// layout tells which version of cgroups the programs see.
func layout() string {
	var s unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &s); err == nil && s.Type == unix.CGROUP2_SUPER_MAGIC {
		return "v2"
	}
	return "v1"
}
