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
// asked, and what arrived whole is kept meanwhile.
func (f *fetcher) fromMirrors(ctx context.Context) (Result, bool) {
	at := f.source()
	if at.Transport != image.Registry || f.Registries.Blocked(at.Host, at.Repository) != "" {
		return Result{}, false // whoever asks the source is told
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
			f.Progress.Line(fmt.Sprintf("fetch %s: from the mirror %s/%s", f.Ref.Familiar(), m.Host, m.Repository))
			return res, true
		}
		if ctx.Err() != nil {
			break
		}
		why := strings.TrimPrefix(err.Error(), "fetch "+f.Ref.Familiar()+": ")
		why = strings.TrimPrefix(why, "fetch "+one.From.Familiar()+": ")
		f.Progress.Line(fmt.Sprintf("fetch %s: not from the mirror %s/%s: %s", f.Ref.Familiar(), m.Host, m.Repository, why))
	}
	return Result{}, false
}
