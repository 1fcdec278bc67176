// SPDX-License-Identifier: Apache-2.0

// Command report follows what "go test -json" says: a line for each package,
// everything that a failed test printed, and a record of each result in a file
// that report -close turns into the closing lines of the whole run.
//
//	go test -json ./... | report -tier unit -record FILE
//	report -tier check -record FILE -step NAME -result pass|fail|skip [-reason TEXT]
//	report -record FILE -close
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// result is one line of the record.
type result struct {
	Tier    string  `json:"tier"`
	Package string  `json:"package,omitempty"`
	Test    string  `json:"test"`
	Result  string  `json:"result"`
	Reason  string  `json:"reason,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

// event is what test2json prints.
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

func main() {
	tier := flag.String("tier", "", "tier of the results")
	record := flag.String("record", "", "file the results are appended to")
	step := flag.String("step", "", "record one result of that name")
	outcome := flag.String("result", "pass", "of the step")
	reason := flag.String("reason", "", "of the step")
	closing := flag.Bool("close", false, "print the closing lines")
	flag.Parse()
	status, err := report(*tier, *record, *step, *outcome, *reason, *closing)
	if err != nil {
		fmt.Fprintf(os.Stderr, "report: %v\n", err)
		status = 1
	}
	os.Exit(status)
}

func report(tier, record, step, outcome, reason string, closing bool) (int, error) {
	if closing {
		return closeRun(record)
	}
	f, err := os.OpenFile(record, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return 1, err
	}
	defer f.Close()
	r := recorder{tier: tier, out: json.NewEncoder(f), packages: map[string]*tally{}, lines: map[string][]string{}}
	if step != "" {
		return 0, r.add(result{Test: step, Result: outcome, Reason: reason})
	}
	err = r.follow(os.Stdin)
	if r.failed {
		return 1, err
	}
	return 0, err
}

// tally counts one package's tests.
type tally struct{ pass, fail, skip int }

type recorder struct {
	tier     string
	out      *json.Encoder
	packages map[string]*tally
	lines    map[string][]string // what each test printed so far
	failed   bool
}

func (r *recorder) add(x result) error {
	x.Tier = r.tier
	r.failed = r.failed || x.Result == "fail"
	return r.out.Encode(x)
}

func (r *recorder) follow(in io.Reader) error {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 64<<20)
	for scanner.Scan() {
		var e event
		if json.Unmarshal(scanner.Bytes(), &e) != nil {
			fmt.Println(scanner.Text()) // of the go command itself
			continue
		}
		if err := r.handle(e); err != nil {
			return err
		}
	}
	return scanner.Err()
}

func (r *recorder) handle(e event) error {
	if e.Package == "" {
		e.Package = e.ImportPath
	}
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		r.lines[key] = append(r.lines[key], e.Output)
	case "pass", "fail", "skip", "build-fail":
		lines := r.lines[key]
		delete(r.lines, key)
		if e.Test == "" {
			return r.endPackage(e, lines)
		}
		return r.endTest(e, lines)
	}
	return nil
}

func (r *recorder) endTest(e event, lines []string) error {
	t := r.packages[e.Package]
	if t == nil {
		t = &tally{}
		r.packages[e.Package] = t
	}
	x := result{Package: e.Package, Test: e.Test, Result: e.Action, Seconds: e.Elapsed}
	switch e.Action {
	case "pass":
		t.pass++
	case "fail":
		t.fail++
		fmt.Print(strings.Join(lines, ""))
	case "skip":
		t.skip++
		x.Reason = skipReason(lines)
	}
	return r.add(x)
}

func (r *recorder) endPackage(e event, lines []string) error {
	t := r.packages[e.Package]
	if t == nil {
		t = &tally{}
	}
	short := strings.TrimPrefix(e.Package, "github.com/gantryrun/gantry/")
	switch {
	case e.Action == "fail" && t.fail == 0 || e.Action == "build-fail":
		// It did not build, or it ended outside a test.
		fmt.Print(strings.Join(lines, ""))
		fmt.Printf("FAIL  %s\n", short)
		return r.add(result{Package: e.Package, Test: "the package", Result: "fail", Reason: "did not build or did not end"})
	case t.pass+t.fail+t.skip == 0:
		return nil
	case e.Action == "fail":
		fmt.Printf("FAIL  ")
	default:
		fmt.Printf("ok    ")
	}
	fmt.Printf("%-40s %6.1f s  %d passed", short, e.Elapsed, t.pass)
	if t.fail > 0 {
		fmt.Printf(", %d failed", t.fail)
	}
	if t.skip > 0 {
		fmt.Printf(", %d skipped", t.skip)
	}
	fmt.Println()
	return nil
}

// skipReason finds the message of t.Skip among what the test printed.
func skipReason(lines []string) string {
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if _, message, ok := strings.Cut(line, ".go:"); ok {
			_, message, _ = strings.Cut(message, ": ")
			return message
		}
		return line
	}
	return "no reason given"
}

// closeRun prints every failure and every skip once more, by reason, and the
// counts last: a run in which nothing was tested has failed.
func closeRun(record string) (int, error) {
	f, err := os.Open(record)
	if err != nil {
		return 1, err
	}
	defer f.Close()
	counts := map[string]int{}
	skips := map[string][]string{}
	var order, failures []string
	d := json.NewDecoder(f)
	for d.More() {
		var x result
		if err := d.Decode(&x); err != nil {
			return 1, err
		}
		counts[x.Result]++
		name := strings.TrimPrefix(x.Package, "github.com/gantryrun/gantry/") + " " + x.Test
		switch x.Result {
		case "fail":
			failures = append(failures, fmt.Sprintf("%s: %s %s", x.Tier, name, x.Reason))
		case "skip":
			key := x.Tier + ": " + x.Reason
			if skips[key] == nil {
				order = append(order, key)
			}
			skips[key] = append(skips[key], strings.TrimSpace(name))
		}
	}
	for _, key := range order {
		fmt.Printf("skipped  %s\n         %s\n", key, strings.Join(skips[key], ", "))
	}
	for _, failure := range failures {
		fmt.Printf("FAILED   %s\n", failure)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", counts["pass"], counts["fail"], counts["skip"])
	if counts["fail"] > 0 || counts["pass"] == 0 {
		return 1, nil
	}
	return 0, nil
}
