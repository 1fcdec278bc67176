// SPDX-License-Identifier: Apache-2.0

// Command gen writes gantry's manual pages from its command tree, so that
// help and manual cannot drift apart, and the comparison of run's options with
// podman's:
//
//	go run ./docs/gen docs/man docs/options.md
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra/doc"

	"github.com/gantryrun/gantry/cmd/gantry/cli"
)

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: gen DIR [OPTIONS.md]")
		os.Exit(2)
	}
	err := write(os.Args[1])
	if err == nil && len(os.Args) > 2 {
		err = writeOptions(os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// write replaces the pages of dir.
func write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	old, err := filepath.Glob(filepath.Join(dir, "gantry*.1"))
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return fmt.Errorf("remove stale page: %w", err)
		}
	}
	// The date is fixed: the same commands give the same bytes.
	date := time.Unix(0, 0).UTC()
	header := &doc.GenManHeader{Section: "1", Source: "gantry", Manual: "gantry manual", Date: &date}
	if err := doc.GenManTree(cli.Root(), header, dir); err != nil {
		return err
	}
	return writeOCI(dir)
}
