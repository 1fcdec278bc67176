// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/fetch/confine"
	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/image/tree/layer"
)

// serveConvert converts one layer and ends. Three descriptors are all it has:
// compressed bytes, file contents, index.
func serveConvert(_ context.Context, c *wire.Conn) error {
	var order wire.ConvertStart
	if _, err := start(c, &order); err != nil {
		return err
	}
	var lim tree.Limits
	if err := json.Unmarshal(order.Limits, &lim); err != nil {
		return fmt.Errorf("read limits: %w", err)
	}
	lim = lim.Complete()
	// Contents are padded to blocks, one at most for each entry.
	if err := confine.SetFileSize(uint64(lim.Bytes) + uint64(lim.Entries)*4096); err != nil {
		return err
	}
	in := os.NewFile(fdIn, "layer")
	sum, err := layer.Convert(in, order.MediaType, digest.Digest(order.DiffID), lim,
		os.NewFile(fdData, "data"), os.NewFile(fdIdx, "index"))
	if err != nil {
		return answer(c, nil, bad(err))
	}
	// Whatever follows the compressed stream belongs to the blob and is
	// hashed by the parent; it must not find the pipe closed.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return answer(c, nil, err)
	}
	return answer(c, sum, nil)
}

// bad words a failure to understand something foreign, unless it is for want of
// room on this host.
func bad(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fail(wire.NoRoom, "%v", err)
	}
	return fail(wire.Bad, "%v", err)
}

// serveMerge merges the indexes of an image's layers and ends.
func serveMerge(_ context.Context, c *wire.Conn) error {
	var order wire.MergeStart
	if _, err := start(c, &order); err != nil {
		return err
	}
	idx := make([]io.ReaderAt, order.Layers)
	for i := range idx {
		idx[i] = os.NewFile(uintptr(fdIdxs+i), "layer index")
	}
	var lim tree.Limits
	if err := json.Unmarshal(order.Limits, &lim); err != nil {
		return fmt.Errorf("read limits: %w", err)
	}
	if err := layer.Merge(idx, lim, os.NewFile(fdIn, "image")); err != nil {
		return answer(c, nil, bad(err))
	}
	return answer(c, nil, nil)
}
