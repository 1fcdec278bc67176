#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Writes the manual pages from the command tree into DIR (default docs/man),
# the comparison of options with podman's into docs/options.md,
# and the table of pod states that the code uses into docs/pod-lifecycle.md.
set -eu
cd "$(dirname "$0")/.."
go run ./docs/gen "${1:-docs/man}" docs/options.md
