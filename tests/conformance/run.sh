#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the peers, builds runtime-tools' validation programs once, and runs
# them against gantry-oci, runc and crun: tests/conformance/run.sh [FLAGS].
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=../setup/apt.sh
. tests/setup/apt.sh
# shellcheck source=../setup/tools.sh
. tests/setup/tools.sh
apt_need runc crun
tools_conformance
make -s build
CGO_ENABLED=0 go build -o bin/tests/conformance ./tests/conformance
export TMPDIR=${TMPDIR:-/var/tmp}
# As in the bench: beside nine v1 hierarchies crun does not work with a tenth of
# version 2, so everybody is run without it, in a mount namespace of its own.
exec unshare --mount --propagation private bash -c '
	! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified
	exec bin/tests/conformance "$@" bin/gantry-oci runc crun' conformance -suite "$conformance_suite" "$@"
