// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/image/tree/index"
	"github.com/gantryrun/gantry/internal/rootfs"
	"github.com/gantryrun/gantry/internal/uidmap"
	"github.com/gantryrun/gantry/internal/undo"
)

// Materialise returns a plain directory with the tree, for hosts that cannot
// mount it, making it if it is not there: from the indexes and the data files,
// all of which are hashed first. It appears whole or not at all.
//
// What it proves is less than a mount does: that the directory was right when
// it was made. Nothing guards its files afterwards but the mode of the
// directories above them. Device nodes and setuid files are what the image
// says, so whoever mounts it does so nodev.
func (d *Dir) Materialise(ctx context.Context, t Tree) (string, error) {
	ids := uidmap.Own()
	name := plainName(t.Key, ids)
	path := filepath.Join(d.path, name, "root")
	if d.exists(name) {
		return path, nil
	}
	lock, err := d.lock(ctx, name)
	if err != nil {
		return "", fmt.Errorf("materialise tree %.12s: %w", t.Key, err)
	}
	defer lock.Close()
	if d.exists(name) {
		return path, nil
	}
	if err := d.materialise(ctx, t, name, ids); err != nil {
		return "", fmt.Errorf("materialise tree %.12s: %w", t.Key, err)
	}
	return path, nil
}

// plainName is where the directory of a tree is. Whose its files are on the disk
// depends on the ids of the user namespace that made it, so each has its own.
func plainName(key string, ids uidmap.IDs) string {
	name := "plain/" + key + "-v" + strconv.Itoa(Version)
	if k := ids.Key(); k != "" {
		name += "-" + k
	}
	return name
}

// ofAnyIDs is the name of the host's directory of the same tree.
func ofAnyIDs(name string) string {
	if parts := strings.SplitN(name, "-", 3); len(parts) == 3 {
		return parts[0] + "-" + parts[1]
	}
	return name
}

func (d *Dir) exists(name string) bool {
	_, err := d.root.Lstat(name)
	return err == nil
}

func (d *Dir) materialise(ctx context.Context, t Tree, name string, ids uidmap.IDs) error {
	img, data, clean, err := d.read(t)
	defer clean.Run()
	if err != nil {
		return err
	}
	plain, err := d.root.Open("plain")
	if err != nil {
		return err
	}
	defer plain.Close()
	tmp := ".tmp-" + filepath.Base(name)
	if err := rootfs.RemoveAllAt(int(plain.Fd()), tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	done := false
	defer func() {
		if !done {
			_ = rootfs.RemoveAllAt(int(plain.Fd()), tmp)
		}
	}()
	if err := d.root.MkdirAll("plain/"+tmp+"/root", 0o700); err != nil {
		return err
	}
	root, err := d.root.Open("plain/" + tmp + "/root")
	if err != nil {
		return err
	}
	defer root.Close()
	p := &planter{ctx: ctx, data: data, root: int(root.Fd()), first: map[*index.Inode]string{}, buf: make([]byte, 1<<20), ids: ids}
	if err := p.dir(p.root, "", img.Root); err != nil {
		return err
	}
	if err := unix.Syncfs(p.root); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := d.root.Rename("plain/"+tmp, name); err != nil {
		return err
	}
	done = true
	return plain.Sync()
}

// read checks and opens everything a tree is made from, and merges it.
func (d *Dir) read(t Tree) (img *index.Image, data []*os.File, clean undo.Stack, err error) {
	var indexes []io.ReaderAt
	for _, l := range t.Layers {
		for _, want := range []File{l.Data, l.Index} {
			f, err := d.open(want.Path)
			if err != nil {
				return nil, nil, clean, err
			}
			clean.Push(func() { f.Close() })
			if _, err := check(f, want, nil); err != nil {
				return nil, nil, clean, err
			}
			if want == l.Data {
				data = append(data, f)
			} else {
				indexes = append(indexes, f)
			}
		}
	}
	img, err = index.Merge(indexes, Limits{})
	return img, data, clean, err
}

// planter writes a tree into a directory nobody else can reach, name by name
// below open directories, so that no path is ever walked twice.
type planter struct {
	ctx   context.Context
	data  []*os.File
	root  int
	first map[*index.Inode]string // where an inode with several names was made
	buf   []byte

	tame   bool // as Extract wants it
	owners bool
	done   Extracted
	ids    uidmap.IDs // that a file can have
}

func (p *planter) dir(fd int, path string, d *index.Inode) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	names := make([]string, 0, len(d.Children))
	for name := range d.Children {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := p.plant(fd, path, name, d.Children[name].Inode); err != nil {
			return err
		}
	}
	// Last: making children changes a directory's times.
	return p.attributes(fd, path, d)
}

