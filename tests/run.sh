#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: run.sh [TIER…]
# Runs the tiers of the test suite in order, all of them by default, each within
# a budget of time; installs what a tier needs; ends with every skip and its
# reason, every failure, and the counts. docs/devel/testing.md explains them.
set -uo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=setup/apt.sh
. tests/setup/apt.sh
# shellcheck source=setup/tools.sh
. tests/setup/tools.sh

tiers=("$@")
((${#tiers[@]})) || tiers=(check unit script functional services hostile interop networks engines readme vm)

export GOFLAGS=-mod=readonly GOTOOLCHAIN=local GOMAXPROCS=${GOMAXPROCS:-$(nproc)}
export PATH=$cache/bin:$PATH
# Test data belongs to a file system of its own kind, not to a tmpfs.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/gantry-test.XXXXXX")
export TMPDIR=$work/tmp RECORD=$work/record
chmod 0711 "$work" # some programs run as ordinary users
mkdir -p "$TMPDIR" && : >"$RECORD"
trap 'chmod -R u+rwX "$work" 2>/dev/null; rm -rf -- "$work"' EXIT
began=$(date +%s)

report() { "$work/report" -tier "$tier" -record "$RECORD" "$@"; }

# step NAME COMMAND… runs a command and records how it ended.
step() {
	local name=$1 began status=0
	shift
	began=$SECONDS
	"$@" </dev/null || status=$?
	if [ "$status" = 0 ]; then
		echo "ok    $name ($((SECONDS - began)) s)"
		report -step "$name"
	else
		echo "FAIL  $name ($((SECONDS - began)) s): exit $status: $*"
		report -step "$name" -result fail -reason "exit $status"
	fi
	return "$status"
}

# skip NAME REASON records that something was not tested.
skip() {
	echo "skip  $1: $2"
	report -step "$1" -result skip -reason "$2"
}

# go_test MINUTES ARGUMENT… runs Go tests and records each result.
go_test() {
	local minutes=$1
	shift
	go test -json -timeout "${minutes}m" "$@" </dev/null 2>&1 | report
	ended "go test" "${PIPESTATUS[@]}"
}

# ended WHAT STATUS STATUS looks at both ends of a pipe into report: results
# that never arrived are a failure, not a silence.
ended() {
	if [ "$3" -gt 1 ] || { [ "$2" != 0 ] && [ "$3" = 0 ]; }; then
		echo "FAIL  $1 ended with status $2, its report with $3"
		report -step "$1" -result fail -reason "it ended with status $2, its report with $3"
	fi
}

# Packages whose tests are tiers of their own.
own='/tests/(script|functional|services|hostile|interop|networks|engines|readme)$'

tier_check() {
	tools_lint || { skip linters "the linters could not be built"; return; }
	step "go vet" go vet -tags libseccomp ./...
	step "golangci-lint" golangci-lint run --timeout 15m
	step "shell syntax" bash -c 'for f in $(find tests docs .ci -name "*.sh") .ci/run; do bash -n "$f" || exit 1; done'
	check_vulnerabilities
}

# The database is on the network: not reaching it is neither good nor bad news.
check_vulnerabilities() {
	local out=$work/govulncheck status=0
	govulncheck ./... >"$out" 2>&1 </dev/null || status=$?
	if [ "$status" != 0 ] && grep -qiE 'dial tcp|no such host|lookup|timeout|connection refused|unexpected status|403|404|proxyconnect|EOF' "$out" && ! grep -q '^Vulnerability' "$out"; then
		skip govulncheck "its database could not be reached: known vulnerabilities were NOT checked"
		return
	fi
	[ "$status" = 0 ] || cat "$out"
	step govulncheck test "$status" = 0
}

tier_unit() {
	local race
	mapfile -t race < <(go list ./image ./image/store ./signature/... ./stage0/bundle ./internal/...)
	# The race detector needs cgo; the other packages touch the kernel and run
	# as they are built.
	CGO_ENABLED=1 go_test 15 -race "${race[@]}"
	mapfile -t rest < <(go list ./... | grep -vE "$own" | grep -vxFf <(printf '%s\n' "${race[@]}"))
	go_test 20 -p 1 -tags libseccomp "${rest[@]}"
}

tier_script() { go_test 15 ./tests/script; }

tier_functional() {
	GANTRY_TEST_IMAGES=$(tests/setup/images.sh) || skip "Debian's images" "they could not be made"
	export GANTRY_TEST_IMAGES
	go_test 15 ./tests/functional
}

tier_services() {
	apt_need wrk || skip services "some packages could not be installed"
	GANTRY_TEST_SERVICES=$(tests/setup/services.sh) || skip "images of servers" "they could not be made"
	export GANTRY_TEST_SERVICES
	go_test 20 ./tests/services
}

tier_hostile() { go_test 15 ./tests/hostile; }

tier_interop() {
	apt_need skopeo umoci || skip interop "skopeo and umoci could not be installed"
	tools_interop || skip cosign "cosign could not be built"
	go_test 15 ./tests/interop
}

tier_networks() {
	tools_networks || skip "CNI plugins" "they could not be installed or built"
	go_test 10 ./tests/networks
}

tier_engines() {
	tools_engines || skip engines "some packages could not be installed"
	go_test 20 ./tests/engines
}

tier_readme() {
	if [ "$(id -u)" != 0 ]; then
		skip README "ability missing: root"
	elif ! apt_need mmdebstrap; then
		skip README "ability missing: mmdebstrap"
	else
		step README tests/readme/run.sh
	fi
}

tier_vm() {
	if ! apt_need mmdebstrap qemu-system-x86 e2fsprogs; then
		skip "Debian 13" "ability missing: qemu or mmdebstrap"
		return
	fi
	tests/vm/run.sh "$work/vm" | report
	ended "Debian 13" "${PIPESTATUS[@]}"
}

prepare() {
	tier=setup
	CGO_ENABLED=0 go build -o "$work/report" ./tests/cmd/report || exit 1
	apt_need gcc libc6-dev pkg-config libseccomp-dev busybox-static nftables iproute2 passt uidmap bash-completion zsh fish || skip packages "some could not be installed"
	step build make -s build test-programs || finish
	export GANTRY_TEST_BIN=$PWD/bin
}

finish() {
	echo
	echo "test: ${tiers[*]}: $(($(date +%s) - began)) s"
	"$work/report" -record "$RECORD" -close
	exit
}

prepare
for tier in "${tiers[@]}"; do
	if ! declare -F "tier_$tier" >/dev/null; then
		echo "run.sh: no tier $tier" >&2
		exit 2
	fi
	echo
	echo "== $tier"
	started=$SECONDS
	"tier_$tier"
	echo "== $tier: $((SECONDS - started)) s"
done
finish
