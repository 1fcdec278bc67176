#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: fuzz.sh TIME
# Runs every fuzz target of the tree for that long, one after the other. What a
# target finds is written to its package's testdata and fails from then on.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}
status=0
while read -r dir target; do
	echo "== $dir $target"
	go test "$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" </dev/null || status=1
done < <(grep -rhoE --include='*_test.go' -H '^func Fuzz[A-Za-z0-9_]*' . |
	sed -nE 's|^(.*)/[^/]*:func (Fuzz.*)|\1 \2|p' | sort -u)
exit "$status"
