# SPDX-License-Identifier: Apache-2.0
# Sourced. What the tests need of Debian's package manager, in three functions.
# shellcheck shell=bash

# apt_need PACKAGE… installs those that are missing. It asks dpkg first, so a
# machine that has everything is not touched and needs no network.
apt_need() {
	local missing=() p
	for p in "$@"; do
		dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
	done
	((${#missing[@]})) || return 0
	if ! command -v apt-get >/dev/null; then
		echo "setup: these Debian packages are needed, and apt-get is not here: ${missing[*]}" >&2
		return 1
	fi
	if [ "$(id -u)" != 0 ]; then
		echo "setup: install these as root first: apt-get install ${missing[*]}" >&2
		return 1
	fi
	echo "setup: apt-get install ${missing[*]}"
	if ! apt_install "${missing[@]}"; then
		apt-get -qq update && apt_install "${missing[@]}"
	fi
}

apt_install() {
	DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
		-o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 install "$@" </dev/null >/dev/null
}

# apt_mirror prints the URI this machine takes Debian itself from, so that a
# mirror or a cache an administrator chose is used for the test roots as well.
apt_mirror() {
	local uri
	uri=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
		awk '$3 == "main" && $2 !~ /-/ && $1 ~ /\/debian\/?$/ {print $1; exit}')
	if [ -z "$uri" ]; then
		echo "setup: apt is not configured with a Debian mirror here" >&2
		return 1
	fi
	echo "${uri%/}"
}

# apt_options prints mmdebstrap flags that carry over this machine's proxies.
apt_options() {
	apt-config dump 2>/dev/null |
		sed -nE 's/^(Acquire::https?::[Pp]roxy[^ ]*) "(.*)";$/--aptopt=\1 "\2"/p'
}
