#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: run.sh WORK-DIRECTORY
# Packs what is tested, boots the Debian 13 guest on it, and prints what its
# tests said in the form of "go test -json". What belongs to no test goes to
# standard error. The console of a guest that failed is kept in the cache.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
work=$1
cache=${GANTRY_TEST_CACHE:-$HOME/.cache/gantry-test}
suite=$work/suite
mkdir -p "$suite"

# Pure packages say the same on every kernel; the others need what a guest
# without a network, a Go toolchain or other tools does not have.
leave='/(image|signature|signature/sign|stage0/bundle|stage0/bundle/.*|internal/(conf|version|wire|undo)|docs/.*|cmd/.*|tests|tests/(interop|readme|services|bench|conformance|cmd/.*|built|imagetest))$'

# GANTRY_VM_ONLY names the packages of a run by a pattern, for the impatient.
only=${GANTRY_VM_ONLY:-.}

echo "vm: compiling tests" >&2
cp -r bin "$suite/bin"
module=$(go list -m)
while read -r package dir; do
	place=$suite/tests/${package#"$module"/}
	mkdir -p "$place"
	if [[ $package == */seccomp/compile ]]; then # the one package with cgo
		CGO_ENABLED=1 go test -c -trimpath -tags libseccomp,netgo,osusergo \
			-ldflags '-s -w -linkmode external -extldflags -static' -o "$place/test" "$package" >&2
	else
		CGO_ENABLED=0 go test -c -trimpath -ldflags '-s -w' -o "$place/test" "$package" >&2
	fi
	[ ! -d "$dir/testdata" ] || cp -r "$dir/testdata" "$place/"
done < <(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}' ./... |
	awk -v leave="$leave" -v only="$only" 'NF && $1 !~ leave && $1 ~ only')
if images=$("$here/../setup/images.sh"); then
	cp -r "$images" "$suite/images"
else
	echo "vm: no images of Debian packages: their tests will be skipped" >&2
fi
install -m 0755 "$here/guest-run" "$suite/run"
cp "$here/leave" "$suite/leave"

# The tests of a package come one after the other and keep one processor busy:
# two guests, each with a part of the packages, take half the time of one.
second='^(tests/(engines|oci|script)|stage1/container)$'
cd "$suite/tests"
find . -name test -type f -printf '%P\n' | sed 's|/test$||' | sort >"$work/packages"
# Time may be short: what tests the kernel comes before what only uses it.
later='^(fetch|image|internal)(/|$)|^tests/badinput$'
{
	grep -vE "$second|$later" "$work/packages" || true
	grep -E "$later" "$work/packages" || true
} >"$suite/list.first"
grep -E "$second" "$work/packages" >"$suite/list.second" || true
cd "$here/../.."

"$here/root.sh" >/dev/null
guests=()
for list in first second; do
	[ ! -s "$suite/list.$list" ] || guests+=("$list")
done
pids=()
for list in "${guests[@]}"; do
	"$here/boot.sh" "$suite" "$work/report.$list" "gantry.list=$list gantry.until=${GANTRY_VM_UNTIL:-1800}" >&2 &
	pids+=($!)
done
status=0
for i in "${!guests[@]}"; do
	wait "${pids[i]}" && continue
	status=1
	mkdir -p "$cache/vm-failed"
	cp "$work/report.${guests[i]}" "$work/report.${guests[i]}.console" "$cache/vm-failed/"
	echo "vm: kept the report and the console in $cache/vm-failed" >&2
done

# A report is one section for each package.
mkdir -p "$work/sections"
for list in "${guests[@]}"; do
	awk -v dir="$work/sections" -v list="$list" '
		/^%% package / { n++; file = sprintf("%s/%s.%03d", dir, list, n); print $3 > file; next }
		/^%% end/ { close(file); file = ""; next }
		file { print > file; next }
		{ print > "/dev/stderr" }' "$work/report.$list"
done
while read -r package pattern reason; do
	[[ $package == \#* ]] || [ ! -e "$suite/tests/$package/test" ] ||
		printf '{"Action":"output","Package":"%s","Test":"%s","Output":"%s"}\n{"Action":"skip","Package":"%s","Test":"%s"}\n' \
			"$module/$package" "$pattern" "left out of the guest: $reason" "$module/$package" "$pattern"
done <"$here/leave"
for section in "$work"/sections/*; do
	[ -e "$section" ] || continue
	package=$(head -n 1 "$section")
	tail -n +2 "$section" | go tool test2json -t -p "$module/$package"
done
exit "$status"
