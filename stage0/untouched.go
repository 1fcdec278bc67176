// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/rootfs"
	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/pod"
)

// maxPodFile bounds hosts, hostname and resolv.conf when they are read back.
const maxPodFile = 1 << 20

// contents is what a pod's directory holds beside its sealed documents. What
// an app will see as its root is no less trusted than they are.
type contents struct {
	Files map[string]string `json:"files,omitempty"` // digests of what is bound over files of the image
	Empty []string          `json:"empty,omitempty"` // the app's directories, filled from its first start on
}

func contentsOf(res *bundle.Result) contents {
	c := contents{Files: map[string]string{}}
	for name, data := range res.Files {
		c.Files[name] = digest.FromBytes(data).String()
	}
	if !res.Spec.Root.Readonly {
		c.Empty = append(c.Empty, upperDir, workDir)
	}
	for _, v := range res.Volumes {
		c.Empty = append(c.Empty, v.Dir)
	}
	return c
}

// untouched says whether a pod that never started is as prepare left it:
// whoever writes the directory could otherwise put a program that nobody
// signed over the image's, or a link to a host's file in the place of ours.
func (c contents) untouched(p *pod.Pod) error {
	for name, want := range c.Files {
		if _, err := readBound(p, name, want, maxPodFile); err != nil {
			return err
		}
	}
	for _, name := range c.Empty {
		fd, err := rootfs.OpenPlainAt(int(p.File().Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return fmt.Errorf("pod %s: %s: %w: %w", pod.Short(p.UUID), name, ErrSeal, err)
		}
		d := os.NewFile(uintptr(fd), name)
		_, err = d.Readdirnames(1)
		_ = d.Close()
		if !errors.Is(err, io.EOF) {
			return fmt.Errorf("pod %s: %s is not empty: %w", pod.Short(p.UUID), name, ErrSeal)
		}
	}
	return nil
}
