#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: boot.sh SUITE-DIRECTORY REPORT-FILE [WORDS]
# Boots the Debian 13 guest on a throw-away copy of its root, with the suite
# directory as a second, read-only drive whose ./run is executed by a systemd
# unit, and collects what it prints. The suite finds WORDS on the kernel's
# command line. Succeeds if the suite said "exit 0". A boot that panics is
# repeated: QEMU's emulation does so now and then.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../setup/apt.sh
. "$here/../setup/apt.sh"

suite=$1 report=$2 words=${3:-}
limit=${GANTRY_VM_SECONDS:-3000}
apt_need qemu-system-x86 e2fsprogs >&2
guest=$("$here/root.sh")

work=$(mktemp -d "${TMPDIR:-/var/tmp}/gantry-vm.XXXXXX")
trap 'rm -rf -- "$work"' EXIT

megabytes=$(($(du -sm --apparent-size "$suite" | cut -f1) * 5 / 4 + 64))
truncate -s "${megabytes}M" "$work/suite.ext4"
mkfs.ext4 -q -L suite -O ^has_journal -E root_owner=0:0 -d "$suite" "$work/suite.ext4"

# Emulation everywhere, so that every run tests the same processor: /dev/kvm
# may be there and not work. GANTRY_VM_ACCEL=kvm is for those whose does.
accel=${GANTRY_VM_ACCEL:-tcg,thread=multi}
cpu=max,cx16=off
[ "$accel" = kvm ] && cpu=host

boot() {
	: >"$report"
	timeout --foreground --kill-after=10 "$limit" qemu-system-x86_64 \
		-nodefaults -no-reboot -nographic -accel "$accel" -cpu "$cpu" -smp 2 -m 2G \
		-kernel "$guest/vmlinuz" -initrd "$guest/initrd" \
		-append 'root=LABEL=root rw console=ttyS0 quiet panic=-1 systemd.show_status=false net.ifnames=0 lsm=landlock,lockdown,yama,integrity,apparmor,bpf'" $words" \
		-drive "file=$guest/root.ext4,format=raw,if=virtio,snapshot=on,cache=unsafe" \
		-drive "file=$work/suite.ext4,format=raw,if=virtio,read-only=on" \
		-device virtio-serial-pci -chardev "file,id=report,path=$report" \
		-device virtserialport,chardev=report,name=report \
		-device virtio-rng-pci \
		-serial "file:$report.console" </dev/null
}

for try in 1 2 3; do
	status=0
	began=$(date +%s)
	boot || status=$?
	echo "vm: boot $try ($accel) ended after $(($(date +%s) - began)) s" >&2
	if grep -q '^suite: exit [0-9]' "$report"; then
		break
	fi
	if [ "$status" = 124 ]; then
		echo "vm: stopped after $limit s without an end of the report" >&2
		break
	fi
	if ! grep -qE 'Kernel panic|BUG:|general protection' "$report.console"; then
		break
	fi
	echo "vm: the guest's kernel panicked, booting again" >&2
done
last=$(sed -nE 's/^suite: exit ([0-9]+)\r?$/\1/p' "$report" | tail -n 1)
if [ "$last" != 0 ]; then
	echo "vm: no success (suite: ${last:-no end}, qemu: $status); console: $report.console" >&2
	tail -n 40 "$report.console" >&2
	exit 1
fi
