#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the Debian 13 guest: its kernel, its initrd and its root file system,
# in a directory of the cache named after a hash of this recipe. Prints that
# directory. Making it takes two minutes, finding it nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../setup/apt.sh
. "$here/../setup/apt.sh"

cache=${GANTRY_TEST_CACHE:-$HOME/.cache/gantry-test}
key=$(cat "$here/root.sh" "$here/packages" "$here"/guest/* | sha256sum | cut -c1-16)
out=$cache/vm/$key
if [ -e "$out/complete" ]; then
	echo "$out"
	exit
fi

apt_need mmdebstrap e2fsprogs debian-archive-keyring zstd >&2
mkdir -p "$cache/vm"
exec 9>"$cache/vm/lock"
flock 9
if [ -e "$out/complete" ]; then
	echo "$out"
	exit
fi
echo "vm: building the Debian 13 root (about two minutes, once)" >&2
work=$(mktemp -d "$cache/vm/build.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
mapfile -t aptopts < <(apt_options)

# The guest's services come with the image; the suite itself comes on a second
# drive at every run, so that a change of the code does not remake the root.
cat >"$work/initramfs.sh" <<'HOOK'
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\nCOMPRESS=zstd\n' >"$1/etc/initramfs-tools/conf.d/guest"
printf '%s\n' virtio_pci virtio_blk ext4 crc32c >>"$1/etc/initramfs-tools/modules"
HOOK
mmdebstrap --quiet --variant=minbase --format=directory \
	"${aptopts[@]}" \
	--include="$(paste -sd, "$here/packages")" \
	--dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--extract-hook="sh $work/initramfs.sh \"\$1\"" \
	trixie "$work/root" "$(apt_mirror)" >&2
root=$work/root

install -m 0644 "$here/guest/"*.service "$here/guest/"*.mount "$root/etc/systemd/system/"
install -m 0755 "$here/guest/suite" "$root/usr/local/sbin/suite"
install -d "$root/suite"
ln -s /etc/systemd/system/suite.service "$root/etc/systemd/system/multi-user.target.wants/suite.service"
echo guest >"$root/etc/hostname"
printf '127.0.0.1 localhost guest\n::1 localhost\n' >"$root/etc/hosts"
echo 'LABEL=root / ext4 defaults 0 1' >"$root/etc/fstab"
: >"$root/etc/machine-id"
# Nothing logs in, and nothing must run beside the suite on an emulated CPU.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
	systemd-tmpfiles-clean.timer getty@tty1.service serial-getty@ttyS0.service systemd-networkd.service \
	e2scrub_reap.service systemd-timesyncd.service; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

mkdir "$work/out"
cp "$root"/boot/vmlinuz-* "$work/out/vmlinuz"
cp "$root"/boot/initrd.img-* "$work/out/initrd"
rm -rf "$root"/boot/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
truncate -s 6G "$work/out/root.ext4"
mkfs.ext4 -q -L root -O verity -E root_owner=0:0 -d "$root" "$work/out/root.ext4"
touch "$work/out/complete"
rm -rf -- "$out"
mv "$work/out" "$out"
echo "$out"
