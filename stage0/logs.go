// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"fmt"
	"io"
	"path"

	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage0/podlog"
	"github.com/gantryrun/gantry/stage1"
)

// logOf is where the output of a pod's app goes. A pod that was prepared without
// a word about it has what run would have given it.
func (r *ready) logOf(detached bool) stage1.Log {
	l := r.launch.Log
	l.Driver = r.launch.LogDriver
	if l.Driver == "" && detached {
		l.Driver = stage1.LogToFile
	}
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
	tag = podlog.Tag(tag, name, m.UUID, m.Apps[0].Image)
	return fmt.Sprintf("SYSLOG_IDENTIFIER=%s\nGANTRY_POD=%s\nGANTRY_POD_NAME=%s\nGANTRY_APP=%s\nCONTAINER_NAME=%s\nCONTAINER_ID=%s\nCONTAINER_ID_FULL=%s\nIMAGE_NAME=%s\n",
		tag, m.UUID, name, m.Apps[0].Name, name, pod.Short(m.UUID), m.UUID, m.Apps[0].Image)
}

func logs(ctx context.Context, e Env, id string, o podlog.Options, out, errw io.Writer) error {
	p, err := e.find(id)
	if err != nil {
		return err
	}
	defer p.Close()
	var l launchFile
	if err := readJSON(p, path.Join(stage1.AppsDir, appName, launchName), maxConfig, launchVersion, &l); err != nil {
		return err
	}
	if l.LogDriver == "" {
		l.LogDriver = driverOf(p)
	}
	return podlog.Source{
		Pod: p, App: appName, Driver: l.LogDriver, Path: l.Log.Path,
		Ended: func(ctx context.Context) error { return waitFree(ctx, p) },
	}.Print(ctx, o, out, errw)
}

// driverOf is the log driver of a pod that was prepared without one: how it was
// run tells.
func driverOf(p *pod.Pod) string {
	f, err := p.OpenFile(path.Join(stage1.AppsDir, appName, stage1.LogFile))
	if err != nil {
		return stage1.LogPassthrough
	}
	_ = f.Close()
	return stage1.LogToFile
}
