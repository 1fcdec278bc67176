// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/stage1/container"
)

// spec writes an example of a configuration, never over one that is there.
func spec(f *pflag.FlagSet) func(*call) error {
	bundle := f.StringP("bundle", "b", ".", "write config.json into `DIR`")
	rootless := f.Bool("rootless", false, "one for an ordinary user")
	return func(*call) error {
		example := container.Example()
		if *rootless {
			container.Rootless(example, uint32(os.Geteuid()), uint32(os.Getegid()))
		}
		b, err := json.MarshalIndent(example, "", "\t")
		if err != nil {
			return err
		}
		name := filepath.Join(*bundle, "config.json")
		out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s exists already: remove it first", name)
		}
		if err != nil {
			return err
		}
		_, err = out.Write(append(b, '\n'))
		return errors.Join(err, out.Close())
	}
}
