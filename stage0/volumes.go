// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage0/volume"
)

// Volume is one named volume as volume ls and inspect show it.
type Volume struct {
	Name       string            `json:"name"`
	Mountpoint string            `json:"mountpoint"`
	Created    time.Time         `json:"created"`
	Labels     map[string]string `json:"labels,omitempty"`
	Options    map[string]string `json:"options,omitempty"`
	UID        uint32            `json:"uid"`
	GID        uint32            `json:"gid"`
	Pods       []string          `json:"pods"`              // the UUIDs of those that mount it, running or not
	Problem    string            `json:"problem,omitempty"` // why its record cannot be read
}

// VolumeSettings are what volume create takes.
type VolumeSettings struct {
	Labels []string // NAME=VALUE
	Opts   []string // size=, inodes=, uid=, gid=, copy, nocopy, o=LIST of them
	Ignore bool     // one that exists already is none of an error
}

// CreateVolume makes an empty volume and returns its name: a random one if
// none is given.
func CreateVolume(e Env, name string, o VolumeSettings) (string, error) {
	labels, err := pairs("--label", o.Labels)
	if err != nil {
		return "", err
	}
	opts, err := pairs("--opt", o.Opts)
	if err != nil {
		return "", err
	}
	if name == "" {
		name = strings.ReplaceAll(pod.NewUUID(), "-", "")
	}
	_, err = e.volumes().Create(name, labels, opts)
	if errors.Is(err, volume.ErrExists) && o.Ignore {
		err = nil
	}
	return name, err
}

// pairs reads NAME[=VALUE] flags.
func pairs(flag string, values []string) (map[string]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for _, v := range values {
		key, value, _ := strings.Cut(v, "=")
		if _, twice := out[key]; key == "" || twice {
			return nil, fmt.Errorf("%s %q: write NAME=VALUE, each name once", flag, v)
		}
		out[key] = value
	}
	return out, nil
}

// ListVolumes returns the volumes for which all filters hold, by name. One
// that vanishes meanwhile is left out; one whose record cannot be read has a
// Problem, and hides no other.
func ListVolumes(e Env, filter []string) ([]Volume, error) {
	keep, err := selection(filter, volumeQuestions())
	if err != nil {
		return nil, err
	}
	names, err := e.volumes().Names()
	if err != nil {
		return nil, err
	}
	users, err := e.volumeUsers()
	if err != nil {
		return nil, err
	}
	out := []Volume{}
	for _, name := range names {
		v, err := e.volume(name, users)
		if errors.Is(err, volume.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if keep(v) {
			out = append(out, v)
		}
	}
	return out, nil
}

// VolumeNames are the names of all volumes, for a shell to complete.
func VolumeNames(e Env) ([]string, error) { return e.volumes().Names() }

// InspectVolumes returns the volumes that are named.
func InspectVolumes(e Env, names []string) ([]Volume, error) {
	users, err := e.volumeUsers()
	if err != nil {
		return nil, err
	}
	out := []Volume{}
	for _, name := range names {
		v, err := e.volume(name, users)
		if err != nil {
			return out, noVolume(err)
		}
		out = append(out, v)
	}
	return out, nil
}

func (e Env) volume(name string, users needs[string]) (Volume, error) {
	r, err := e.volumes().Load(name)
	if errors.Is(err, volume.ErrNotFound) {
		return Volume{}, err
	}
	v := Volume{
		Name: name, Mountpoint: e.volumes().Mountpoint(name), Created: r.Created,
		Labels: r.Labels, Options: r.Options, Pods: users.by[name],
	}
	if v.Pods == nil {
		v.Pods = []string{}
	}
	if err != nil {
		v.Problem = err.Error()
	}
	var st unix.Stat_t
	if err := unix.Lstat(v.Mountpoint, &st); err != nil {
		return v, ignoreGone(err)
	}
	v.UID, v.GID = st.Uid, st.Gid
	return v, nil
}

// volumeUsers are the pods that mount each volume, whether they run or not, as
// their own records say. One that is being made holds its volumes until its
// record names them.
func (e Env) volumeUsers() (needs[string], error) {
	var users needs[string]
	err := e.pods().List(func(p *pod.Pod) error {
		if p.Phase() == pod.Embryo || p.Phase() == pod.Garbage {
			return nil
		}
		_, _ = e.sweepOne(p) // one that cannot be swept keeps what it has
		users.add(p, func(m pod.Manifest) []string { return m.Volumes })
		return nil
	})
	return users, err
}

// RemoveVolumes deletes volumes that no pod mounts; with force those pods
// first. It goes on after one that cannot be removed.
func RemoveVolumes(ctx context.Context, e Env, names []string, force bool) ([]string, error) {
	removed := []string{}
	var errs []error
	for _, name := range names {
		err := e.removeVolume(ctx, name, force)
		switch {
		case err == nil:
			removed = append(removed, name)
		case force && errors.Is(err, volume.ErrNotFound):
		default:
			errs = append(errs, noVolume(err))
		}
	}
	return removed, errors.Join(errs...)
}

func (e Env) removeVolume(ctx context.Context, name string, force bool) error {
	usedBy := func() ([]string, error) {
		users, err := e.volumeUsers()
		if err == nil {
			err = users.doubt("volume " + name)
		}
		return users.by[name], err
	}
	err := e.volumes().Remove(name, usedBy)
	var used *volume.InUse
	if !force || !errors.As(err, &used) {
		return err
	}
	for _, id := range used.Pods {
		if err := remove(ctx, e, id, RemoveOptions{Force: true}); err != nil && !errors.Is(err, pod.ErrNotFound) {
			return fmt.Errorf("remove volume %s: %w", name, err)
		}
	}
	return e.volumes().Remove(name, usedBy)
}

// PruneVolumes deletes those volumes no pod mounts for which all filters hold.
func PruneVolumes(ctx context.Context, e Env, filter []string) ([]string, error) {
	unused, err := ListVolumes(e, append(slices.Clone(filter), "dangling=true"))
	if err != nil {
		return nil, err
	}
	removed := []string{}
	var errs []error
	for _, v := range unused {
		if v.Problem != "" {
			errs = append(errs, errors.New(v.Problem)) // it may not be what it looks like
			continue
		}
		err := e.removeVolume(ctx, v.Name, false)
		var used *volume.InUse
		switch {
		case err == nil:
			removed = append(removed, v.Name)
		case errors.As(err, &used), errors.Is(err, volume.ErrBusy), errors.Is(err, volume.ErrNotFound):
			// somebody came between
		default:
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}

// ExportVolume writes a volume's files as a tar archive.
func ExportVolume(e Env, name string, to io.Writer) error {
	return noVolume(e.volumes().Export(name, to))
}

func volumeQuestions() map[string]question[Volume] {
	return map[string]question[Volume]{
		"name":     named(func(v Volume) string { return v.Name }),
		"label":    labelled(func(v Volume) map[string]string { return v.Labels }),
		"opt":      labelled(func(v Volume) map[string]string { return v.Options }),
		"dangling": dangling(func(v Volume) int { return len(v.Pods) }),
	}
}

func noVolume(err error) error {
	if errors.Is(err, volume.ErrNotFound) {
		return hint.With(err, "'gantry volume ls' lists the volumes")
	}
	return err
}

// LabelText writes labels in one line, sorted.
func (v Volume) LabelText() string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(v.Labels)) {
		out = append(out, k+"="+v.Labels[k])
	}
	return strings.Join(out, ",")
}
