// SPDX-License-Identifier: Apache-2.0

// Gantry-seccomp compiles one seccomp section to one filter: the section of a
// bundle as JSON on standard input, an array of struct sock_filter on standard
// output. gantry runs it when no compiled filter is at hand. It is linked
// statically with libseccomp:
//
//	CGO_ENABLED=1 go build -trimpath -tags libseccomp,netgo,osusergo \
//	    -ldflags '-s -w -linkmode external -extldflags -static' ./cmd/gantry-seccomp
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/seccomp"
	"github.com/gantryrun/gantry/seccomp/compile"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println(seccomp.Compiler, "libseccomp", compile.Version())
		return
	}
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", seccomp.Compiler, err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	b, err := io.ReadAll(io.LimitReader(in, 4*seccomp.MaxProfile))
	if err != nil {
		return fmt.Errorf("read section: %w", err)
	}
	var sp specs.LinuxSeccomp
	if err := json.Unmarshal(b, &sp); err != nil {
		return fmt.Errorf("decode section: %w", err)
	}
	if err := seccomp.Validate(&sp); err != nil {
		return err
	}
	program, err := compile.Compile(&sp)
	if err != nil {
		return err
	}
	_, err = out.Write(program)
	return err
}
