#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The main path, shown: a signed image is fetched from a registry, verified and
# run; an unsigned and a tampered one are refused; nothing is left. Everything
# lives in a directory of its own and is removed at the end, also after ^C.
# Called by `make demo`, which built bin/ first.
set -eu
bin=$(cd "$(dirname "$0")/../bin" && pwd)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/gantry-demo.XXXXXX")
registry= pod=

cleanup() {
	status=$?
	trap - EXIT INT TERM
	[ -z "$pod" ] || gantry rm --force "$pod" >/dev/null 2>&1 || echo "could not remove pod $pod" >&2
	[ -z "$registry" ] || kill "$registry" 2>/dev/null || echo "the registry had already ended" >&2
	rm -rf "$work" "$GANTRY_RUN_DIR"
	exit "$status"
}
export GANTRY_DIR="$work/lib" GANTRY_RUN_DIR="/run/gantry-demo-$$" GANTRY_CONFIG_PATH="$work/etc"
export COSIGN_PASSWORD= PATH="$bin:$bin/tests:$PATH"
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }
refused() {
	printf '$ %s\n' "$*"
	if "$@"; then echo "demo: this should have been refused" >&2; exit 1; fi
}
# A free port of the loopback interface, for the app on the host's network.
freeport() { "$bin/tests/freeport"; }

mkdir -p "$work/etc/trust.d"
say "a registry on loopback, and an image: a small static web server"
registry --addr 127.0.0.1:0 --portfile "$work/port" --referrers >"$work/registry.log" 2>&1 &
registry=$!
i=0
while [ ! -s "$work/port" ]; do
	i=$((i + 1))
	[ $i -le 100 ] || { echo "demo: the registry did not start:" >&2; cat "$work/registry.log" >&2; exit 1; }
	sleep 0.05
done
image="127.0.0.1:$(cat "$work/port")/acme/web:1"
show mkimage web "oci:$work/web:1"
show mkimage --push web "$image"

say "nobody is trusted yet, so nothing runs"
refused gantry run --net=host "$image"

say "a key pair, a signature, a rule"
show gantry trust keygen --output "$work/acme"
show gantry sign --key "$work/acme.key" "$image"
show gantry trust add --prefix "${image%:*}" "$work/acme.pub"
show gantry trust ls

say "fetch, verify, run"
show gantry fetch "$image"
port=$(freeport)
show gantry run -d --name demo --net=host --memory 64m --env "PORT=$port" "$image" >"$work/uuid"
pod=$(tail -n 1 "$work/uuid")
cat "$work/uuid"
show webget "http://127.0.0.1:$port/"
show gantry list
show gantry ps demo
show gantry stop demo
show gantry logs demo
show gantry rm demo
pod=

say "an unsigned image is refused"
refused gantry run "oci:$work/web:1"

say "one flipped byte on the disk, and the image is refused"
tree=$(find "$GANTRY_DIR/trees/layers" -name "*.data" -size +64k | head -n 1)
flipbyte "$tree"
refused gantry run --net=host "$image"

say "the key is taken away, the image is refused, offline"
show gantry image rm "$image"
show gantry fetch "$image"
kill "$registry"
registry=
show gantry trust rm --prefix "${image%:*}"
refused gantry run --net=host "$image"

say "nothing is left"
show gantry list --all
