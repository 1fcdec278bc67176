// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"errors"
	"fmt"
	"os"
	"path"
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
	minLogSize   = 1 << 10
	maxLogFiles  = 1000
	someLogFiles = 2 // kept when a size is given and no number
)

// logOptions completes the log driver by --log-opt and refuses what does not
// go with it. The names are podman's and Docker's.
func (o *RunOptions) logOptions() error {
	if o.LogDriver == "k8s-file" {
		o.LogDriver = stage1.LogToFile // podman's name for the same format
	}
	if o.LogDriver != "" {
		if err := checkLog(o.LogDriver); err != nil {
			return err
		}
	}
	o.log = stage1.Log{Driver: o.LogDriver}
	for _, opt := range o.LogOpts {
		key, value, ok := strings.Cut(opt, "=")
		if !ok || value == "" {
			return fmt.Errorf("--log-opt %q: write NAME=VALUE", opt)
		}
		want := stage1.LogToFile
		var set func(string) error
		switch key {
		case "path":
			set = o.logPath
		case "max-size":
			set = o.logSize
		case "max-file":
			set = o.logFiles
		case "tag":
			want, set = stage1.LogJournal, o.logTag
		default:
			return fmt.Errorf("--log-opt %q: use path, max-size, max-file or tag", opt)
		}
		if o.LogDriver != want {
			return hint.With(fmt.Errorf("--log-opt %q: it is for --log-driver=%s", opt, want), "add --log-driver="+want)
		}
		if err := set(value); err != nil {
			return fmt.Errorf("--log-opt %q: %w", opt, err)
		}
	}
	if o.log.MaxFiles > 0 && o.log.MaxSize == 0 {
		return errors.New("--log-opt max-file: it needs max-size")
	}
	if o.log.MaxSize > 0 && o.log.MaxFiles == 0 {
		o.log.MaxFiles = someLogFiles
	}
	return nil
}

func checkLog(driver string) error {
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

func (o *RunOptions) logPath(value string) error {
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
	o.log.Path = name
	return nil
}

func (o *RunOptions) logSize(value string) error {
	n, err := bundle.ParseSize(value)
	if err == nil && n < minLogSize {
		err = fmt.Errorf("a log of less than %d bytes is none", minLogSize)
	}
	o.log.MaxSize = n
	return err
}

func (o *RunOptions) logFiles(value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > maxLogFiles {
		return fmt.Errorf("use 1 to %d", maxLogFiles)
	}
	o.log.MaxFiles = n
	return nil
}

func (o *RunOptions) logTag(value string) error {
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
	o.log.Name = value
	return nil
}

// tagWords are the templates of podman's tags that mean something here.
func tagWords() []string { return []string{"{{.Name}}", "{{.ID}}", "{{.FullID}}", "{{.ImageName}}"} }

// logOf is where the output of a pod's app goes.
func (r *ready) logOf() stage1.Log {
	l := r.launch.Log
	l.Driver = r.launch.LogDriver
	switch l.Driver {
	case stage1.LogToFile:
		if l.Path == "" {
			l.Path = path.Join(r.pod.Path(), stage1.AppsDir, appName, stage1.LogFile)
		}
		l.Name = path.Base(l.Path)
	case stage1.LogJournal:
		l.Fields = r.journalFields(l.Name)
	}
	return l
}

// journalFields are what every entry of a pod begins with: ours, and those
// that podman's users look for.
func (r *ready) journalFields(tag string) string {
	m := r.manifest
	name := m.Name
	if name == "" {
		name = pod.Short(m.UUID)
	}
	if tag == "" {
		tag = "{{.Name}}"
	}
	for i, v := range []string{name, pod.Short(m.UUID), m.UUID, m.Apps[0].Image} {
		tag = strings.ReplaceAll(tag, tagWords()[i], v)
	}
	return fmt.Sprintf("SYSLOG_IDENTIFIER=%s\nGANTRY_POD=%s\nGANTRY_POD_NAME=%s\nGANTRY_APP=%s\nCONTAINER_NAME=%s\nCONTAINER_ID=%s\nCONTAINER_ID_FULL=%s\nIMAGE_NAME=%s\n",
		tag, m.UUID, name, m.Apps[0].Name, name, pod.Short(m.UUID), m.UUID, m.Apps[0].Image)
}
