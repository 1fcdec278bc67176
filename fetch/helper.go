// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/gantryrun/gantry/fetch/wire"
)

// helperTime is what a helper may take: it may ask a person for a passphrase.
const helperTime = time.Minute

// maxHelperAnswer bounds what a helper says. Tokens have some kilobytes.
const maxHelperAnswer = 64 << 10

// helper is one question to a docker-credential-NAME.
type helper struct {
	name   string
	server string // as the file names it, or the host
	host   string // whose credential it is
	named  bool   // the file says that this host's credential is there
}

// errNoHelper is a helper that is not installed, where nothing says that it
// has what is asked for.
var errNoHelper = errors.New("no such credential helper")

// ask runs the helper, which is a program of the user's own choice and runs
// as the user does: it is not confined, sees the user's environment, and gets
// the name of one host. What it says is bounded and goes to that host alone.
func (h helper) ask(ctx context.Context) (wire.Credential, bool, error) {
	if h.name == "" || strings.Trim(h.name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		return wire.Credential{}, false, h.problem(fmt.Errorf("%.100q is not the name of a helper", h.name))
	}
	path, err := exec.LookPath("docker-credential-" + h.name)
	if err != nil && !h.named {
		return wire.Credential{}, false, errNoHelper
	}
	if err != nil {
		return wire.Credential{}, false, h.problem(err)
	}
	out, err := h.run(ctx, path)
	if err != nil {
		return wire.Credential{}, false, h.problem(err)
	}
	if out == nil {
		return wire.Credential{}, false, nil
	}
	c, err := h.read(out)
	if err != nil {
		return wire.Credential{}, false, h.problem(err)
	}
	return c, !c.Empty(), nil
}

// run returns what the helper says; nil when it has no such credential.
func (h helper) run(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "get")
	cmd.Stdin = strings.NewReader(h.server)
	out, said := &capped{most: maxHelperAnswer}, &tail{}
	cmd.Stdout, cmd.Stderr = out, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case out.full:
		return nil, fmt.Errorf("it says more than %d bytes", maxHelperAnswer)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("it did not answer within %s", helperTime)
	case err == nil:
		return out.b.Bytes(), nil
	}
	// Helpers report on standard output too; these words are the protocol's.
	text := wire.Line(out.b.String()+" "+said.String(), 300)
	if strings.Contains(text, "credentials not found") {
		return nil, nil
	}
	if text == "" {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %s", err, text)
}

func (h helper) read(out []byte) (wire.Credential, error) {
	var a struct{ ServerURL, Username, Secret string }
	if err := json.Unmarshal(out, &a); err != nil {
		return wire.Credential{}, errors.New("its answer is not the JSON of a credential") // which must not be shown
	}
	if host, _, _ := strings.Cut(normalKey(a.ServerURL), "/"); a.ServerURL != "" && !isHost(h.host, host) {
		return wire.Credential{}, fmt.Errorf("it answers with a credential of %s", wire.Line(host, 100))
	}
	if a.Username == "<token>" {
		return wire.Credential{IdentityToken: a.Secret}, nil
	}
	return wire.Credential{Username: a.Username, Password: a.Secret}, nil
}

func (h helper) problem(err error) error {
	return &Problem{
		What: fmt.Sprintf("ask docker-credential-%.64s for the credential of %s: %v", h.name, h.host, err),
		Mend: "try it: echo " + h.server + " | docker-credential-" + h.name + " get; or name a file that holds the credential itself: --authfile FILE",
		Err:  err,
	}
}

// isHost knows the spellings of Docker Hub.
func isHost(host, spelled string) bool {
	if host == spelled {
		return true
	}
	return host == "docker.io" && (spelled == "index.docker.io" || spelled == "registry-1.docker.io")
}

// capped keeps so much and no more.
type capped struct {
	b    bytes.Buffer
	most int
	full bool
}

func (c *capped) Write(b []byte) (int, error) {
	if c.b.Len()+len(b) > c.most {
		c.full = true
		return 0, errors.New("too much")
	}
	return c.b.Write(b)
}
