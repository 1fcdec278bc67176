// SPDX-License-Identifier: Apache-2.0

package index

// Limits bound what one layer may ask for. The zero value of a field means
// its default, so that a forgotten field is never "unlimited".
type Limits struct {
	Bytes    int64 `json:"bytes,omitempty"`    // decompressed tar, and sum of file sizes, each
	Ratio    int64 `json:"ratio,omitempty"`    // decompressed to compressed, once past 64 MiB
	Entries  int   `json:"entries,omitempty"`  // tar entries in one layer; ten times that in an image
	Path     int   `json:"path,omitempty"`     // bytes of a path
	Depth    int   `json:"depth,omitempty"`    // components of a path
	Xattrs   int   `json:"xattrs,omitempty"`   // extended attributes of one inode
	XattrSum int   `json:"xattrSum,omitempty"` // bytes of their names and values
	// NoDevices leaves device nodes out of the tree. They are inert in it
	// anyway, because it is mounted nodev.
	NoDevices bool `json:"noDevices,omitempty"`
}

// What no file system of Linux can hold, whatever the limits say.
const (
	maxName    = 255
	maxTarget  = 4095  // PATH_MAX less the NUL
	maxXattr   = 65535 // XATTR_SIZE_MAX less one: EROFS counts in 16 bits
	maxXattrNo = 256
)

// DefaultLimits returns the limits used where nobody set others.
func DefaultLimits() Limits { return Limits{}.withDefaults() }

func (l Limits) withDefaults() Limits {
	fill := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	if l.Bytes <= 0 {
		l.Bytes = 64 << 30
	}
	if l.Ratio <= 0 {
		l.Ratio = 1100 // DEFLATE cannot do better than 1032:1
	}
	fill(&l.Entries, 1_000_000)
	fill(&l.Path, 4095)
	fill(&l.Depth, 512)
	fill(&l.Xattrs, 128)
	fill(&l.XattrSum, 128<<10)
	return l
}

// Complete returns l with the default in every field that is not set.
func (l Limits) Complete() Limits { return l.withDefaults() }

// Summary says what a conversion met.
type Summary struct {
	Entries int   `json:"entries"`           // entries in the index
	Bytes   int64 `json:"bytes"`             // sum of file sizes
	Data    int64 `json:"data"`              // size of the data file, a multiple of 4096
	Skipped int   `json:"skipped,omitempty"` // device nodes and xattrs left out by policy
}
