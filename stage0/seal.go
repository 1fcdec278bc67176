// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/internal/jsonout"
	"github.com/gantryrun/gantry/signature"
	"github.com/gantryrun/gantry/stage0/pod"
)

// ErrSeal means that a prepared pod is not as gantry left it.
var ErrSeal = errors.New("it was changed since it was prepared")

// sealPurpose keeps a pod's seal from ever passing for another file's: the
// host key seals receipts too.
const sealPurpose = "gantry pod manifest, version 1\x00"

// seal returns the seal of a manifest. The manifest names the digests of the
// bundle and of the launch record, so it covers both.
func seal(key []byte, m pod.Manifest) (string, error) {
	m.Seal = ""
	b, err := jsonout.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("seal pod %s: %w", pod.Short(m.UUID), err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(sealPurpose))
	mac.Write(b)
	return hex.EncodeToString(mac.Sum(nil)), nil
}

// checkSeal says whether the manifest is the one we sealed.
func checkSeal(key []byte, m pod.Manifest) error {
	want, err := seal(key, m)
	if err != nil {
		return err
	}
	if !hmac.Equal([]byte(want), []byte(m.Seal)) {
		return fmt.Errorf("pod %s: manifest: %w", pod.Short(m.UUID), ErrSeal)
	}
	return nil
}

// readBound reads a file of the pod and refuses it unless it has the digest
// the sealed manifest gives.
func readBound(p *pod.Pod, name, want string, limit int64) ([]byte, error) {
	b, err := p.ReadFile(name, limit)
	if err != nil {
		return nil, err
	}
	if digest.FromBytes(b).String() != want {
		return nil, fmt.Errorf("pod %s: %s: %w", pod.Short(p.UUID), name, ErrSeal)
	}
	return b, nil
}

// hostKey is the key of this installation, made when it is first needed.
func (e Env) hostKey() ([]byte, error) {
	return signature.HostKey(filepath.Join(e.Dir, "host.key"))
}
