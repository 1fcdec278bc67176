// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/gantryrun/gantry/fetch"
	"github.com/gantryrun/gantry/fetch/registries"
	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/signature"
	"github.com/gantryrun/gantry/stage0"
)

// insecure is what --insecure-options gives up.
type insecure struct{ image, tls, http bool }

func (a *app) parseInsecure(options []string) (insecure, error) {
	var i insecure
	for _, o := range options {
		switch o {
		case "image":
			i.image = true
		case "tls":
			i.tls = true
		case "http":
			i.http = true
		case "":
		default:
			return i, fmt.Errorf("--insecure-options %q: use image, tls or http", o)
		}
	}
	if i.tls {
		a.warn("--insecure-options=tls: whoever answers is taken for the registry")
	}
	if i.http {
		a.warn("--insecure-options=http: the registry may be asked without encryption")
	}
	return i, nil
}

// sourceFlags are the flags of commands that ask a registry or a layout.
type sourceFlags struct {
	platform, authFile string
	insecure           []string
	as                 string // fetch only
}

func (f *sourceFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.platform, "platform", "", "choose `OS/ARCH[/VARIANT]` from a multi-platform image")
	c.Flags().StringVar(&f.authFile, "authfile", "", "take registry credentials from `FILE` (default $REGISTRY_AUTH_FILE, else what podman login and docker login wrote)")
	c.Flags().StringSliceVar(&f.insecure, "insecure-options", nil, "give up a check, each time with a warning: `LIST` of image (signatures), tls, http")
}

// fetching is what a fetch works on, open.
type fetching struct {
	fetch.Request
	bars *progress
}

// bar adapts the progress display to the fetcher's words.
type bar struct{ *progress }

// Line says a sentence of the fetch as any other message of gantry's.
func (b bar) Line(s string) {
	kind, text, ok := strings.Cut(s, ": ")
	if !ok || kind != "warning" {
		kind, text = "note", s
	}
	b.progress.Line("gantry: " + kind + ": " + text)
}

func (b bar) Layer(d digest.Digest, done, total int64, phase fetch.Phase) {
	b.progress.Layer(d, done, total, string(phase))
}

// origin is a place and the name that what is there is to have: as, or the
// place itself.
func origin(place, as string) (ref, from image.Reference, err error) {
	if place == image.Stdin {
		from = image.Reference{Transport: image.AnyArchive, Path: image.Stdin}
	} else if from, err = parseRef(place); err != nil {
		return ref, from, err
	}
	if as == "" {
		if from.Path == image.Stdin {
			return ref, from, withHint(fmt.Errorf("%s: what comes from standard input has no name that could be trusted", place),
				"say what it is to be called, and judged as: gantry fetch %s --as NAME", place)
		}
		return from, image.Reference{}, nil
	}
	if ref, err = parseRef(as); err == nil && ref.Transport != image.Registry {
		err = withHint(fmt.Errorf("--as %s: not a name", as), "an image is called as on a registry: registry.example.com/acme/web:1")
	}
	return ref, from, err
}

// source opens everything a request to where ref lives needs. The caller
// closes it.
func (a *app) source(e stage0.Env, place string, sf sourceFlags, quiet bool, ins insecure) (*fetching, error) {
	r, from, err := origin(place, sf.as)
	if err != nil {
		return nil, err
	}
	f := &fetching{bars: newProgress(a.errFile, quiet)}
	f.Request = fetch.Request{
		Ref: r, From: from, Stdin: a.in, AuthFile: sf.authFile, Libexec: e.Libexec, Progress: bar{f.bars}, Limits: tree.DefaultLimits(),
		Insecure: fetch.Insecure{Image: ins.image, TLS: ins.tls, HTTP: ins.http},
	}
	if sf.platform != "" {
		if f.Platform, err = image.ParsePlatform(sf.platform); err != nil {
			return nil, err
		}
	}
	if f.Policy, err = signature.LoadPolicy(e.ConfigPath); err != nil {
		return nil, err
	}
	if f.Registries, err = registries.Load(e.ConfigPath); err != nil {
		return nil, withHint(fmt.Errorf("read what is known of registries: %w", err), "mend that file or remove it: while it cannot be read nothing is fetched")
	}
	return f, f.open(e)
}

