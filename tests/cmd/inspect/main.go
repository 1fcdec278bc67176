// SPDX-License-Identifier: Apache-2.0

// Command inspect is the one program inside our test images: it observes its
// own container and prints what it sees as JSON, or does one small thing. Tests
// assert on its facts, not on our logs.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// command is one thing inspect does; it returns the exit status.
type command func(args []string) (int, error)

func commands() map[string]command {
	return map[string]command{
		"facts": printFacts,
		"fact":  printFact,

		"write":     writeFile,
		"append":    appendFile,
		"read":      readFile,
		"stat":      statFile,
		"mknod":     makeNode,
		"open":      openFile,
		"output":    output,
		"cat":       cat,
		"echo":      echo,
		"hostname":  setHostname,
		"syscalls":  probeSyscalls,
		"umount":    unmount,
		"overwrite": overwriteExe,

		"exit":      exit,
		"die":       die,
		"wait":      wait,
		"fork":      fork,
		"orphan":    orphan,
		"zombies":   zombies,
		"hog":       hog,
		"spin":      spin,
		"stubborn":  stubborn,
		"headless":  headless,
		"notify":    notify,
		"http-get":  httpGet,
		"serve":     serve,
		"greet":     greet,
		"ask":       ask,
		"tty":       tty,
		"setrlimit": setLimit,
	}
}

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"facts"}
	}
	all := commands()
	do, ok := all[args[0]]
	if !ok {
		var names []string
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintf(os.Stderr, "inspect: no command %q; there are %s\n", args[0], strings.Join(names, " "))
		os.Exit(2)
	}
	status, err := do(args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "inspect: %s: %v\n", args[0], err)
		status = max(status, 1)
	}
	os.Exit(status)
}

func printJSON(v any) (int, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return 1, err
	}
	_, err = fmt.Printf("%s\n", b)
	return 0, err
}

// number reads the first argument, or a default where there is none.
func number(args []string, otherwise int) (int, error) {
	if len(args) == 0 {
		return otherwise, nil
	}
	return strconv.Atoi(args[0])
}

func want(args []string, n int, usage string) error {
	if len(args) < n {
		return fmt.Errorf("usage: inspect %s", usage)
	}
	return nil
}
