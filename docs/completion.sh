#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: completion.sh GANTRY SHARE
# Writes the completion scripts of gantry to where Debian's shells look for them
# below SHARE.
set -eu
gantry=$1 share=$2
place() {
	mkdir -p "$(dirname "$share/$2")"
	"$gantry" completion "$1" >"$share/$2"
}
place bash bash-completion/completions/gantry
place zsh zsh/vendor-completions/_gantry
place fish fish/vendor_completions.d/gantry.fish