// open opens, and makes, the store, the trees and the receipts.
func (f *fetching) open(e stage0.Env) error {
	if err := os.MkdirAll(e.Dir, 0o700); err != nil {
		return err
	}
	key, err := signature.HostKey(filepath.Join(e.Dir, "host.key"))
	if err != nil {
		return err
	}
	if f.Store, err = store.Open(filepath.Join(e.Dir, "store")); err != nil {
		return err
	}
	if f.Trees, err = tree.Open(filepath.Join(e.Dir, "trees"), key); err != nil {
		f.close()
		return fmt.Errorf("open trees: %w", err)
	}
	if f.Receipts, err = signature.OpenReceiptsWithKey(filepath.Join(e.Dir, "receipts"), key); err != nil {
		f.close()
		return fmt.Errorf("open receipts: %w", err)
	}
	return nil
}

// close accepts what is open in part.
func (f *fetching) close() {
	f.bars.Finish()
	if f.Receipts != nil {
		_ = f.Receipts.Close()
	}
	if f.Trees != nil {
		_ = f.Trees.Close()
	}
	if f.Store != nil {
		_ = f.Store.Close()
	}
}

// fetcher wires stage0, which opens no connection, to the fetch.
func (a *app) fetcher(e stage0.Env, sf sourceFlags, quiet bool, ins insecure) stage0.Fetcher {
	return func(ctx context.Context, ref string, pull stage0.Pull) error {
		_, err := a.bring(ctx, e, ref, sf, pull, quiet, ins)
		return err
	}
}

func (a *app) bring(ctx context.Context, e stage0.Env, place string, sf sourceFlags, pull stage0.Pull, quiet bool, ins insecure) (fetch.Result, error) {
	f, err := a.source(e, place, sf, quiet, ins)
	if err != nil {
		return fetch.Result{}, err
	}
	defer f.close()
	if f.Pull, err = fetch.ParsePull(string(pull)); err != nil {
		return fetch.Result{}, err
	}
	ctx, cancel := notifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer cancel()
	res, err := fetch.Fetch(ctx, f.Request)
	switch {
	case errors.Is(err, syscall.ENOSPC):
		// Who wrote it has taken it back: how much room there is tells nothing now.
		return res, withHint(err, "%s", spaceHint(e.Dir))
	case errors.Is(err, context.Canceled):
		return res, withHint(fmt.Errorf("fetch of %s interrupted", place), "nothing of it is trusted or kept under its name; 'gantry image gc' frees what was downloaded")
	}
	return res, err
}

func (a *app) fetchCommand() *cobra.Command {
	var f sourceFlags
	var pull, format string
	var quiet bool
	c := &cobra.Command{
		Use:   "fetch IMAGE...",
		Short: "Bring images into the store and verify them",
		Long: `Bring images into the store. The name is resolved to a digest, the digest's
signatures are judged under the rules of trust.d, and only then are layers
brought. All that is foreign is handled by confined processes. Interrupted at
any point, a fetch leaves nothing that is trusted.

An image comes from a registry, an OCI layout (oci:DIR), or an archive of
either kind (oci-archive:FILE, docker-archive:FILE), plain or compressed with
gzip or zstd. FILE is - for standard input, and IMAGE alone may be - for an
archive of either kind. Which of several images of a place is meant stands
after a colon: oci:DIR:NAME, docker-archive:FILE:nginx:1, docker-archive:FILE:@0.

With --as the image is stored, and judged by the rules, as if it came from
that name: what an archive holds of registry.example.com/acme/web is verified
with the keys trusted for registry.example.com/acme/web, by the signatures
that are in the archive. Archives of docker save hold none, so they need a
rule that accepts them without, or --insecure-options=image.

Files of registries.d in the configuration path name mirrors that are asked
first, authorities and certificates, and registries without encryption.`,
		Example: `  gantry fetch registry.example.com/acme/web:1
  gantry fetch oci:/srv/web:1 oci-archive:web.tar
  ssh host podman save acme/web:1 | gantry fetch - --as registry.example.com/acme/web:1`,
		Args: rangeArgs(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			ins, err := a.parseInsecure(f.insecure)
			if err != nil {
				return err
			}
			p, err := parsePull(pull)
			if err != nil {
				return err
			}
			if f.as != "" && len(args) > 1 {
				return fmt.Errorf("--as %s names one image, and %d are to be fetched", f.as, len(args))
			}
			var done []fetch.Result
			status := 0
			for _, ref := range args {
				r, err := a.bring(a.ctx, e, ref, f, p, quiet, ins)
				if err == nil {
					done = append(done, r)
					continue
				}
				status = a.fail(err) // each with its own hint; the others are wanted all the same
				if errors.Is(err, context.Canceled) {
					break
				}
			}
			if len(done) > 0 {
				if err := a.fetched(format, done); err != nil {
					return err
				}
			}
			if status != 0 {
				return exitError(status)
			}
			return nil
		},
	}
	f.register(c)
	c.Flags().StringVar(&f.as, "as", "", "store and judge the image under `NAME` instead of that of its place")
	c.Flags().StringVar(&pull, "pull", "always", "ask the source again: `POLICY` always, newer, missing or never")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	formatFlag(c, &format)
	return c
}

