#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes images of servers of Debian's packages, once, and prints the directory of
# the OCI layout with all of them: nginx, redis, postgresql, web (Python under
# gunicorn), node and etcd. What the packages do not bring is in services/.
set -euo pipefail
# shellcheck source=debian.sh
. "$(dirname "$0")/debian.sh"
export own=$debian_here/services
debian_set "$0" "$own"/*
echo "setup: making images of servers (four minutes, once)" >&2

put='install -D -m 0755'
roots() {
	debian_root base ''
	debian_root nginx nginx-light "$put \"\$own/nginx.conf\" \"\$1/etc/nginx/nginx.conf\"; rm -rf \"\$1\"/var/log/nginx/*"
	debian_root redis redis-server,redis-tools 'chroot "$1" install -d -o redis -g redis /data'
	debian_root web gunicorn,python3-flask "$put -m 0644 \"\$own/web.py\" \"\$1/srv/web.py\""
}
roots &
others=$!
debian_root postgresql postgresql-15 "set -e; $put \"\$own/postgresql\" \"\$1/usr/local/bin/serve\"
	rm -rf \"\$1\"/var/lib/postgresql/15 \"\$1\"/etc/postgresql/15
	chroot \"\$1\" install -d -m 0700 -o postgres -g postgres /var/lib/postgresql/data"
debian_root etcd etcd-server,etcd-client 'chroot "$1" install -d -m 0700 /data'
debian_root node nodejs "$put -m 0644 \"\$own/node.js\" \"\$1/srv/node.js\""
wait "$others"

path=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
debian_image nginx -env $path -cmd nginx -stop-signal SIGQUIT -expose 80/tcp
debian_image redis -env $path -user redis -workdir /data -volumes /data -expose 6379/tcp \
	-entrypoint redis-server -cmd '--dir /data --appendonly yes --protected-mode no'
debian_image web -env $path,PYTHONUNBUFFERED=1 -user www-data -workdir /srv -expose 8000/tcp \
	-cmd 'gunicorn --bind 0.0.0.0:8000 --worker-tmp-dir /dev/shm --workers 2 --access-logfile - web:app'
debian_image postgresql -env $path,PGDATA=/var/lib/postgresql/data,LANG=C.UTF-8 -user postgres -stop-signal SIGINT \
	-workdir /var/lib/postgresql -volumes /var/lib/postgresql/data -expose 5432/tcp -entrypoint serve
debian_image etcd -env $path,ETCDCTL_API=3 -volumes /data -workdir /data -expose 2379/tcp,2380/tcp -entrypoint 'etcd --data-dir /data'
debian_image node -env $path,NODE_ENV=production -user nobody -workdir /srv -expose 3000/tcp -cmd 'node node.js'
debian_done
