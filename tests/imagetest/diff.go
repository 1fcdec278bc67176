// SPDX-License-Identifier: Apache-2.0

package imagetest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// xattrRecord is what GNU tar and Go name an extended attribute in a header.
const xattrRecord = "SCHILY.xattr."

// ReadTar returns the entries of an archive with clean relative paths.
func ReadTar(r io.Reader) ([]File, error) {
	var files []File
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read entry %d: %w", len(files)+1, err)
		}
		f := File{
			Path: strings.TrimPrefix(path.Clean("/"+h.Name), "/"), Type: h.Typeflag, Mode: h.Mode,
			UID: h.Uid, GID: h.Gid, Link: h.Linkname, Major: h.Devmajor, Minor: h.Devminor, Time: h.ModTime,
			Xattrs: map[string]string{},
		}
		for k, v := range h.PAXRecords {
			if name, ok := strings.CutPrefix(k, xattrRecord); ok {
				f.Xattrs[name] = v
			}
		}
		if f.Type == tar.TypeLink {
			f.Link = strings.TrimPrefix(path.Clean("/"+f.Link), "/")
		}
		if f.Path == "" {
			f.Path = "./"
		}
		if f.Body, err = io.ReadAll(t); err != nil {
			return nil, fmt.Errorf("read %q: %w", h.Name, err)
		}
		files = append(files, f)
	}
}

// Diff returns the layer that makes full out of base: what is new or other,
// and a whiteout for what is gone. Hard links of the layer name files of the
// layer, because a link cannot reach into another one everywhere.
func Diff(base, full []File) []File {
	old := make(map[string]File, len(base))
	for _, f := range base {
		old[f.Path] = f
	}
	kept := make(map[string]bool, len(full))
	changed := make(map[string]bool)
	for _, f := range full {
		kept[f.Path] = true
		if was, ok := old[f.Path]; !ok || !equal(was, f) {
			changed[f.Path] = true
		}
	}
	for _, f := range full {
		if f.Type == tar.TypeLink && changed[f.Path] {
			changed[f.Link] = true
		}
	}
	layer := whiteouts(base, kept)
	for _, f := range full {
		if changed[f.Path] || f.Type == tar.TypeLink && changed[f.Link] {
			layer = append(layer, f)
		}
	}
	return layer
}

// whiteouts hides what is not kept; a directory's own hides all that is in it.
func whiteouts(base []File, kept map[string]bool) []File {
	var hidden []File
	for _, f := range base {
		above := path.Dir(f.Path)
		if !kept[f.Path] && (above == "." || kept[above]) {
			hidden = append(hidden, File{Path: path.Join(above, ".wh."+path.Base(f.Path))})
		}
	}
	slices.SortFunc(hidden, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return hidden
}

func equal(a, b File) bool {
	return a.Type == b.Type && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Link == b.Link &&
		a.Major == b.Major && a.Minor == b.Minor && a.Time.Equal(b.Time) &&
		maps.Equal(a.Xattrs, b.Xattrs) && bytes.Equal(a.Body, b.Body)
}
