// SPDX-License-Identifier: Apache-2.0

package podlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1"
)

// Bounds of --log-opt.
const (
	minSize   = 1 << 10
	maxFiles  = 1000
	someFiles = 2 // kept when a size is given and no number
)

// Parse reads --log-driver and each --log-opt, whose names are podman's and
// Docker's, and refuses what does not go together.
func Parse(driver string, opts []string) (stage1.Log, error) {
	if driver == "k8s-file" {
		driver = stage1.LogToFile // podman's name for the same format
	}
	if driver != "" {
		if err := check(driver); err != nil {
			return stage1.Log{}, err
		}
	}
	o := options{Driver: driver}
	for _, opt := range opts {
		if err := o.set(opt); err != nil {
			return stage1.Log{}, err
		}
	}
	if o.MaxFiles > 0 && o.MaxSize == 0 {
		return stage1.Log{}, errors.New("--log-opt max-file: it needs max-size")
	}
	if o.MaxSize > 0 && o.MaxFiles == 0 {
		o.MaxFiles = someFiles
	}
	return stage1.Log(o), nil
}

type options stage1.Log

func (o *options) set(opt string) error {
	key, value, ok := strings.Cut(opt, "=")
	if !ok || value == "" {
		return fmt.Errorf("--log-opt %q: write NAME=VALUE", opt)
	}
	want := stage1.LogToFile
	var set func(string) error
	switch key {
	case "path":
		set = o.path
	case "max-size":
		set = o.size
	case "max-file":
		set = o.files
	case "tag":
		want, set = stage1.LogJournal, o.tag
	default:
		return fmt.Errorf("--log-opt %q: use path, max-size, max-file or tag", opt)
	}
	if o.Driver != want {
		return hint.With(fmt.Errorf("--log-opt %q: it is for --log-driver=%s", opt, want), "add --log-driver="+want)
	}
	if err := set(value); err != nil {
		return fmt.Errorf("--log-opt %q: %w", opt, err)
	}
	return nil
}

func check(driver string) error {
	switch driver {
	case stage1.LogPassthrough, stage1.LogToFile, stage1.LogNone:
		return nil
	case stage1.LogJournal:
		if _, err := os.Stat(stage1.JournalSocket); err != nil {
			return hint.With(fmt.Errorf("--log-driver journald: no journal listens here: %w", err), "use --log-driver=file")
		}
		return nil
	}
	return fmt.Errorf("--log-driver %q: use passthrough, file (k8s-file), journald or none", driver)
}

func (o *options) path(value string) error {
	name, err := filepath.Abs(value)
	if err != nil {
		return err
	}
	if fi, err := os.Stat(filepath.Dir(name)); err != nil || !fi.IsDir() {
		return fmt.Errorf("%s is no directory", filepath.Dir(name))
	}
	if fi, err := os.Lstat(name); err == nil && !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", name)
	}
	o.Path = name
	return nil
}

func (o *options) size(value string) error {
	n, err := bundle.ParseSize(value)
	if err == nil && n < minSize {
		err = fmt.Errorf("a log of less than %d bytes is none", minSize)
	}
	o.MaxSize = n
	return err
}

func (o *options) files(value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > maxFiles {
		return fmt.Errorf("use 1 to %d", maxFiles)
	}
	o.MaxFiles = n
	return nil
}

func (o *options) tag(value string) error {
	if len(value) > 255 || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return errors.New("it is too long, or has control characters")
	}
	rest := value
	for _, known := range tagWords() {
		rest = strings.ReplaceAll(rest, known, "")
	}
	if strings.Contains(rest, "{{") {
		return fmt.Errorf("use %s", strings.Join(tagWords(), " "))
	}
	o.Name = value
	return nil
}

// tagWords are the templates of podman's tags that mean something here.
func tagWords() []string { return []string{"{{.Name}}", "{{.ID}}", "{{.FullID}}", "{{.ImageName}}"} }

// Tag is what entries of the journal are called: the value of --log-opt tag, or
// the pod's name.
func Tag(tag, name, uuid, image string) string {
	if tag == "" {
		tag = "{{.Name}}"
	}
	for i, v := range []string{name, pod.Short(uuid), uuid, image} {
		tag = strings.ReplaceAll(tag, tagWords()[i], v)
	}
	return tag
}
