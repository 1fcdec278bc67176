// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/internal/bounded"
	"github.com/gantryrun/gantry/signature"
	"github.com/gantryrun/gantry/signature/sign"
)

const trustLong = `Decide who is trusted to sign what.

Rules are files of trust.d below /usr/lib/gantry, /run/gantry/conf and
/etc/gantry; a file of a later directory replaces one of the same name in an
earlier directory, and an empty one removes it. Of all rules those with the
longest matching prefix decide, compared by path components: a rule for
example.com/acme governs example.com/acme/web and not example.com/acme-evil.
Where no rule matches, nothing is trusted.`

func (a *app) trustCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "trust COMMAND",
		Short: "Decide who is trusted to sign what",
		Long:  trustLong,
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.trustAddCommand(), a.trustListCommand(), a.trustRemoveCommand(), a.trustExplainCommand(), a.keygenCommand())
	return c
}

func (a *app) trustAddCommand() *cobra.Command {
	var r signature.NewRule
	c := &cobra.Command{
		Use:   "add --prefix PREFIX [KEY...]",
		Short: "Trust keys to sign the images of a prefix",
		Long: `Write a rule that trusts public keys (PEM files) to sign every image whose
name is PREFIX or lies below it, into the last directory of the configuration
path. The keys are copied; their fingerprints are printed, to be compared with
what their owner says.`,
		Example: `  gantry trust add --prefix registry.example.com/acme acme.pub
  gantry trust add --prefix registry.example.com/acme/experiments --accept reject`,
		Args: rangeArgs(0, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.outside()
			if err != nil {
				return err
			}
			for _, file := range args {
				pem, err := readSmall(file)
				if err != nil {
					return err
				}
				if bytes.Contains(pem, []byte("PRIVATE KEY")) {
					return withHint(fmt.Errorf("%s is a private key", file), "a rule takes the public half, usually beside it with the suffix .pub")
				}
				r.Keys = append(r.Keys, pem)
			}
			file, ids, err := signature.AddRule(e.ConfigPath, r)
			if errors.Is(err, fs.ErrExist) {
				return withHint(err, "'gantry trust ls' shows the rules in force")
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, file)
			for _, id := range ids {
				fmt.Fprintf(a.out, "key %s\n", id)
			}
			return nil
		},
	}
	c.Flags().StringVar(&r.Prefix, "prefix", "", "the images the rule is about: a repository or anything it lies below")
	c.Flags().StringVar(&r.Accept, "accept", "", "`KIND` of proof: sigstore-key (default), reject, or insecure (no signature at all)")
	c.Flags().StringVar(&r.Transparency, "transparency", "", "transparency log entries: `MODE` ignore (default), if-present or require")
	must(c.MarkFlagRequired("prefix"))
	return c
}

func (a *app) trustListCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List the rules in force",
		Aliases: []string{"list"},
		Example: "  gantry trust ls",
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			e, err := a.outside()
			if err != nil {
				return err
			}
			p, err := signature.LoadPolicy(e.ConfigPath)
			if err != nil {
				return err
			}
			rules := p.Rules()
			rows := make([][]string, 0, len(rules))
			for _, r := range rules {
				var keys []string
				for _, k := range r.Keys {
					keys = append(keys, k.ID[:min(len(k.ID), len("sha256:")+12)])
				}
				what := string(r.Accept)
				if r.Problem != "" {
					what = "denied: " + r.Problem
				}
				rows = append(rows, []string{r.Prefix, what, dash(strings.Join(keys, " ")), fmt.Sprintf("%s:%d", r.File, r.Line)})
			}
			if len(rules) == 0 && format == "table" {
				fmt.Fprintln(a.err, "gantry: no rules: nothing is trusted")
				return nil
			}
			return a.table(format, rules, []string{"PREFIX", "ACCEPT", "KEYS", "FILE"}, rows)
		},
	}
	formatFlag(c, &format)
	return c
}

func (a *app) trustRemoveCommand() *cobra.Command {
	var prefix, key string
	c := &cobra.Command{
		Use:   "rm --prefix PREFIX [--key KEY]",
		Short: "Take rules out of force",
		Long: `Take the rules of exactly PREFIX out of force, or with --key only the trust
in that key. It holds from the next launch on, also for images that were
fetched before. A rule that a package ships is masked, not deleted.`,
		Example: `  gantry trust rm --prefix registry.example.com/acme
  gantry trust rm --prefix registry.example.com/acme --key sha256:4bf2`,
		Args: exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			e, err := a.outside()
			if err != nil {
				return err
			}
			// The file the key was added from names it as well as its ID does.
			if pem, err := readSmall(key); err == nil {
				if k, err := signature.ParseKey(pem); err == nil {
					key = k.ID
				}
			}
			files, err := signature.RemoveRule(e.ConfigPath, prefix, key)
			if err != nil {
				return err
			}
			for _, f := range files {
				fmt.Fprintln(a.out, f)
			}
			return nil
		},
	}
	c.Flags().StringVar(&prefix, "prefix", "", "the rules' prefix, exactly")
	c.Flags().StringVar(&key, "key", "", "the ID of one key, the beginning of one, or its file")
	must(c.MarkFlagRequired("prefix"))
	return c
}

