#!/bin/sh
# Starts dockerd with its own data root and socket, touching no other Docker, its networks or the firewall.
# Containers and builds then have the host's network or none.
set -eu
work=${DOCKER_WORK:-/var/tmp/newfound-docker}
mkdir -p "$work"
cat >"$work/daemon.json" <<CONFIG
{"data-root": "$work/data", "exec-root": "$work/exec", "pidfile": "$work/docker.pid",
 "hosts": ["unix://$work/docker.sock"], "iptables": false, "bridge": "none",
 "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 4096, "Soft": 4096}}}
CONFIG
if ! [ -S "$work/docker.sock" ] || ! kill -0 "$(cat "$work/docker.pid" 2>/dev/null)" 2>/dev/null; then
  nohup setsid dockerd --config-file "$work/daemon.json" >"$work/dockerd.log" 2>&1 &
  for _ in $(seq 60); do if [ -S "$work/docker.sock" ]; then break; fi; sleep 0.5; done
  [ -S "$work/docker.sock" ] || { tail -20 "$work/dockerd.log" >&2; exit 1; }
fi
echo "export DOCKER=/usr/bin/docker DOCKER_HOST=unix://$work/docker.sock BUILD_ARGS='--network host'"
