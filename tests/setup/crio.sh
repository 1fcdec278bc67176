#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: crio.sh
# Builds CRI-O, which Debian has not, into the cache, where the tests find it.
# It takes five minutes on two cores, so it is not part of make test: without it
# its test says that it is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=apt.sh
. "$here/apt.sh"
version=v1.34.0
dir=${GANTRY_TEST_CACHE:-$HOME/.cache/gantry-test}/crio-$version
[ ! -x "$dir/crio" ] || exit 0
apt_need gcc libc6-dev libseccomp-dev pkg-config conmon skopeo
work=$(mktemp -d "${TMPDIR:-/var/tmp}/gantry-crio.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
cd "$work"
go mod init crio >/dev/null 2>&1
GOFLAGS='' go mod download "github.com/cri-o/cri-o@$version"
cp -r "$(go env GOMODCACHE)/github.com/cri-o/cri-o@$version" src
chmod -R u+w src
cd src
tags='containers_image_openpgp containers_image_ostree_stub exclude_graphdriver_btrfs exclude_graphdriver_devicemapper seccomp'
GOFLAGS=-mod=mod CGO_ENABLED=1 go build -trimpath -tags "$tags" -o "$work/crio" ./cmd/crio
gcc -O2 -o "$work/pinns" pinns/src/*.c
mkdir -p "$dir"
cp "$work/pinns" "$work/crio" "$dir/"