func (a *app) keygenCommand() *cobra.Command {
	var output, passwordFile string
	c := &cobra.Command{
		Use:   "keygen --output NAME",
		Short: "Make a key pair for signing",
		Long: `Make an ECDSA P-256 key pair: NAME.key, encrypted with a password, and
NAME.pub. Both are in the form cosign reads and writes.

The password is that of $COSIGN_PASSWORD if set (an empty one too), else the
first line of --password-file, else asked for on the terminal.`,
		Example: "  gantry trust keygen --output acme",
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			for _, f := range []string{output + ".key", output + ".pub"} {
				if _, err := os.Lstat(f); err == nil {
					return keyExists(f)
				}
			}
			pass, err := a.password(passwordFile, true)
			if err != nil {
				return err
			}
			priv, pub, err := sign.Keygen(pass)
			if err != nil {
				return err
			}
			if err := writeNew(output+".key", priv, 0o600); err != nil {
				return err
			}
			if err := writeNew(output+".pub", pub, 0o644); err != nil {
				return err
			}
			key, err := signature.ParseKey(pub)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s.key\n%s.pub\nkey %s\n", output, output, key.ID)
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "write `NAME`.key and NAME.pub")
	c.Flags().StringVar(&passwordFile, "password-file", "", "take the password from the first line of `FILE`")
	must(c.MarkFlagRequired("output"))
	return c
}

func (a *app) trustExplainCommand() *cobra.Command {
	var format string
	var f sourceFlags
	c := &cobra.Command{
		Use:   "explain IMAGE",
		Short: "Say why an image is trusted or not",
		Long: `Say which rule decides about IMAGE, with which keys, what signatures were
found and why each counts or not, and the command that mends a refusal.
Signatures of an image in the store are those kept when it was fetched;
otherwise they are looked up where the image is. Nothing is stored or run.
The exit status is 0 for an image that is trusted and 1 for one that is not.`,
		Example: "  gantry trust explain registry.example.com/acme/web:1",
		Args:    exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			v, next, err := a.explain(args[0], f)
			if err != nil {
				return err
			}
			if format == "json" {
				err = a.json(v)
			} else {
				_, err = io.WriteString(a.out, printable(v.Explain()+"\n"))
			}
			if err == nil && !v.Accepted {
				if next != "" {
					a.say("hint", next)
				}
				return exitError(1)
			}
			return err
		},
	}
	formatFlag(c, &format)
	f.register(c)
	return c
}

// password returns the password of a private key. With twice it is a new one
// and asked for two times.
func (a *app) password(file string, twice bool) ([]byte, error) {
	if p, set := os.LookupEnv("COSIGN_PASSWORD"); set {
		return []byte(p), nil
	}
	if file != "" {
		b, err := readSmall(file)
		if err != nil {
			return nil, err
		}
		line, _, _ := bytes.Cut(b, []byte("\n"))
		return line, nil
	}
	fd := int(a.in.Fd())
	if !term.IsTerminal(fd) {
		return nil, withHint(errors.New("the key needs a password and there is no terminal to ask on"), "set $COSIGN_PASSWORD (it may be empty) or give --password-file")
	}
	fmt.Fprint(a.err, "password of the private key: ")
	p, err := term.ReadPassword(fd)
	fmt.Fprintln(a.err)
	if err != nil || !twice {
		return p, err
	}
	fmt.Fprint(a.err, "once more: ")
	again, err := term.ReadPassword(fd)
	fmt.Fprintln(a.err)
	if err == nil && !bytes.Equal(p, again) {
		err = errors.New("the two passwords differ")
	}
	return p, err
}

// readSmall reads a file the user named: keys and passwords are small.
func readSmall(file string) ([]byte, error) {
	b, err := bounded.File(file, 1<<20)
	if errors.Is(err, bounded.ErrTooLarge) {
		err = fmt.Errorf("%s is too large to be a key or a password", file)
	}
	return b, err
}

// writeNew writes a file that must not be there yet.
func writeNew(file string, data []byte, perm os.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if errors.Is(err, fs.ErrExist) {
		return keyExists(file)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func keyExists(file string) error {
	return withHint(fmt.Errorf("%s exists", file), "choose another --output: a key that signs must not be overwritten")
}

func must(err error) {
	if err != nil {
		panic(err) // a flag named here that was not defined above
	}
}

// parseRef is image.Parse with the word that hints at what was typed.
func parseRef(s string) (image.Reference, error) {
	ref, err := image.Parse(s)
	if err != nil {
		return ref, withHint(err, "an image is named as in nginx:1.27, registry.example.com/acme/web@sha256:…, oci:DIR:TAG, oci-archive:FILE or docker-archive:FILE")
	}
	return ref, nil
}
