#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes archives of small Debian roots with python3 and with redis, once, in the
# cache, and prints their directory. They become images of several layers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=apt.sh
. "$here/apt.sh"
cache=${GANTRY_TEST_CACHE:-$HOME/.cache/gantry-test}
mkdir -p "$cache/images"
exec 9>"$cache/images/lock"
flock 9

root() {
	local name=$1 include=$2 out=$cache/images/$1.tar
	[ ! -e "$out" ] || return 0
	apt_need mmdebstrap debian-archive-keyring >&2
	echo "setup: making an image root with $include (half a minute, once)" >&2
	local options
	mapfile -t options < <(apt_options)
	mmdebstrap --quiet --format=tar --variant=essential "${options[@]}" --include="$include" \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/*' \
		bookworm "$out.part" "$(apt_mirror)" >&2
	mv "$out.part" "$out"
}
root python3 python3
root redis redis-server,redis-tools
echo "$cache/images"
