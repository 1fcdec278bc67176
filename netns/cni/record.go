// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// RecordFile is the file of a pod's directory that says which plugins have to
// be told of its end. It is there from before the first ADD until the last DEL.
const RecordFile = "cni.json"

type record struct {
	Version     int          `json:"version"`
	Attachments []Attachment `json:"attachments"`
}

// WriteRecord writes it, whole or not at all.
func WriteRecord(podDir string, on []Attachment) error {
	b, err := json.Marshal(record{ProtocolVersion, on})
	if err != nil {
		return err
	}
	name := filepath.Join(podDir, RecordFile)
	if err = os.WriteFile(name+".new", b, 0o600); err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		return fmt.Errorf("record the networks of plugins: %w", err)
	}
	return nil
}

// ReadRecord reads it. fs.ErrNotExist means that nothing is attached.
func ReadRecord(podDir string) ([]Attachment, error) {
	b, err := os.ReadFile(filepath.Join(podDir, RecordFile))
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(podDir, RecordFile), err)
	}
	if r.Version > ProtocolVersion {
		return nil, fmt.Errorf("read %s: a newer gantry wrote it", filepath.Join(podDir, RecordFile))
	}
	return r.Attachments, nil
}

// Recorded are the attachments of every pod below a directory of phases.
func Recorded(pods string) ([]Attachment, error) {
	dirs, err := filepath.Glob(filepath.Join(pods, "*", "*"))
	if err != nil {
		return nil, err
	}
	var all []Attachment
	for _, dir := range dirs {
		on, err := ReadRecord(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, on...)
	}
	return all, nil
}
