#!/bin/sh
# newfound-base: Debian with Python 3.11, straight from Debian's packages. newfound-wheels: the folder PIP_FIND_LINKS.
# For machines that reach no container registry; needs root and debootstrap.
set -eu
docker=${DOCKER:-docker}
command -v debootstrap >/dev/null || { echo "debootstrap not found (apt-get install debootstrap)" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! $docker image inspect newfound-base:bookworm >/dev/null 2>&1; then
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$folder/root" >"$folder/log" ||
    { tail -20 "$folder/log" >&2; exit 1; }
  rm -rf "$folder"/root/var/cache/apt/* "$folder"/root/var/lib/apt/lists/*
  tar -C "$folder/root" -c . | $docker import - newfound-base:bookworm
fi
if [ -d "${PIP_FIND_LINKS:-}" ]; then tar -C "$PIP_FIND_LINKS" -c . | $docker import - newfound-wheels:latest; fi
echo "now: make images BASE_IMAGE=newfound-base:bookworm WHEELS_IMAGE=newfound-wheels:latest"
