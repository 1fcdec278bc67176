// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/term"
)

// redrawEvery bounds how often bars are painted: a fast registry reports
// thousands of chunks a second.
const redrawEvery = 80 * time.Millisecond

// progress shows a fetch: bars on a terminal, one line per finished layer
// elsewhere, so that a journal or a CI log stays readable.
type progress struct {
	mu     sync.Mutex
	w      io.Writer
	width  int // of the terminal in columns; 0: no terminal, plain lines
	order  []digest.Digest
	layers map[digest.Digest]*layerState
	drawn  int // bar lines on the screen, to be painted over
	last   time.Time
	quiet  bool
}

type layerState struct {
	done, total int64
	phase       string
}

// newProgress writes to f, with bars if f is a terminal.
func newProgress(f *os.File, quiet bool) *progress {
	p := &progress{w: f, layers: map[digest.Digest]*layerState{}, quiet: quiet}
	if term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.width = 80
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 20 {
			p.width = w
		}
	}
	return p
}

// Layer records how far a layer is, in bytes of its compressed form.
func (p *progress) Layer(d digest.Digest, done, total int64, phase string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, known := p.layers[d]
	if !known {
		l = &layerState{}
		p.layers[d] = l
		p.order = append(p.order, d)
	}
	changed := l.phase != phase
	*l = layerState{done, total, phase}
	switch {
	case p.quiet:
	case p.width == 0:
		if changed && phase == "done" {
			fmt.Fprintf(p.w, "layer %s  %s\n", short(d), size(total))
		}
	case changed || time.Since(p.last) >= redrawEvery:
		p.paint()
	}
}

// Line prints one line of its own, above the bars.
func (p *progress) Line(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quiet {
		return
	}
	p.erase()
	fmt.Fprintln(p.w, printable(s))
	if p.width > 0 {
		p.paint()
	}
}

// Finish leaves the last state of the bars on the screen.
func (p *progress) Finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width > 0 && !p.quiet && len(p.order) > 0 {
		p.paint()
	}
	p.drawn = 0
}

func (p *progress) erase() {
	if p.drawn > 0 {
		fmt.Fprintf(p.w, "\x1b[%dA\x1b[J", p.drawn)
		p.drawn = 0
	}
}

func (p *progress) paint() {
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	for _, d := range p.order {
		b.WriteString("\x1b[2K")
		b.WriteString(p.bar(d, p.layers[d]))
		b.WriteByte('\n')
	}
	fmt.Fprint(p.w, b.String())
	p.drawn = len(p.order)
	p.last = time.Now()
}

func (p *progress) bar(d digest.Digest, l *layerState) string {
	head := fmt.Sprintf("%s %-9s ", short(d), l.phase)
	tail := fmt.Sprintf(" %9s / %-9s", size(l.done), size(l.total))
	room := p.width - len(head) - len(tail) - 3
	if room < 8 || l.total <= 0 {
		return head + strings.TrimSpace(tail)
	}
	full := int(min(l.done, l.total) * int64(room) / l.total)
	return head + "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]" + tail
}

// short is the part of a digest that people compare.
func short(d digest.Digest) string {
	_, hex, ok := strings.Cut(string(d), ":")
	if !ok {
		hex = string(d)
	}
	return hex[:min(12, len(hex))]
}

// size writes n bytes with a binary unit and at most one decimal.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/unit, 0
	for v >= unit && u < 4 {
		v, u = v/unit, u+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[u])
}
