// SPDX-License-Identifier: Apache-2.0

package hint

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestHintIsFoundThroughWrapping(t *testing.T) {
	err := fmt.Errorf("launch: %w", With(fmt.Errorf("open: %w", fs.ErrNotExist), "make it"))
	if err.Error() != "launch: open: file does not exist" || !errors.Is(err, fs.ErrNotExist) || Of(err) != "make it" {
		t.Errorf("%v, hint %q", err, Of(err))
	}
	if got := Of(fs.ErrNotExist) + Of(nil); got != "" {
		t.Errorf("hint %q", got)
	}
}
