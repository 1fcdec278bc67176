#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the peers, builds, and measures: tests/bench/run.sh [FLAGS of bench].
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=../setup/apt.sh
. tests/setup/apt.sh
apt_need crun runc podman skopeo umoci busybox-static strace linux-perf netavark iproute2 iperf3 || echo "bench: some peers could not be installed: their rows will say so" >&2
make -s build test-programs
CGO_ENABLED=0 go build -o bin/tests/bench ./tests/bench
export TMPDIR=${TMPDIR:-/var/tmp}
# Networks are set up and taken away in a network namespace of the bench's own,
# whose one link to elsewhere is a veth.
#
# Beside nine v1 hierarchies crun does not work with a tenth of version 2, so on
# a hybrid host everybody is measured without it, in a mount namespace of its own.
exec unshare --mount --net --propagation private bash -c '
	ip link set lo up
	! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified
	exec bin/tests/bench "$@"' bench "$@"
