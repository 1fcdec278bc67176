// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"fmt"
	"strings"

	"github.com/gantryrun/gantry/image"
)

// fromMirrors asks the mirrors of the source, one after the other. What one
// offers is stored and judged under the image's own name, as if the source had:
// a mirror is believed in nothing. Whatever is wrong with one, the next is
// asked, and what arrived whole is kept meanwhile. Why is told beside what came
// from elsewhere in the end, or in the error if nothing did.
func (f *fetcher) fromMirrors(ctx context.Context) (res Result, done bool, refused []string) {
	at := f.source()
	if at.Transport != image.Registry || f.Registries.Blocked(at.Host, at.Repository) != "" {
		return Result{}, false, nil // whoever asks the source is told
	}
	for _, m := range f.Registries.Mirrors(at.Host, at.Repository) {
		if m.DigestOnly && at.Digest == "" {
			continue
		}
		one := &fetcher{Request: f.Request, local: f.local, mirror: true}
		one.From = image.Reference{Transport: image.Registry, Host: m.Host, Repository: m.Repository, Tag: at.Tag, Digest: at.Digest}
		one.Insecure.TLS, one.Insecure.HTTP = false, false // they were given for the source
		res, err := one.fromSource(ctx)
		if err == nil {
			f.tell(refused)
			f.tell([]string{fmt.Sprintf("from the mirror %s/%s", m.Host, m.Repository)})
			return res, true, nil
		}
		if ctx.Err() != nil {
			break
		}
		why := strings.TrimPrefix(err.Error(), "fetch "+f.Ref.Familiar()+": ")
		why = strings.TrimPrefix(why, "fetch "+one.From.Familiar()+": ")
		refused = append(refused, fmt.Sprintf("not from the mirror %s/%s: %s", m.Host, m.Repository, why))
	}
	return Result{}, false, refused
}

func (f *fetcher) tell(lines []string) {
	for _, line := range lines {
		f.Progress.Line("fetch " + f.Ref.Familiar() + ": " + line)
	}
}

// besides adds to what went wrong with the source what did with its mirrors.
func besides(err error, refused []string) error {
	if len(refused) == 0 {
		return err
	}
	return fmt.Errorf("%w\n%s", err, strings.Join(refused, "\n"))
}
