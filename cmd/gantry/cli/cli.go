// SPDX-License-Identifier: Apache-2.0

// Package cli is gantry's command line: it turns argv into one call each,
// and prints results, errors and hints. It decides no policy and touches no
// system call or store file itself.
//
// Rules of everything it prints:
//   - results go to standard output, everything else to standard error;
//   - errors are "gantry: error: …", what to do next is "gantry: hint: …";
//   - no capitalised first word and no full stop at the end;
//   - what the user typed is quoted as it was typed;
//   - colours, bars and carriage returns only on terminals.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/internal/hint"
)

// Exit statuses of gantry's own making; any other is the app's. The first
// three are those podman and the shells use.
const (
	ExitFailure       = 125 // gantry itself failed, or was called wrongly
	ExitNotExecutable = 126 // the app's command was found but cannot be executed
	ExitNotFound      = 127 // the app's command was not found
)

// app carries what every command shares: the streams and the global flags.
type app struct {
	in       *os.File
	out, err io.Writer
	errFile  *os.File
	ctx      context.Context
	globals  globals
}

// Main runs one command line and returns the process's exit status.
func Main(args []string, in, out, errw *os.File) int {
	a := &app{in: in, out: out, err: errw, errFile: errw, ctx: context.Background()}
	root := a.root(named(args))
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	if err := root.ExecuteContext(a.ctx); err != nil {
		return a.fail(err)
	}
	return 0
}

// Root returns the command tree, for the generators of manual pages.
func Root() *cobra.Command {
	return (&app{in: os.Stdin, out: os.Stdout, err: os.Stderr, errFile: os.Stderr, ctx: context.Background()}).root("")
}

// exitError ends the process with a status and prints nothing: the status is
// the app's own, or the message was already written.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// coded is an error that knows the exit status it stands for.
type coded interface{ ExitCode() int }

// withHint attaches what to do next to err.
func withHint(err error, format string, args ...any) error {
	return hint.With(err, fmt.Sprintf(format, args...))
}

// fail prints err with its hint and returns the exit status.
func (a *app) fail(err error) int {
	var exit exitError
	if errors.As(err, &exit) {
		return int(exit)
	}
	a.say("error", err.Error())
	for _, next := range []func(error) string{hint.Of, unknownHint, a.generalHint} {
		if text := next(err); text != "" {
			a.say("hint", text)
			break
		}
	}
	var c coded
	if errors.As(err, &c) {
		return c.ExitCode()
	}
	return ExitFailure
}

// say writes one message, its continuation lines indented beneath it.
func (a *app) say(kind, text string) {
	text = strings.TrimRight(printable(text), "\n")
	fmt.Fprintf(a.err, "gantry: %s: %s\n", kind, strings.ReplaceAll(text, "\n", "\n  "))
}

func (a *app) warn(format string, args ...any) { a.say("warning", fmt.Sprintf(format, args...)) }

// printable replaces control characters: part of a message may come from an
// image or a registry, and a terminal must not obey it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r < 0x20, r == 0x7f, r >= 0x80 && r < 0xa0:
			return '�'
		}
		return r
	}, s)
}

// generalHint mends what any command can meet.
func (a *app) generalHint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return a.fullHint(err)
	case (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)) && !isHostRoot():
		return accessHint(err)
	case errors.Is(err, syscall.EAGAIN):
		return "no more processes: the pod is at its --pids-limit, or this host at its own limit"
	case errors.Is(err, syscall.EROFS):
		return "that file system is read-only: --dir or GANTRY_DIR names another directory"
	case errors.Is(err, store.ErrIndex):
		return a.indexHint()
	case errors.Is(err, store.ErrVersion):
		return "use the gantry that made it, or one as new; --dir or GANTRY_DIR names another directory"
	case errors.Is(err, syscall.ENOSYS):
		return "this kernel has no such call: 'gantry check' says what is missing here, and what gantry needs"
	case errors.Is(err, syscall.EMFILE):
		return "raise the limit on open files (ulimit -n, LimitNOFILE=)"
	}
	return ""
}
