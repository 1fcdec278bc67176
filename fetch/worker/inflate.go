// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/gantryrun/gantry/fetch/confine"
	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/image/tree/layer"
)

// serveInflate decompresses one archive and ends. Two descriptors are all it
// has, and what comes out is as foreign as what went in.
func serveInflate(_ context.Context, c *wire.Conn) error {
	var order wire.InflateStart
	if _, err := start(c, &order); err != nil {
		return err
	}
	var lim tree.Limits
	if err := json.Unmarshal(order.Limits, &lim); err != nil {
		return fmt.Errorf("read limits: %w", err)
	}
	lim = lim.Complete()
	if err := confine.SetFileSize(uint64(lim.Bytes) + uint64(lim.Entries)*2048); err != nil {
		return err
	}
	err := layer.Inflate(os.NewFile(fdData, "plain"), os.NewFile(fdIn, "archive"), order.Compression, lim)
	return answer(c, nil, bad(err))
}