// fetched prints the digest of each image, as scripts want it.
func (a *app) fetched(format string, done []fetch.Result) error {
	type record struct {
		Reference string        `json:"reference"`
		Digest    digest.Digest `json:"digest"`
		Manifest  digest.Digest `json:"manifest"`
		Fetched   bool          `json:"fetched"`
		Insecure  bool          `json:"insecure,omitempty"`
	}
	records := make([]record, 0, len(done))
	for _, r := range done {
		records = append(records, record{r.Image.Reference.String(), r.Image.Descriptor.Digest, r.Image.ManifestDescriptor.Digest, r.Fetched, r.Receipt.Insecure})
	}
	if format != "table" {
		return a.table(format, records, nil, nil)
	}
	for _, r := range records {
		fmt.Fprintln(a.out, r.Digest)
	}
	return nil
}

// explain judges the signatures of an image: those kept in the store, else
// those found where the image is. For the former it says what may mend a refusal
// besides.
func (a *app) explain(ref string, f sourceFlags) (v signature.Verdict, next string, err error) {
	e, err := a.env()
	if err != nil {
		return v, "", err
	}
	if v, err = stage0.Explain(e, ref, f.platform); err == nil {
		return v, stage0.SignedSince(ref, v), nil
	}
	v, err = a.explainSource(e, ref, f)
	return v, "", err
}

func (a *app) explainSource(e stage0.Env, ref string, f sourceFlags) (v signature.Verdict, err error) {
	if _, perr := parseRef(ref); perr != nil {
		return v, perr
	}
	ins, err := a.parseInsecure(f.insecure)
	if err != nil {
		return v, err
	}
	src, err := a.source(e, ref, f, false, ins)
	if err != nil {
		return v, err
	}
	defer src.close()
	ctx, cancel := a.fetchContext()
	defer cancel()
	subject, sigs, err := fetch.Discover(ctx, src.Request)
	if err != nil {
		return v, err
	}
	return src.Policy.Judge(subject, sigs), nil
}

// subjectOf resolves what is to be signed, at the place where it lives.
func (f *fetching) subjectOf(ctx context.Context) (ispec.Descriptor, error) {
	if f.Ref.Transport == image.Layout {
		l, err := store.OpenLayout(f.Ref.Path)
		if err != nil {
			return ispec.Descriptor{}, err
		}
		defer l.Close()
		return layoutSubject(l, f.Ref)
	}
	return fetch.Resolve(ctx, f.Request)
}

// layoutSubject finds the image of a layout that a reference means.
func layoutSubject(l *store.Store, ref image.Reference) (ispec.Descriptor, error) {
	if ref.Digest != "" {
		return l.Resolve(ref)
	}
	d, err := l.Lookup(ref.Tag)
	if errors.Is(err, store.ErrNotFound) {
		return d, withHint(fmt.Errorf("%s: no such image in the layout", ref.String()), "the layout has: %s", layoutNames(l))
	}
	return d, err
}

func layoutNames(l *store.Store) string {
	entries, err := l.Entries()
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, e := range entries {
		if e.Name != "" {
			names = append(names, e.Name)
		}
	}
	if len(names) == 0 {
		return "no image with a name"
	}
	return strings.Join(names, ", ")
}
