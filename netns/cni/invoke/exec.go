// SPDX-License-Identifier: Apache-2.0

// Package invoke runs the plugins of other people's networks, by libcni. Only
// gantry-net links it.
package invoke

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

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/gantryrun/gantry/netns/cni"
)

// maxOutput is more than a result takes.
const maxOutput = 1 << 20

// execution is libcni's invoke.Exec. libcni's own waits for ever for a plugin
// whose child keeps its output open, and its errors do not say which plugin of a
// chain it was.
type execution struct {
	version.PluginDecoder
	timeout time.Duration
	last    string // plugin that ran last
}

// FindInPath looks for a plugin in the directories and nowhere else.
func (e *execution) FindInPath(plugin string, path []string) (string, error) {
	e.last = plugin
	if !cni.ValidType(plugin) {
		return "", &cni.PluginError{Plugin: plugin, Kind: cni.Unsound, Msg: "its type is not the bare name of an executable"}
	}
	for _, dir := range path {
		full := filepath.Join(dir, plugin)
		if fi, err := os.Stat(full); err == nil && fi.Mode().IsRegular() {
			return full, nil
		}
	}
	return "", &cni.PluginError{Plugin: plugin, Kind: cni.Missing, Msg: "there is no such executable", Path: strings.Join(path, ":")}
}

// ExecPlugin runs a plugin, in a process group that is killed when its time is
// over.
func (e *execution) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	stdout, stderr := &bounded{}, &bounded{}
	c := exec.CommandContext(ctx, path)
	c.Env, c.Dir = environment(environ), "/"
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(stdin), stdout, stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second
	err := c.Run()
	failed := &cni.PluginError{Plugin: filepath.Base(path), Command: commandOf(environ)}
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		failed.Kind, failed.Msg = cni.TimedOut, fmt.Sprintf("it did not end within %s and was killed", e.timeout)
		failed.Details = stderr.text()
		return nil, failed
	case ctx.Err() != nil:
		failed.Kind, failed.Msg = cni.TimedOut, "it was interrupted and killed"
		return nil, failed
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return nil, refusal(failed, err, stdout, stderr)
	case failed.Command == "ADD" && !isObject(stdout.Bytes()):
		failed.Kind, failed.Msg, failed.Details = cni.Garbage, "it ended with success and printed no result", stdout.text()
		return nil, failed
	}
	return stdout.Bytes(), nil
}

// refusal is the plugin's own error when it printed one, and what can be said
// of its end when it did not.
func refusal(e *cni.PluginError, err error, stdout, stderr *bounded) error {
	var own types.Error
	if json.Unmarshal(stdout.Bytes(), &own) == nil && (own.Code != 0 || own.Msg != "") {
		e.Code, e.Msg, e.Details = own.Code, own.Msg, own.Details
		if e.Msg == "" {
			e.Msg = err.Error()
		}
		return e
	}
	e.Kind, e.Msg, e.Details = cni.Died, err.Error()+" and no error in JSON", stderr.text()
	if e.Details == "" {
		e.Details = stdout.text()
	}
	return e
}

func isObject(b []byte) bool {
	var m map[string]json.RawMessage
	return json.Unmarshal(b, &m) == nil && m != nil
}

// environment is ours with CNI's; iptables and its kind are found also when who
// started gantry does not look into sbin.
func environment(cniEnv []string) []string {
	path := os.Getenv("PATH")
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if !strings.Contains(":"+path+":", ":"+dir+":") {
			path += ":" + dir
		}
	}
	return append(cniEnv, "PATH="+strings.TrimPrefix(path, ":"))
}

func commandOf(environ []string) string {
	command := ""
	for _, v := range environ {
		if c, ok := strings.CutPrefix(v, "CNI_COMMAND="); ok {
			command = c
		}
	}
	return command
}

// bounded keeps the first part of what is written.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// text is what people are shown of it.
func (b *bounded) text() string {
	s := strings.TrimSpace(strings.ToValidUTF8(b.String(), "?"))
	if len(s) > 400 {
		s = s[:400] + "…"
	}
	return s
}
