// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"fmt"
	"io"
)

// Inflate decompresses a whole archive under the limits of a layer.
func Inflate(out io.Writer, in io.Reader, compression string, lim Limits) error {
	m := &meter{r: in}
	plain, err := decompress(m, "+"+compression)
	if err != nil {
		return err
	}
	if c, ok := plain.(io.Closer); ok {
		defer c.Close()
	}
	lim = lim.Complete()
	b := make([]byte, blockLen)
	for total := int64(0); ; {
		n, readErr := plain.Read(b)
		total += int64(n)
		if err := checkStream(lim, total, m.n); err != nil {
			return err
		}
		if _, err := out.Write(b[:n]); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if readErr == io.EOF {
			return nil
		}
		if readErr != nil {
			return fmt.Errorf("decompress: %w", readErr)
		}
	}
}
