// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gantryrun/gantry/stage0"
)

func (a *app) imageExportCommand() *cobra.Command {
	var format, output, platform string
	var quiet, bare bool
	c := &cobra.Command{
		Use:     "export [flags] IMAGE...",
		Aliases: []string{"save"},
		Short:   "Write images to an archive or a layout",
		Long: `Write images of the store to an archive, or to an OCI layout. With them go the
signatures that are kept, so that 'gantry fetch oci-archive:FILE:NAME --as NAME'
verifies them again on another host. The same images always give the same
bytes. docker-archive is an archive that docker load reads, and an OCI layout
at the same time. Of a multi-platform image goes what is in the store.`,
		Example: `  gantry image export -o web.tar registry.example.com/acme/web:1
  gantry image export --format docker-archive registry.example.com/acme/web:1 | docker load
  gantry image export --format oci-dir -o /srv/layout registry.example.com/acme/web:1`,
		Args: rangeArgs(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			write, err := a.exporter(format, output)
			if err != nil {
				return err
			}
			x, err := stage0.OpenExport(e, args, platform, !bare)
			if err != nil {
				return err
			}
			defer x.Close()
			if !quiet {
				for _, n := range x.Notes {
					a.say("note", n)
				}
			}
			ctx, cancel := a.fetchContext()
			defer cancel()
			return write(ctx, x)
		},
	}
	c.Flags().StringVar(&format, "format", "oci-archive", "`FORMAT` oci-archive, docker-archive or oci-dir")
	c.Flags().StringVarP(&output, "output", "o", "", "write to `FILE`, or to the directory of oci-dir (default standard output)")
	c.Flags().StringVar(&platform, "platform", "", "`OS/ARCH[/VARIANT]` of a multi-platform image")
	c.Flags().BoolVar(&bare, "no-signatures", false, "write the images alone, for tools that want an archive to hold nothing else")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not say what stays behind")
	return c
}

// exporter decides before anything is read how an export is written.
func (a *app) exporter(format, output string) (func(context.Context, *stage0.Export) error, error) {
	docker := format == "docker-archive"
	switch format {
	case "oci-archive", "docker-archive":
	case "oci-dir":
		if output == "" || output == "-" {
			return nil, withHint(errors.New("--format oci-dir writes a directory, and none is named"), "name it: --output DIR")
		}
		return func(ctx context.Context, x *stage0.Export) error { return x.Layout(ctx, output) }, nil
	default:
		return nil, fmt.Errorf("--format %q: use oci-archive, docker-archive or oci-dir", format)
	}
	if output != "" && output != "-" {
		return func(ctx context.Context, x *stage0.Export) error {
			return replaceFile(output, func(w io.Writer) error { return x.Archive(ctx, w, docker) })
		}, nil
	}
	if f, ok := a.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return nil, withHint(errors.New("an archive is not for a terminal"), "write it to a file: --output FILE")
	}
	return func(ctx context.Context, x *stage0.Export) error { return x.Archive(ctx, a.out, docker) }, nil
}

// replaceFile lets a file appear whole or not at all; what is no regular file,
// as /dev/null or a FIFO, is written as it is. A new one has what the umask
// leaves of its mode, one that is replaced keeps its own: it may hold secrets.
func replaceFile(name string, write func(io.Writer) error) error {
	mode := os.FileMode(0o666)
	st, err := os.Stat(name)
	if err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	replaced := err == nil
	if replaced {
		mode = st.Mode().Perm()
	}
	f, err := os.OpenFile(filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+"."+rand.Text()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it has been renamed, or is what went wrong
	if replaced {
		err = f.Chmod(mode) // whatever the umask
	}
	if err := errors.Join(err, write(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func (a *app) imageExtractCommand() *cobra.Command {
	var o imageOptions
	var path string
	var owners bool
	c := &cobra.Command{
		Use:   "extract [flags] IMAGE DIR",
		Short: "Write an image's files to a directory",
		Long: `Write the files of an image, or those at one path of it, to the directory DIR,
which must be new or empty and appears whole or not at all. The image is
admitted as for a launch. Files get the image's permissions without setuid,
setgid and sticky bits, no capabilities and no other extended attributes, and
the caller as their owner; devices and FIFOs are left out. Symbolic links are
written as they are.`,
		Example: `  gantry image extract registry.example.com/acme/web:1 /tmp/web
  gantry image extract --path /etc/nginx registry.example.com/acme/web:1 nginx`,
		Args: exactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			admit, err := a.admitOptions(o)
			if err != nil {
				return err
			}
			ctx, cancel := a.fetchContext()
			defer cancel()
			done, err := stage0.ExtractImage(ctx, e, args[0], args[1], stage0.ExtractOptions{AdmitOptions: admit, Path: path, Owners: owners})
			if err == nil && done.Left > 0 {
				a.say("note", fmt.Sprintf("%d devices and FIFOs were left out", done.Left))
			}
			return err
		},
	}
	o.register(c)
	c.Flags().StringVar(&path, "path", "", "only what is at `PATH` of the image")
	c.Flags().BoolVar(&owners, "same-owner", false, "keep the owners the image names")
	return c
}

func (a *app) imageMountCommand() *cobra.Command {
	var o imageOptions
	var format string
	c := &cobra.Command{
		Use:   "mount [flags] [IMAGE DIR [-- COMMAND [ARG...]]]",
		Short: "Attach an image's files to a directory, or list where some are",
		Long: `Attach the files of an image to the directory DIR, read-only, without devices
and setuid. The image is admitted as for a launch. With a COMMAND that happens
in a mount namespace of the command's own and ends with it; without one DIR
stays as it is in this mount namespace until 'gantry image unmount DIR'. It is
the only command of gantry's that leaves a mount on the host. Without
arguments it lists those mounts.`,
		Example: `  gantry image mount registry.example.com/acme/web:1 /mnt -- find /mnt -perm -4000
  gantry image mount registry.example.com/acme/web:1 /mnt
  gantry image unmount /mnt`,
		Args: rangeArgs(0, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return a.listImageMounts(e, format)
			}
			if len(args) == 1 {
				return withHint(fmt.Errorf("mount %s: no directory is named", args[0]), "gantry image mount %s DIR, or with a command: gantry image mount %s DIR -- COMMAND", args[0], args[0])
			}
			admit, err := a.admitOptions(o)
			if err != nil {
				return err
			}
			if len(args) > 2 && args[2] == "--" {
				args = slices.Delete(args, 2, 3)
			}
			if len(args) > 2 {
				return stage0.WithMountedImage(a.ctx, e, args[0], args[1], args[2:], admit)
			}
			return stage0.MountImage(a.ctx, e, args[0], args[1], admit)
		},
	}
	o.register(c)
	formatFlag(c, &format)
	c.Flags().SetInterspersed(false)
	return c
}

func (a *app) listImageMounts(e stage0.Env, format string) error {
	mounts, err := stage0.ListImageMounts(e)
	if err != nil {
		return err
	}
	rows := make([][]string, 0, len(mounts))
	for _, m := range mounts {
		rows = append(rows, []string{dash(m.Reference), m.Path})
	}
	return a.table(format, mounts, []string{"IMAGE", "DIRECTORY"}, rows)
}

func (a *app) imageUnmountCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "unmount DIR...",
		Aliases: []string{"umount"},
		Short:   "Take away what image mount attached",
		Example: "  gantry image unmount /mnt",
		Args:    rangeArgs(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			var errs []error
			for _, dir := range args {
				errs = append(errs, stage0.UnmountImage(e, dir))
			}
			return errors.Join(errs...)
		},
	}
}
