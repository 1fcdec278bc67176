// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/tests/ability"
)

// A volume with a limit takes no more than that, whoever writes, and what the
// image has is part of it.
func TestQuota(t *testing.T) {
	ability.Require(t, ability.Root, ability.ProjectQuota)
	if dir := os.Getenv("VOLUME_QUOTA_DIR"); dir != "" {
		quotaInside(t, dir)
		return
	}
	dir := t.TempDir()
	script := "truncate -s 64M $0/image && mkfs.ext4 -q -O quota,project -E quotatype=prjquota $0/image && mkdir $0/at && mount -o loop,prjquota $0/image $0/at && exec $1 -test.run='^TestQuota$' -test.v"
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, dir, os.Args[0])
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "VOLUME_QUOTA_DIR="+filepath.Join(dir, "at"))
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS: TestQuota") {
		t.Errorf("%v\n%s", err, out)
	}
}

func quotaInside(t *testing.T, at string) {
	withoutResource(t)
	d := Open(filepath.Join(at, "volumes"))
	if _, err := d.Create("small", nil, map[string]string{"size": "1m", "inodes": "20"}); err != nil {
		t.Fatal(err)
	}
	use(t, d, "small", image(t, "one", "two"), false)
	data := d.Mountpoint("small")
	if err := os.WriteFile(filepath.Join(data, "fits"), make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "large"), make([]byte, 2<<20), 0o600); !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("2 MiB of 1: %v", err)
	}
	_ = os.Remove(filepath.Join(data, "large"))
	var err error
	for i := 0; i < 30 && err == nil; i++ {
		err = os.Mkdir(filepath.Join(data, strings.Repeat("d", i+1)), 0o700)
	}
	if !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("30 directories of 20 inodes: %v", err)
	}
	if _, err := d.Create("large", nil, map[string]string{"o": "size=8m"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Mountpoint("large"), "x"), make([]byte, 2<<20), 0o600); err != nil {
		t.Errorf("another volume has a limit of its own: %v", err)
	}
	if err := d.Remove("small", func() ([]string, error) { return nil, nil }); err != nil {
		t.Error(err)
	}
}

// withoutResource makes this thread what apps are: quotas are not for those
// who have CAP_SYS_RESOURCE.
func withoutResource(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and thrown away with the test
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&hdr, &data[0])
	if err == nil {
		data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		err = unix.Capset(&hdr, &data[0])
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Where there are no quotas a limit is refused by its name, and nothing is
// left.
func TestLimitWithoutQuotas(t *testing.T) {
	d := Open(t.TempDir())
	_, err := d.Create("v", nil, map[string]string{"size": "1m"})
	if err == nil {
		t.Skip("the directory of tests has project quotas")
	}
	var hint interface{ Hint() string }
	if !strings.Contains(err.Error(), "--opt size") || !errors.As(err, &hint) {
		t.Errorf("got %v", err)
	}
	if got := entries(t, d.path); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}
