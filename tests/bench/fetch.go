// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// fetches times a registry on loopback to ready-to-run, from nothing each time.
func (b *bench) fetches() error {
	registry, err := b.serve()
	if err != nil {
		return err
	}
	ref, key := registry+"/bench/big:1", filepath.Join(b.work, "key")
	for _, err := range []error{
		b.mkimage("-push", "big", ref), b.quiet("sign", "--key", key+".key", ref),
		b.quiet("trust", "add", "--prefix", registry, key+".pub"),
	} {
		if err != nil {
			return err
		}
	}
	ours := func() (time.Duration, error) {
		took, err := b.gantry("fetch", ref)
		if err != nil {
			return 0, err
		}
		if err := b.quiet("image", "rm", ref); err != nil {
			return 0, err
		}
		return took, b.quiet("image", "gc")
	}
	podman := b.podman()
	pull := func() (time.Duration, error) {
		took, err := b.timed(podman[0], append(podman[1:], "pull", "-q", "--tls-verify=false", ref)...)
		if err != nil {
			return 0, err
		}
		_, err = b.timed(podman[0], append(podman[1:], "rmi", "-f", ref)...)
		return took, err
	}
	copyAndUnpack := func() (time.Duration, error) {
		dir := filepath.Join(b.work, "umoci")
		defer os.RemoveAll(dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
		a, err := b.timed("skopeo", "copy", "-q", "--src-tls-verify=false", "docker://"+ref, "oci:"+dir+"/layout:big")
		if err != nil {
			return 0, err
		}
		c, err := b.timed("umoci", "unpack", "--image", dir+"/layout:big", dir+"/bundle")
		return a + c, err
	}
	const name = "fetch to ready-to-run: 8 layers, 300 MB, 20,000 files"
	b.compare(row{Name: name, Ours: "gantry fetch", Theirs: "podman pull", Budget: "≤ 0.5"}, b.slow, ours, pull)
	b.compare(row{Name: name, Ours: "gantry fetch", Theirs: "skopeo copy + umoci unpack", Budget: "≤ 0.5"}, b.slow, ours, copyAndUnpack)
	return nil
}

// serve starts the loopback registry, which ends with this process.
func (b *bench) serve() (string, error) {
	cmd := exec.Command(filepath.Join(b.bin, "tests", "registry"), "-referrers")
	cmd.SysProcAttr = dieWithParent()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(line), err
}
