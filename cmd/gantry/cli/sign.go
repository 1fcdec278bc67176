// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/gantryrun/gantry/fetch"
	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/signature"
	"github.com/gantryrun/gantry/signature/sign"
)

func (a *app) signCommand() *cobra.Command {
	var f sourceFlags
	var keyFile, passwordFile string
	var legacy bool
	c := &cobra.Command{
		Use:   "sign --key KEY IMAGE...",
		Short: "Sign images with a private key",
		Long: `Sign what IMAGE names (an index, if it is one) and attach the signature to it,
in its registry or in its OCI layout: as a sigstore bundle that refers to the
image, which cosign 3 verifies, or with --legacy as the .sig tag of older
versions. What is signed is the digest; a bundle names no repository and no
tag.`,
		Example: `  gantry sign --key acme.key registry.example.com/acme/web:1
  gantry sign --key acme.key oci:/srv/web:1`,
		Args: rangeArgs(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := a.env(); err != nil { // before anything is read
				return err
			}
			key, err := a.signingKey(keyFile, passwordFile)
			if err != nil {
				return err
			}
			ins, err := a.parseInsecure(f.insecure)
			if err != nil {
				return err
			}
			ctx, cancel := a.fetchContext()
			defer cancel()
			for _, ref := range args {
				if err := a.signOne(ctx, key, ref, f, ins, legacy); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.register(c)
	c.Flags().StringVar(&keyFile, "key", "", "the private `FILE`, as 'gantry trust keygen' and cosign write it, or plain PKCS #8")
	c.Flags().StringVar(&passwordFile, "password-file", "", "take the password from the first line of `FILE`")
	c.Flags().BoolVar(&legacy, "legacy", false, "sign in cosign's older form, which names the repository")
	must(c.MarkFlagRequired("key"))
	return c
}

func (a *app) signingKey(keyFile, passwordFile string) (crypto.Signer, error) {
	pem, err := readSmall(keyFile)
	if err != nil {
		return nil, err
	}
	var pass []byte
	if sign.Encrypted(pem) {
		if pass, err = a.password(passwordFile, false); err != nil {
			return nil, err
		}
	}
	key, err := sign.LoadKey(pem, pass)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	return key, nil
}

func (a *app) signOne(ctx context.Context, key crypto.Signer, ref string, f sourceFlags, ins insecure, legacy bool) error {
	e, err := a.env()
	if err != nil {
		return err
	}
	src, err := a.source(e, ref, f, false, ins)
	if err != nil {
		return err
	}
	defer src.close()
	if src.Ref.Transport == image.DockerArchive {
		return withHint(fmt.Errorf("%s: an archive of docker save has no place for signatures", ref), "make a layout of it (skopeo copy docker-archive:FILE oci:DIR:NAME) and sign oci:DIR:NAME")
	}
	if src.Ref.Transport == image.OCIArchive {
		return withHint(fmt.Errorf("%s: an archive cannot be signed in place", ref), "unpack it to a layout (mkdir DIR && tar -C DIR -xf FILE) and sign oci:DIR")
	}
	subject, err := src.subjectOf(ctx)
	if err != nil {
		return err
	}
	s := signer{key: key, subject: subject, repository: src.Ref.Name(), legacy: legacy}
	if src.Ref.Transport == image.Layout {
		err = s.toLayout(src.Ref.Path)
	} else {
		err = s.toRegistry(ctx, src.Request)
	}
	if err != nil {
		return fmt.Errorf("sign %s: %w", ref, err)
	}
	fmt.Fprintf(a.out, "%s signed by %s\n", subject.Digest, s.keyID())
	return nil
}

// signer makes one signature of one subject.
type signer struct {
	key        crypto.Signer
	subject    ispec.Descriptor
	repository string
	legacy     bool
}

func (s signer) keyID() string {
	k, err := signature.NewKey(s.key.Public())
	if err != nil {
		return "this key"
	}
	return k.ID
}

// make returns the signature; existing is the .sig manifest there is already.
func (s signer) make(existing []byte) (sign.Artifact, error) {
	if s.legacy {
		payload, annotations, err := sign.Legacy(s.key, s.repository, s.subject.Digest)
		if err != nil {
			return sign.Artifact{}, err
		}
		return sign.LegacyManifest(existing, payload, annotations, s.subject.Digest)
	}
	bundle, err := sign.Bundle(s.key, s.subject.Digest)
	if err != nil {
		return sign.Artifact{}, err
	}
	return sign.BundleManifest(bundle, s.subject, time.Now().UTC())
}

func (s signer) toRegistry(ctx context.Context, r fetch.Request) error {
	tag := ""
	if s.legacy {
		tag = sign.LegacyTag(s.subject.Digest)
	}
	return fetch.Attach(ctx, r, tag, func(existing []byte) (fetch.Attachment, error) {
		art, err := s.make(existing)
		if err != nil {
			return fetch.Attachment{}, err
		}
		out := fetch.Attachment{Manifest: fetch.Content(art.Manifest), Tag: art.Tag}
		for _, b := range art.Blobs {
			out.Blobs = append(out.Blobs, fetch.Content(b))
		}
		return out, nil
	})
}

// toLayout adds the signature to a layout: a referrer without a name, or the
// .sig name.
func (s signer) toLayout(dir string) error {
	l, err := store.OpenLayout(dir)
	if err != nil {
		return err
	}
	defer l.Close()
	existing, err := s.existing(l)
	if err != nil {
		return err
	}
	art, err := s.make(existing)
	if err != nil {
		return err
	}
	for _, b := range append(art.Blobs, art.Manifest) {
		if _, err := l.Put(b.Descriptor.MediaType, b.Bytes); err != nil {
			return err
		}
	}
	return l.Add(art.Tag, art.Manifest.Descriptor)
}

func (s signer) existing(l *store.Store) ([]byte, error) {
	if !s.legacy {
		return nil, nil
	}
	d, err := l.Lookup(sign.LegacyTag(s.subject.Digest))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return l.Bytes(d, signature.MaxSignature)
}
