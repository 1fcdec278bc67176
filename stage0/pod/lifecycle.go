// SPDX-License-Identifier: Apache-2.0

// Package pod keeps pods as directories. Where a directory stands and whether
// it is locked is the pod's whole state: there is no database and no daemon,
// and what a crash leaves behind reads truthfully, because the kernel drops
// the lock of whoever held it. The package knows nothing of what is inside.
package pod

import (
	"fmt"
	"slices"
	"strings"
)

// Phase is the directory a pod stands in, below pods/.
type Phase string

// The phases, in the direction of travel.
const (
	Embryo   Phase = "embryo"
	Prepare  Phase = "prepare"
	Prepared Phase = "prepared"
	Run      Phase = "run"
	Exited   Phase = "exited"
	Garbage  Phase = "garbage"
)

// State is what a phase and the lock say together.
type State string

// The states a reader can see.
const (
	Creating  State = "creating"
	Preparing State = "preparing"
	Aborted   State = "aborted"
	Ready     State = "prepared"
	Starting  State = "starting"
	Running   State = "running"
	Ended     State = "exited"
	Deleting  State = "deleting"
	Doomed    State = "garbage"
)

// Row is one line of the lifecycle: a phase, what it means with the lock held
// and with it free, and where a pod may go from there.
type Row struct {
	Phase    Phase
	Locked   State
	Unlocked State
	To       []Phase
	By       string // who takes it further, and when
}

// Lifecycle is the one table of states and legal transitions: the code moves
// and reads pods by it, and docs/pod-lifecycle.md prints it.
func Lifecycle() []Row {
	return []Row{
		{Embryo, Creating, Creating, []Phase{Prepare, Garbage}, "its creator, once it holds the lock; gc after a minute"},
		{Prepare, Preparing, Aborted, []Phase{Prepared, Run, Garbage}, "`prepare` and `run`; the sweep when aborted"},
		{Prepared, Starting, Ready, []Phase{Run, Garbage}, "`run-prepared`; `rm`; gc when it expired"},
		{Run, Running, Ended, []Phase{Exited, Garbage}, "the supervisor at exit; the sweep when the supervisor was killed"},
		{Exited, Deleting, Ended, []Phase{Garbage}, "`rm`; gc after the grace period"},
		{Garbage, Deleting, Doomed, nil, "`rm`, gc and the sweep delete it"},
	}
}

// Phases returns the phases in the direction of travel. Looking for a pod in
// this order cannot miss one that moves meanwhile: it can only be met later.
func Phases() []Phase {
	return []Phase{Embryo, Prepare, Prepared, Run, Exited, Garbage}
}

// States returns what a reader can see, in the direction of travel.
func States() []string {
	var all []string
	for _, r := range Lifecycle() {
		for _, s := range []State{r.Locked, r.Unlocked} {
			if !slices.Contains(all, string(s)) {
				all = append(all, string(s))
			}
		}
	}
	return all
}

// row returns p's line of the table.
func row(p Phase) (Row, bool) {
	for _, r := range Lifecycle() {
		if r.Phase == p {
			return r, true
		}
	}
	return Row{}, false
}

// stateOf reads the table.
func stateOf(p Phase, locked bool) State {
	r, _ := row(p)
	if locked {
		return r.Locked
	}
	return r.Unlocked
}

// legal says whether the table has the transition.
func legal(from, to Phase) bool {
	r, ok := row(from)
	return ok && slices.Contains(r.To, to)
}

// lockMatters says whether a reader must look at the lock to tell the state.
// Where it need not, it does not: a reader's shared lock, held for an
// instant, would tell somebody who starts or removes the pod at that instant
// that he came second.
func lockMatters(p Phase) bool { return p == Prepare || p == Run }

// Markdown prints the table for docs/pod-lifecycle.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| directory | locked | not locked | may go to | who moves it |\n|---|---|---|---|---|\n")
	for _, r := range Lifecycle() {
		to := make([]string, len(r.To))
		for i, p := range r.To {
			to[i] = "`" + string(p) + "`"
		}
		if len(to) == 0 {
			to = []string{"(deleted)"}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", r.Phase, r.Locked, r.Unlocked, strings.Join(to, ", "), r.By)
	}
	return b.String()
}
