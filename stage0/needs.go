// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"fmt"

	"github.com/gantryrun/gantry/stage0/pod"
)

// needs are what pods need, with the UUIDs of those who need it. They are whole
// ones: the beginning of a UUID can be the name of another pod.
type needs[T comparable] struct {
	by     map[T][]string
	unread *unreadPod // may need anything
}

// unreadPod is a pod whose record does not say what it needs.
type unreadPod struct {
	what, uuid string
	err        error
}

func (u *unreadPod) Error() string {
	return fmt.Sprintf("%s may be used by pod %s, whose record cannot be read: %v", u.what, pod.Short(u.uuid), u.err)
}

func (u *unreadPod) Unwrap() error { return u.err }

// Hint says how to be rid of the doubt.
func (u *unreadPod) Hint() string {
	return fmt.Sprintf("use the gantry that made the pod, or remove it: 'gantry rm --force %s'", u.uuid)
}

// add takes down what a pod needs.
func (n *needs[T]) add(p *pod.Pod, of func(pod.Manifest) []T) {
	m, ok, err := p.IfWritten()
	if err != nil {
		n.unread = &unreadPod{uuid: p.UUID, err: err}
	}
	if !ok {
		return
	}
	if n.by == nil {
		n.by = map[T][]string{}
	}
	for _, what := range of(m) {
		n.by[what] = append(n.by[what], p.UUID)
	}
}

// doubt is an error as long as some pod may need what nobody says he needs.
func (n *needs[T]) doubt(what string) error {
	if n.unread == nil {
		return nil
	}
	return &unreadPod{what, n.unread.uuid, n.unread.err}
}
