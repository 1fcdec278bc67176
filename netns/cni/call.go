// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Executable is the program that runs plugins.
const Executable = "gantry-net"

// Call runs gantry-net of a directory with a request. An error it answers is a
// *PluginError. It ends: gantry-net bounds its plugins, and the call bounds
// gantry-net.
func Call(ctx context.Context, libexec string, q Request) (Answer, error) {
	q.Version = ProtocolVersion
	in, err := json.Marshal(q)
	if err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, q.bound())
	defer cancel()
	var out, said bytes.Buffer
	c := exec.CommandContext(ctx, filepath.Join(libexec, Executable))
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(in), &out, &said
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's ^C is ours to answer
	c.WaitDelay = time.Second
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) } // it takes its plugin along
	err = c.Run()
	var a Answer
	switch decodeErr := json.Unmarshal(out.Bytes(), &a); {
	case decodeErr == nil && a.Error != nil:
		a.Error.Network = q.On.Network
		return a, a.Error
	case decodeErr == nil && err == nil:
		return a, nil
	case errors.Is(err, os.ErrNotExist):
		return a, fmt.Errorf("network %s: %w (it runs the plugins of networks that gantry does not make itself)", q.On.Network, err)
	case err == nil:
		err = decodeErr
	}
	return a, &PluginError{Network: q.On.Network, Kind: Internal, Msg: fmt.Sprintf("run %s: %v", Executable, err), Details: strings.TrimSpace(said.String())}
}

// bound is longer than every plugin may take.
func (q Request) bound() time.Duration {
	var list struct{ Plugins []json.RawMessage }
	_ = json.Unmarshal(q.On.List, &list)
	// ADD may be followed by DEL, GC has a DEL for each that is gone.
	rounds := 2*(len(list.Plugins)+1) + 1
	if q.Operation == GC {
		rounds *= 16
	}
	return time.Duration(rounds)*q.On.timeout() + 5*time.Second
}

// DefaultTimeout is how long one plugin may take.
const DefaultTimeout = 20 * time.Second

func (a Attachment) timeout() time.Duration {
	if a.Timeout <= 0 {
		return DefaultTimeout
	}
	return a.Timeout
}
