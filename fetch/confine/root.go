// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/bounded"
)

// maxRootFile bounds one file copied into a worker's root. A hosts file or a
// bundle of certificate authorities is far below.
const maxRootFile = 16 << 20

// bundlePath is where crypto/x509 looks first.
const bundlePath = "/etc/ssl/certs/ca-certificates.crt"

// gather reads, while still root, what the worker may see of the host. A
// missing file is left out: a host without nsswitch.conf is in order.
func gather(p Profile) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, path := range p.Files {
		b, err := bounded.Regular(path, maxRootFile)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[path] = b
	}
	if p.CABundle {
		b, err := authorities()
		if err != nil {
			return nil, err
		}
		files[bundlePath] = b
	}
	return files, nil
}

// authorities concatenates the host's certificate authorities as Go would
// have found them. The variables are those Go and OpenSSL honour; they are
// taken out of the environment because the worker finds one file.
func authorities() ([]byte, error) {
	file, dir := os.Getenv("SSL_CERT_FILE"), os.Getenv("SSL_CERT_DIR")
	os.Unsetenv("SSL_CERT_FILE")
	os.Unsetenv("SSL_CERT_DIR")
	var out []byte
	candidates := []string{
		bundlePath,
		"/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		"/etc/ssl/cert.pem",
	}
	if file != "" {
		candidates = []string{file}
	}
	for _, path := range candidates {
		b, err := bounded.Regular(path, maxRootFile)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
		break
	}
	if dir == "" {
		return out, nil
	}
	for _, d := range filepath.SplitList(dir) {
		more, err := certificatesIn(d)
		if err != nil {
			return nil, err
		}
		out = append(append(out, '\n'), more...)
	}
	return out, nil
}

func certificatesIn(dir string) ([]byte, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read certificate directory: %w", err)
	}
	sort.Slice(names, func(i, j int) bool { return names[i].Name() < names[j].Name() })
	var out []byte
	for _, n := range names {
		b, err := bounded.Regular(filepath.Join(dir, n.Name()), maxRootFile)
		if err != nil {
			continue // directories, dangling links of c_rehash
		}
		out = append(append(out, b...), '\n')
		if len(out) > maxRootFile {
			return nil, fmt.Errorf("read certificate directory %s: more than %d bytes", dir, maxRootFile)
		}
	}
	return out, nil
}

// enterRoot makes a tmpfs holding only files our root. The mount is attached
// nowhere, so there is nothing to unmount and nothing in any mount table; it
// ends with the worker.
func enterRoot(files map[string][]byte) error {
	ctx, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make empty root: %w", err)
	}
	defer unix.Close(ctx)
	for _, kv := range [][2]string{{"mode", "0555"}, {"size", "32m"}, {"nr_inodes", "64"}, {"source", "gantry-fetch"}} {
		if err := unix.FsconfigSetString(ctx, kv[0], kv[1]); err != nil {
			return fmt.Errorf("make empty root (%s): %w", kv[0], err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return fmt.Errorf("make empty root: %w", err)
	}
	const attr = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	mnt, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return fmt.Errorf("make empty root: %w", err)
	}
	defer unix.Close(mnt)
	if err := unix.Fchdir(mnt); err != nil {
		return fmt.Errorf("enter empty root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter empty root: %w", err)
	}
	for path, b := range files {
		if err := place(path, b); err != nil {
			return err
		}
	}
	ro := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(mnt, "", unix.AT_EMPTY_PATH, &ro); err != nil {
		return fmt.Errorf("make root read-only: %w", err)
	}
	return nil
}

func place(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("furnish root: %w", err)
	}
	if err := os.WriteFile(path, b, 0o444); err != nil {
		return fmt.Errorf("furnish root: %w", err)
	}
	return nil
}
