# SPDX-License-Identifier: Apache-2.0
# Sourced. Makes images of Debian packages: a base layer they share, and a layer
# of what the packages changed. Each set of images is one OCI layout in the cache,
# named after a hash of its recipe. They are signed by nobody.
# shellcheck shell=bash

debian_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=apt.sh
. "$debian_here/apt.sh"
debian_cache=${GANTRY_TEST_CACHE:-$HOME/.cache/gantry-test}/images

# debian_set RECIPE… finds the set made by these files, and prints its directory
# and ends if it is there. Else it sets work and out: the recipe makes
# $work/layout and calls debian_done.
debian_set() {
	local key
	key=$(cat "$@" "$debian_here/debian.sh" "$debian_here"/../imagetest/diff.go | sha256sum | cut -c1-16)
	out=$debian_cache/$key
	mkdir -p "$debian_cache"
	exec 9>"$debian_cache/lock"
	[ -e "$out/index.json" ] || flock 9
	if [ -e "$out/index.json" ]; then
		echo "$out"
		exit
	fi
	apt_need mmdebstrap debian-archive-keyring >&2
	work=$(mktemp -d "$debian_cache/build.XXXXXX")
	trap 'rm -rf -- "$work"' EXIT
	mapfile -t options < <(apt_options)
	mirror=$(apt_mirror)
	# Roots made at different times differ only in what their packages do.
	export SOURCE_DATE_EPOCH=1700000000
}

debian_done() {
	mv "$work/layout" "$out"
	echo "$out"
}

# debian_root NAME PACKAGES [HOOK] makes $work/NAME.tar.
debian_root() {
	mmdebstrap --quiet --format=tar --variant=essential "${options[@]}" ${2:+--include="$2"} \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --customize-hook="${3:-true}" \
		--customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*.log "$1"/var/log/apt' \
		bookworm "$work/$1.tar" "$mirror" >&2
}

# debian_image NAME FLAG… makes an image of $work/NAME.tar on $work/base.tar.
debian_image() {
	local name=$1
	shift
	(cd "$debian_here/../.." && go run ./tests/cmd/mkimage -base "$work/base.tar" "$@" \
		"tar=$work/$name.tar" "oci:$work/layout:$name" >&2)
}
