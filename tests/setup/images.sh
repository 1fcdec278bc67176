#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes images with python3 and with redis of Debian's packages, once, and
# prints the directory of the OCI layout with both.
set -euo pipefail
# shellcheck source=debian.sh
. "$(dirname "$0")/debian.sh"
debian_set "$0"
echo "setup: making images of Debian packages (two minutes, once)" >&2

debian_root base '' &
base=$!
# A package layer that also takes away: python needs no terminal descriptions.
debian_root python python3,tzdata,locales,passwd,libcap2-bin,iputils-ping 'set -e
	chroot "$1" localedef -i de_DE -f UTF-8 de_DE.UTF-8
	chroot "$1" useradd -m -u 1234 -G audio,games app
	rm -rf "$1"/usr/share/i18n "$1"/usr/lib/terminfo "$1"/lib/terminfo' &
python=$!
debian_root redis redis-server,redis-tools 'chroot "$1" install -d -o redis -g redis /data'
wait "$base"
wait "$python"

debian_image python -env PATH=/usr/local/bin:/usr/bin:/bin,LANG=C.UTF-8 -cmd python3
debian_image redis -env PATH=/usr/local/bin:/usr/bin:/bin -user redis -workdir /data -volumes /data \
	-entrypoint redis-server -cmd '--dir /data --bind 127.0.0.1'
debian_done