func (p *planter) plant(dir int, parent, name string, n *index.Inode) (err error) {
	path := filepath.Join(parent, name)
	if p.tame && n.Kind != index.Dir && n.Kind != index.Regular && n.Kind != index.Symlink {
		p.done.Left++
		return nil
	}
	p.done.Files++
	if n.Kind != index.Dir && n.Links > 1 {
		if first, ok := p.first[n]; ok {
			return named("link", path, unix.Linkat(p.root, first, dir, name, 0))
		}
		p.first[n] = path
	}
	switch n.Kind {
	case index.Dir:
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return named("make directory", path, err)
		}
		return p.within(dir, name, path, unix.O_RDONLY|unix.O_DIRECTORY, func(fd int) error { return p.dir(fd, path, n) })
	case index.Regular:
		return p.within(dir, name, path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, func(fd int) error {
			if err := p.content(fd, n); err != nil {
				return named("write", path, err)
			}
			return p.attributes(fd, path, n)
		})
	case index.Symlink:
		err = unix.Symlinkat(n.Target, dir, name)
	default:
		err = unix.Mknodat(dir, name, nodeType(n.Kind)|0o600, int(deviceNumber(n.Rdev)))
		if p.mayNot(err) {
			return nil // a device that nobody there could open
		}
	}
	if err != nil {
		return named("make", path, err)
	}
	return p.special(dir, name, path, n)
}

func (p *planter) within(dir int, name, path string, flags int, f func(fd int) error) error {
	fd, err := unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return named("open", path, err)
	}
	defer unix.Close(fd)
	return f(fd)
}

// content writes a file's stored runs; what is between them stays a hole.
func (p *planter) content(fd int, n *index.Inode) error {
	at, from := int64(0), int64(n.Start)*index.BlockSize
	for _, r := range n.Runs {
		at += int64(r.Hole) * index.ChunkSize
		end := min(at+int64(r.Data)*index.ChunkSize, n.Size)
		for at < end {
			b := p.buf[:min(end-at, int64(len(p.buf)))]
			if _, err := p.data[n.Layer].ReadAt(b, from); err != nil {
				return err
			}
			if _, err := unix.Pwrite(fd, b, at); err != nil {
				return err
			}
			at, from = at+int64(len(b)), from+int64(len(b))
		}
	}
	return unix.Ftruncate(fd, n.Size)
}

// attributes sets owner, mode, xattrs and times, in the order in which one
// does not undo the other: a change of owner clears setuid and capabilities.
func (p *planter) attributes(fd int, path string, n *index.Inode) error {
	mode := uint32(n.Mode)
	if p.tame {
		mode &= 0o777
	}
	if !p.tame || p.owners {
		if err := p.chown(fd, "", path, n); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return named("change mode", path, err)
	}
	for _, x := range p.xattrs(n) {
		if err := unix.Fsetxattr(fd, x.Name, []byte(x.Value), 0); err != nil && !p.mayNot(err) {
			return named("set "+x.Name, path, err)
		}
	}
	ts := times(n)
	return named("set times", path, unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd, ""), ts, 0))
}

func (p *planter) xattrs(n *index.Inode) []index.Xattr {
	if p.tame {
		return nil
	}
	return n.Xattrs
}

// special does the same for what cannot be opened.
func (p *planter) special(dir int, name, path string, n *index.Inode) error {
	if !p.tame || p.owners {
		if err := p.chown(dir, name, path, n); err != nil {
			return err
		}
	}
	if n.Kind != index.Symlink {
		if err := unix.Fchmodat(dir, name, uint32(n.Mode), 0); err != nil {
			return named("change mode", path, err)
		}
	}
	for _, x := range p.xattrs(n) {
		if err := unix.Lsetxattr(procPath(dir, name), x.Name, []byte(x.Value), 0); err != nil && !p.mayNot(err) {
			return named("set "+x.Name, path, err)
		}
	}
	return named("set times", path, unix.UtimesNanoAt(dir, name, times(n), unix.AT_SYMLINK_NOFOLLOW))
}

// mayNot tells an error that comes from being root of a user namespace only.
func (p *planter) mayNot(err error) bool { return !p.ids.Host() && errors.Is(err, unix.EPERM) }

// chown changes the owner of fd, or of a name in it. Where only one id is to
// be had, everything stays whose it is.
func (p *planter) chown(fd int, name, path string, n *index.Inode) error {
	if p.ids.Sole() {
		return nil
	}
	err := unix.Fchownat(fd, name, int(n.UID), int(n.GID), unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
	if err == unix.EINVAL && !p.ids.Host() {
		return &unowned{path, n.UID, n.GID, p.ids.Count()}
	}
	return named("change owner", path, err)
}

// unowned is a file of somebody who does not exist in our user namespace.
type unowned struct {
	path     string
	uid, gid uint32
	count    uint64
}

func (e *unowned) Error() string {
	return fmt.Sprintf("change owner of %.200q to %d:%d: there are %d ids in this user namespace", e.path, e.uid, e.gid, e.count)
}

func (e *unowned) Hint() string {
	return "give the user a larger range in /etc/subuid and /etc/subgid"
}

func times(n *index.Inode) []unix.Timespec {
	t := unix.Timespec{Sec: n.Sec, Nsec: int64(n.Nsec)}
	return []unix.Timespec{t, t}
}

// procPath names what fd holds for system calls that have no form for it.
func procPath(fd int, name string) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(fd), name)
}

func named(verb, path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %.200q: %w", verb, path, err)
}

func nodeType(k index.Kind) uint32 {
	switch k {
	case index.Char:
		return unix.S_IFCHR
	case index.Block:
		return unix.S_IFBLK
	}
	return unix.S_IFIFO
}

// deviceNumber decodes what package layer encoded.
func deviceNumber(rdev uint32) uint64 {
	return unix.Mkdev(rdev>>8&0xfff, rdev&0xff|rdev>>12&0xfff00)
}
