// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/internal/hint"
)

// ImageMount is an image attached to a directory of the host.
type ImageMount struct {
	Reference string `json:"reference"`
	Path      string `json:"path"`
}

// MountImage attaches an image's tree to dir, read-only and without devices
// and setuid, after the image was admitted as for a launch. It is the one
// command that adds to the host's mount table, because that is what was asked
// for; UnmountImage takes the mount away, and no other command does.
func MountImage(ctx context.Context, e Env, ref, dir string, o AdmitOptions) error {
	m, err := e.treeMount(ctx, ref, o)
	if err != nil {
		return err
	}
	defer m.Close()
	return attachTree(m, dir)
}

// WithMountedImage executes a command in a mount namespace of its own, in
// which dir is the image. It returns only on failure. The calling thread is
// lost to everything else.
func WithMountedImage(ctx context.Context, e Env, ref, dir string, argv []string, o AdmitOptions) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return &notRun{argv[0], err}
	}
	m, err := e.treeMount(ctx, ref, o)
	if err != nil {
		return err
	}
	defer m.Close()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("detach mount namespace: %w", err)
	}
	if err := attachTree(m, dir); err != nil {
		return err
	}
	return &notRun{argv[0], unix.Exec(path, argv, os.Environ())}
}

// notRun is a command that could not be executed.
type notRun struct {
	name string
	err  error
}

func (n *notRun) Error() string { return fmt.Sprintf("execute %s: %v", n.name, n.err) }
func (n *notRun) Unwrap() error { return n.err }

// ExitCode is that of shells.
func (n *notRun) ExitCode() int {
	if errors.Is(n.err, os.ErrNotExist) || errors.Is(n.err, exec.ErrNotFound) {
		return 127
	}
	return 126
}

func (e Env) treeMount(ctx context.Context, ref string, o AdmitOptions) (*os.File, error) {
	v, err := Admit(ctx, e, ref, o)
	if err != nil {
		return nil, err
	}
	trees, err := e.trees()
	if err != nil {
		return nil, err
	}
	defer trees.Close()
	m, err := trees.Mount(v.Tree)
	if errors.Is(err, tree.ErrNoErofs) {
		return nil, hint.With(err, fmt.Sprintf("'gantry image extract %s DIR' writes the files instead", ref))
	}
	if err != nil {
		return nil, err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(int(m.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
		m.Close()
		return nil, fmt.Errorf("protect mount of %s: %w", ref, err)
	}
	return m, nil
}

func attachTree(m *os.File, dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("attach to %s: %w", dir, err)
	}
	defer unix.Close(fd)
	const empty = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(int(m.Fd()), "", fd, "", empty); err != nil {
		return fmt.Errorf("attach to %s: %w", dir, err)
	}
	return nil
}

// UnmountImage takes away what MountImage attached to dir, and nothing else.
func UnmountImage(e Env, dir string) error {
	path, err := filepath.Abs(dir)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	mounts, err := ListImageMounts(e)
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if mounts[i].Path != path {
			continue
		}
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			return hint.With(fmt.Errorf("unmount %s: %w", dir, err), "a process works in it, or has a file of it open: 'fuser -vm "+dir+"' names them")
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		return nil
	}
	return hint.With(fmt.Errorf("unmount %s: no image of this store is mounted there", dir), "'gantry image mount' lists what is mounted")
}

// ListImageMounts finds the mounts of trees of this store in this mount
// namespace. The kernel's table is the only record.
func ListImageMounts(e Env) ([]ImageMount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	images, err := filepath.Abs(filepath.Join(e.Dir, "trees/images"))
	if err == nil {
		images, err = filepath.EvalSymlinks(images)
	}
	if errors.Is(err, os.ErrNotExist) {
		return []ImageMount{}, nil // there is no store yet
	}
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	out := []ImageMount{}
	var names map[string]string
	for s := bufio.NewScanner(f); s.Scan(); {
		path, source, ok := erofsMount(s.Text())
		if !ok {
			continue
		}
		file := backing(source)
		if filepath.Dir(file) != images {
			continue
		}
		if names == nil {
			names = e.treeNames()
		}
		out = append(out, ImageMount{names[filepath.Base(file)], path})
	}
	return out, nil
}

// erofsMount reads a line of mountinfo: where it is, and what is mounted.
func erofsMount(line string) (path, source string, ok bool) {
	before, after, found := strings.Cut(line, " - ")
	fields, rest := strings.Fields(before), strings.Fields(after)
	if !found || len(fields) < 5 || len(rest) < 2 || rest[0] != "erofs" {
		return "", "", false
	}
	return unescape(fields[4]), rest[1], true
}

var escapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func unescape(s string) string { return escapes.Replace(s) }

// backing is the file behind a loop device.
func backing(source string) string {
	name, ok := strings.CutPrefix(source, "/dev/")
	if !ok {
		return source
	}
	b, err := os.ReadFile("/sys/block/" + filepath.Base(name) + "/loop/backing_file")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}

// treeNames maps the file of each tree to an image that has it.
func (e Env) treeNames() map[string]string {
	out := map[string]string{}
	l, err := e.library()
	if err != nil {
		return out // mounts are listed without names
	}
	defer l.close()
	receipts, _ := l.receipts.List() // one that cannot be read has no name to give
	for _, r := range receipts {
		var t tree.Tree
		if json.Unmarshal(r.Tree, &t) == nil && l.named(r) {
			out[filepath.Base(t.Image.Path)] = r.Reference
		}
	}
	return out
}
