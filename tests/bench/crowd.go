// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"time"
)

// crowd looks at what a launch and a list cost where there are many pods and as
// many images, against the same where there is nothing else.
func (b *bench) crowd() error {
	alone := &bench{bin: b.bin, work: filepath.Join(b.work, "alone")}
	box := b.box()
	key := filepath.Join(b.work, "key")
	for _, err := range []error{
		alone.quiet("trust", "add", "--prefix", b.layout(), key+".pub"),
		alone.quiet("fetch", box),
	} {
		if err != nil {
			return err
		}
	}
	defer b.disperse()
	for i := range b.many {
		ref := fmt.Sprintf("%s-crowd:%d", b.layout(), i)
		if err := b.mkimage("-env", fmt.Sprintf("N=%d", i), "busybox", ref); err != nil {
			return err
		}
		if err := b.quiet("fetch", "--insecure-options=image", ref); err != nil {
			return err
		}
		if err := b.quiet("run", "-d", "--name", crowdName(i), "--net=none", box, "sleep", "1000000"); err != nil {
			return err
		}
	}
	launch := func(b *bench) func() (time.Duration, error) {
		return func() (time.Duration, error) { return b.gantry("run", "--rm", "--net=none", box, "true") }
	}
	b.compare(row{
		Name: fmt.Sprintf("launch beside %d pods and images", b.many), Ours: "gantry run --net=none", Theirs: "the same with nothing else there",
		Budget: "≤ 1.1",
	}, b.pairs, launch(b), launch(alone))
	var times []float64
	for range b.pairs {
		took, err := b.gantry("list")
		if err != nil {
			return err
		}
		times = append(times, milliseconds(took))
	}
	b.Memory = append(b.Memory, figure{fmt.Sprintf("`gantry list` of %d pods", b.many), median(times), "ms (budget ≤ 50)"})
	return nil
}

func crowdName(i int) string { return fmt.Sprintf("crowd%d", i) }

// disperse ends those of the crowd that there are.
func (b *bench) disperse() {
	for i := range b.many {
		// Those that were not started are not there.
		_ = b.quiet("rm", "--force", "--time", "0", crowdName(i))
	}
}
