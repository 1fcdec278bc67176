// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/internal/atomicfile"
)

const receiptSuffix = ".json"

// Receipts is the directory of sealed receipts, one file per reference and
// manifest.
type Receipts struct {
	root *os.Root
	key  []byte
}

// OpenReceipts opens (and makes) the directory, with the host key in keyFile.
func OpenReceipts(dir, keyFile string) (*Receipts, error) {
	key, err := HostKey(keyFile)
	if err != nil {
		return nil, err
	}
	return OpenReceiptsWithKey(dir, key)
}

// OpenReceiptsWithKey is for keys that come from elsewhere than a file.
func OpenReceiptsWithKey(dir string, key []byte) (*Receipts, error) {
	if len(key) != hostKeySize {
		return nil, fmt.Errorf("%s: a host key has %d bytes, not %d", dir, hostKeySize, len(key))
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Receipts{root: root, key: key}, nil
}

// Close releases the directory.
func (rs *Receipts) Close() error { return rs.root.Close() }

// receiptName depends on both halves, each with its length, so that no other
// pair shares it.
func receiptName(reference string, manifest digest.Digest) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s\n%s", len(reference), reference, manifest))
	return hex.EncodeToString(sum[:]) + receiptSuffix
}

// Save seals the receipt and puts it in place by rename.
func (rs *Receipts) Save(r Receipt) error {
	if r.Reference == "" || r.Manifest == "" {
		return errors.New("save receipt: it names no image")
	}
	data, err := encodeReceipt(rs.key, r)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(rs.root, receiptName(r.Reference, r.Manifest), data, 0o600); err != nil {
		return fmt.Errorf("save receipt of %s: %w", r.Reference, err)
	}
	return nil
}

// Load returns the receipt of a reference and manifest whose seal holds.
// It answers ErrNoReceipt when there is none and ErrSeal when what is there was not
// sealed by this host for exactly this pair.
func (rs *Receipts) Load(reference string, manifest digest.Digest) (Receipt, error) {
	r, err := rs.read(receiptName(reference, manifest))
	if errors.Is(err, fs.ErrNotExist) {
		return Receipt{}, fmt.Errorf("%s %s: %w", clip(reference), clip(string(manifest)), ErrNoReceipt)
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("load receipt of %s: %w", clip(reference), err)
	}
	if r.Reference != reference || r.Manifest != manifest {
		// An authentic receipt under another one's file name.
		return Receipt{}, fmt.Errorf("load receipt of %s: it is for %s %s: %w", clip(reference), clip(r.Reference), r.Manifest, ErrSeal)
	}
	return r, nil
}

// LoadAny is Load for an image that has several names: the first receipt there is.
func (rs *Receipts) LoadAny(references []string, manifest digest.Digest) (r Receipt, err error) {
	for i, name := range references {
		other, fault := rs.Load(name, manifest)
		if fault == nil {
			return other, nil
		}
		if i == 0 {
			err = fault // the name that was asked for
		}
	}
	return r, err
}

func (rs *Receipts) read(name string) (Receipt, error) {
	f, err := rs.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Receipt{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Receipt{}, err
	}
	if !st.Mode().IsRegular() || st.Size() > MaxReceipt {
		return Receipt{}, fmt.Errorf("%w: not a regular file of at most %d bytes", ErrSeal, MaxReceipt)
	}
	data := make([]byte, st.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return Receipt{}, err
	}
	return decodeReceipt(rs.key, data)
}

// Remove forgets a receipt; one that is not there is fine.
func (rs *Receipts) Remove(reference string, manifest digest.Digest) error {
	err := rs.root.Remove(receiptName(reference, manifest))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove receipt of %s: %w", clip(reference), err)
	}
	return nil
}

// List returns every receipt whose seal holds, and for the others an error
// that joins one line each; the two come together.
func (rs *Receipts) List() ([]Receipt, error) {
	d, err := rs.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("list receipts: %w", err)
	}
	names, err := d.Readdirnames(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, fmt.Errorf("list receipts: %w", err)
	}
	var out []Receipt
	var bad []error
	for _, name := range names {
		if strings.HasPrefix(name, ".") || !strings.HasSuffix(name, receiptSuffix) {
			continue
		}
		r, err := rs.read(name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			bad = append(bad, fmt.Errorf("receipt %s: %w", name, err))
		case receiptName(r.Reference, r.Manifest) != name:
			bad = append(bad, fmt.Errorf("receipt %s: it is for %s: %w", name, clip(r.Reference), ErrSeal))
		default:
			out = append(out, r)
		}
	}
	return out, errors.Join(bad...)
}
