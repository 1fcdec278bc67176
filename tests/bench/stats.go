// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand"
	"slices"
	"time"
)

// pair is one run of ours and one of theirs, made one right after the other.
type pair struct {
	Ours   float64 `json:"ours"` // milliseconds
	Theirs float64 `json:"theirs"`
}

// row is one line of the tables: raw figures and what follows from them.
type row struct {
	Name   string  `json:"name"`
	Ours   string  `json:"ours"`
	Theirs string  `json:"theirs"`
	Budget string  `json:"budget,omitempty"`
	Pairs  []pair  `json:"pairs"`
	A      float64 `json:"median_ours"`
	B      float64 `json:"median_theirs"`
	Ratio  float64 `json:"ratio"`
	Low    float64 `json:"low"` // 95 % interval of the ratio
	High   float64 `json:"high"`
}

// measurement makes n pairs.
type measurement func(n int, ours, theirs func() (time.Duration, error)) ([]pair, error)

// loops launches one back to back, then the other, then the other again and
// the first again, so that both have the same share of a machine that drifts.
// The first of each loop is thrown away. What is slow only when something else
// ran in between is not slow here; see docs/performance.md.
func loops(n int, ours, theirs func() (time.Duration, error)) ([]pair, error) {
	pairs := make([]pair, n)
	half := n / 2
	for _, l := range []struct {
		from, to int
		one      func() (time.Duration, error)
		keep     func(p *pair, ms float64)
	}{
		{0, half, ours, setOurs},
		{0, half, theirs, setTheirs},
		{half, n, theirs, setTheirs},
		{half, n, ours, setOurs},
	} {
		for i := l.from - 1; i < l.to; i++ {
			took, err := l.one()
			if err != nil {
				return nil, err
			}
			if i >= l.from {
				l.keep(&pairs[i], milliseconds(took))
			}
		}
	}
	return pairs, nil
}

func setOurs(p *pair, ms float64)   { p.Ours = ms }
func setTheirs(p *pair, ms float64) { p.Theirs = ms }

// turns runs both, in turns that begin now with one and now with the other,
// after one run of each that is thrown away.
func turns(n int, ours, theirs func() (time.Duration, error)) ([]pair, error) {
	var pairs []pair
	for i := -1; i < n; i++ {
		first, second := ours, theirs
		if i%2 == 0 {
			first, second = theirs, ours
		}
		a, err := first()
		if err != nil {
			return nil, err
		}
		b, err := second()
		if err != nil {
			return nil, err
		}
		if i%2 == 0 {
			a, b = b, a
		}
		if i >= 0 {
			pairs = append(pairs, pair{milliseconds(a), milliseconds(b)})
		}
	}
	return pairs, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// judge fills in medians, their ratio, and its interval by resampling pairs.
func (r row) judge() row {
	r.A, r.B, r.Ratio = ratio(r.Pairs)
	random := rand.New(rand.NewSource(1))
	ratios := make([]float64, 2000)
	sample := make([]pair, len(r.Pairs))
	for i := range ratios {
		for k := range sample {
			sample[k] = r.Pairs[random.Intn(len(r.Pairs))]
		}
		_, _, ratios[i] = ratio(sample)
	}
	slices.Sort(ratios)
	r.Low, r.High = ratios[len(ratios)*25/1000], ratios[len(ratios)*975/1000]
	return r
}

func ratio(pairs []pair) (ours, theirs, quotient float64) {
	a, b := make([]float64, len(pairs)), make([]float64, len(pairs))
	for i, p := range pairs {
		a[i], b[i] = p.Ours, p.Theirs
	}
	ours, theirs = median(a), median(b)
	return ours, theirs, ours / theirs
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n == 0 {
		return 0
	}
	return (v[(n-1)/2] + v[n/2]) / 2
}
