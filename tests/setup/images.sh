#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes images with python3 and with redis of Debian's packages, once, and
# prints the directory of the OCI layout with both: a base layer they share, and
# a layer of what the packages changed. The layout is named after a hash of this
# recipe. It is signed by nobody.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=apt.sh
. "$here/apt.sh"
cache=${GANTRY_TEST_CACHE:-$HOME/.cache/gantry-test}
key=$(cat "$here/images.sh" "$here"/../imagetest/diff.go | sha256sum | cut -c1-16)
out=$cache/images/$key
if [ -e "$out/index.json" ]; then
	echo "$out"
	exit
fi

mkdir -p "$cache/images"
exec 9>"$cache/images/lock"
flock 9
if [ -e "$out/index.json" ]; then
	echo "$out"
	exit
fi
apt_need mmdebstrap debian-archive-keyring >&2
echo "setup: making images of Debian packages (two minutes, once)" >&2
work=$(mktemp -d "$cache/images/build.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
mapfile -t options < <(apt_options)
mirror=$(apt_mirror)
# Two roots made at different times differ only in what their packages do.
export SOURCE_DATE_EPOCH=1700000000

# root NAME PACKAGES [HOOK]
root() {
	mmdebstrap --quiet --format=tar --variant=essential "${options[@]}" ${2:+--include="$2"} \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --customize-hook="${3:-true}" \
		--customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*' \
		bookworm "$work/$1.tar" "$mirror" >&2
}
root base '' &
base=$!
# A package layer that also takes away: python needs no terminal descriptions.
root python python3,tzdata,locales,passwd,libcap2-bin,iputils-ping 'set -e
	chroot "$1" localedef -i de_DE -f UTF-8 de_DE.UTF-8
	chroot "$1" useradd -m -u 1234 -G audio,games app
	rm -rf "$1"/usr/share/i18n "$1"/usr/lib/terminfo "$1"/lib/terminfo' &
python=$!
root redis redis-server,redis-tools 'chroot "$1" install -d -o redis -g redis /data'
wait "$base"
wait "$python"

mkimage() { (cd "$here/../.." && go run ./tests/cmd/mkimage "$@" >&2); }
mkimage -base "$work/base.tar" -env PATH=/usr/local/bin:/usr/bin:/bin,LANG=C.UTF-8 -cmd python3 \
	"tar=$work/python.tar" "oci:$work/layout:python"
mkimage -base "$work/base.tar" -env PATH=/usr/local/bin:/usr/bin:/bin -user redis -workdir /data -volumes /data \
	-entrypoint redis-server -cmd '--dir /data --bind 127.0.0.1' "tar=$work/redis.tar" "oci:$work/layout:redis"
mv "$work/layout" "$out"
echo "$out"
