// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// HostPlatform returns the platform this program was built for. It names no
// amd64 level above the first: what every machine of the kind can run.
func HostPlatform() ispec.Platform {
	return normalise(ispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH})
}

// ParsePlatform reads os/architecture[/variant], as in linux/arm/v7, or an
// architecture alone, which means Linux.
func ParsePlatform(s string) (ispec.Platform, error) {
	parts := strings.Split(s, "/")
	switch {
	case len(parts) == 1 && parts[0] == "linux":
		parts = append(parts, runtime.GOARCH)
	case len(parts) == 1:
		parts = []string{"linux", parts[0]}
	}
	if len(parts) > 3 {
		return ispec.Platform{}, fmt.Errorf("platform %s: must be os/architecture or os/architecture/variant", quote(s))
	}
	for _, p := range parts {
		if !isPlatformWord(p) {
			return ispec.Platform{}, fmt.Errorf("platform %s: part %s is not a lower-case word", quote(s), quote(p))
		}
	}
	p := ispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return normalise(p), nil
}

// FormatPlatform writes what ParsePlatform reads.
func FormatPlatform(p ispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// Select returns the entry of an index that fits a platform best. Entries that
// are no images (attestations, signatures) are passed over. An index with one
// image and no word on its platform gives that one: its configuration will
// tell, and CheckPlatform asks it.
func Select(x ispec.Index, want ispec.Platform) (ispec.Descriptor, error) {
	want = normalise(want)
	best, rank := ispec.Descriptor{}, 0
	var images []ispec.Descriptor
	for _, d := range x.Manifests {
		if KindOf(d.MediaType) != KindManifest {
			continue
		}
		images = append(images, d)
		if d.Platform == nil {
			continue
		}
		if r := fit(*d.Platform, want); r > rank {
			best, rank = d, r
		}
	}
	if rank > 0 {
		return best, nil
	}
	if len(images) == 1 && images[0].Platform == nil {
		return images[0], nil
	}
	return ispec.Descriptor{}, fmt.Errorf("no image for %s; there is %s", quote(FormatPlatform(want)), listPlatforms(images))
}

// CheckPlatform checks that a configuration is for a platform: the index that
// led to it was only a promise.
func CheckPlatform(c ispec.Image, want ispec.Platform) error {
	if fit(c.Platform, normalise(want)) > 0 {
		return nil
	}
	return fmt.Errorf("image is for %s, not for %s", quote(FormatPlatform(c.Platform)), quote(FormatPlatform(want)))
}

// fit ranks how well an image suits a platform: 0 not at all, more is better.
func fit(have, want ispec.Platform) int {
	have = normalise(have)
	if have.OS != want.OS || have.Architecture != want.Architecture {
		return 0
	}
	for _, f := range have.OSFeatures {
		if !slices.Contains(want.OSFeatures, f) {
			return 0
		}
	}
	if have.Variant == want.Variant {
		return 100
	}
	h, w := level(have), level(want)
	// A lower level of the same architecture runs on a higher one.
	if h > 0 && w > 0 && h < w {
		return h
	}
	return 0
}

// level turns v1 to v9 into a number. For amd64 no variant is v1.
func level(p ispec.Platform) int {
	switch {
	case p.Variant == "" && p.Architecture == "amd64":
		return 1
	case len(p.Variant) == 2 && p.Variant[0] == 'v' && p.Variant[1] >= '1' && p.Variant[1] <= '9':
		return int(p.Variant[1] - '0')
	}
	return 0
}

// normalise gives one spelling to platforms that are the same.
func normalise(p ispec.Platform) ispec.Platform {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	case "i386":
		p.Architecture = "386"
	}
	switch {
	case p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	case p.Architecture == "arm64" && p.Variant == "":
		p.Variant = "v8"
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Architecture == "arm" && len(p.Variant) == 1:
		p.Variant = "v" + p.Variant
	}
	return p
}

func listPlatforms(images []ispec.Descriptor) string {
	var names []string
	for _, d := range images {
		name := "one without a platform"
		if d.Platform != nil {
			name = quote(FormatPlatform(*d.Platform))
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "no image in it"
	}
	if len(names) > 20 {
		names = append(names[:20], "…")
	}
	return strings.Join(names, ", ")
}

func checkPlatform(p ispec.Platform) error {
	switch {
	case !isPlatformWord(p.OS):
		return fmt.Errorf("os: %s is not a lower-case word", quote(p.OS))
	case !isPlatformWord(p.Architecture):
		return fmt.Errorf("architecture: %s is not a lower-case word", quote(p.Architecture))
	case p.Variant != "" && !isPlatformWord(p.Variant):
		return fmt.Errorf("variant: %s is not a lower-case word", quote(p.Variant))
	case len(p.OSFeatures) > 64:
		return errors.New("os.features: more than 64")
	}
	return nil
}

func isPlatformWord(s string) bool {
	return s != "" && len(s) <= 64 &&
		strings.IndexFunc(s, func(r rune) bool { return !isLowerAlnum(r) && r != '.' && r != '_' && r != '-' }) < 0
}
