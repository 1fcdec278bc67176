#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Does what README.md tells a newcomer to do, in an empty Debian root that has
# nothing but Go: every fenced block marked "sh readme", in order, in one shell
# that stops at the first failure. Nothing of the root outlives the run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../setup/apt.sh
. "$here/../setup/apt.sh"
cd "$here/../.."
cache=${GANTRY_TEST_CACHE:-$HOME/.cache/gantry-test}

blocks=$(awk '/^```sh readme$/ {on = 1; next} /^```/ {on = 0} on' README.md)
[ -n "$blocks" ] || { echo "readme: README.md marks no block for this test" >&2; exit 1; }

key=bookworm-1 # changes with what is in it
empty=$cache/readme/$key.tar
if [ ! -e "$empty" ]; then
	apt_need mmdebstrap debian-archive-keyring
	mkdir -p "$cache/readme"
	mapfile -t options < <(apt_options)
	echo "readme: making an empty Debian root (half a minute, once)"
	mmdebstrap --quiet --format=tar --variant=minbase "${options[@]}" bookworm "$empty.part" "$(apt_mirror)"
	mv "$empty.part" "$empty"
fi

work=$(mktemp -d "${TMPDIR:-/var/tmp}/gantry-readme.XXXXXX")
trap 'rm -rf --one-file-system -- "$work"' EXIT
root=$work/root
mkdir -p "$root" "$work"/{modules,builds}/{upper,work}
tar -C "$root" -xpf "$empty"
cp /etc/resolv.conf /etc/hosts "$root/etc/"
apt-config dump 2>/dev/null | grep -E '^Acquire::https?::[Pp]roxy' >"$root/etc/apt/apt.conf.d/99proxy" || : >"$root/etc/apt/apt.conf.d/99proxy"
mkdir -p "$root"/root/{gantry,go/pkg/mod,.cache/go-build} "$root/usr/local/go"
{ git ls-files -z 2>/dev/null || find . -type f -not -path './.git/*' -not -path './bin/*' -print0; } |
	tar --null --ignore-failed-read -T - -c 2>/dev/null | tar -C "$root/root/gantry" -x
{
	echo 'apt-get -qq update' # as on a machine that is kept up to date
	echo 'set -ex'
	printf '%s\n' "$blocks"
} >"$root/root/readme.sh"

export root work
goroot=$(go env GOROOT) modules=$(go env GOMODCACHE) builds=$(go env GOCACHE)
export goroot modules builds
# Go's toolchain, modules and finished compilations are lent, so that the test
# measures the words of the README and not the network.
unshare --mount --pid --fork --kill-child --propagation private bash -euc '
	mount --bind "$root" "$root"
	mount --rbind /dev "$root/dev"
	mount --rbind /sys "$root/sys"
	mount -t proc proc "$root/proc"
	mount -t tmpfs tmpfs "$root/run"
	mount --bind -o ro "$goroot" "$root/usr/local/go"
	mount -t overlay overlay -o "lowerdir=$modules,upperdir=$work/modules/upper,workdir=$work/modules/work" "$root/root/go/pkg/mod"
	mount -t overlay overlay -o "lowerdir=$builds,upperdir=$work/builds/upper,workdir=$work/builds/work" "$root/root/.cache/go-build"
	cd "$root"
	mkdir old
	pivot_root . old # a chroot would be seen as one
	exec /usr/bin/env -i HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive GOPROXY=off GOFLAGS=-mod=readonly \
		PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		bash -c "umount -l /old && rmdir /old && cd /root/gantry && exec timeout 900 bash /root/readme.sh" </dev/null
'
