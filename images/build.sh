#!/bin/sh
# Builds every target of the Dockerfile, and says how large each is and how long it took.
set -eu
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
registry=${REGISTRY:-}
tag=${TAG:-0.1.0}
revision=$(git describe --always --dirty 2>/dev/null || echo unknown)
# A tag may move between two builds: every target begins with the bytes that it names now, and its label says which.
base=${BASE_IMAGE:-python:3.11-slim-bookworm}
case $base in
  *@sha256:*) ;;
  *)
    $docker pull --quiet "$base" > /dev/null 2>&1 || true  # an image that only this machine has
    pinned=$($docker image inspect --format '{{if .RepoDigests}}{{index .RepoDigests 0}}{{end}}' "$base" 2> /dev/null || true)
    base=${pinned:-$base}
    ;;
esac
set -- --build-arg BASE_IMAGE="$base" \
  --build-arg WHEELS_IMAGE="${WHEELS_IMAGE:-scratch}" --build-arg VERSION="$tag" --build-arg REVISION="$revision"
# Secrets of the build: used by its steps, kept in no layer.
pip=${PIP_CONFIG_FILE:-/etc/pip.conf}
if [ -s "$pip" ]; then set -- "$@" --secret id=pip,src="$pip"; fi
ca=${PIP_CERT:-${SSL_CERT_FILE:-}}
if [ -s "$ca" ]; then set -- "$@" --secret id=ca,src="$ca"; fi

for target in train serve monitor; do
  image="${registry}newfound-$target:$tag"
  began=$(date +%s)
  # shellcheck disable=SC2086
  DOCKER_BUILDKIT=1 $docker build "$@" ${BUILD_ARGS:-} --target "$target" --tag "$image" .
  seconds=$(($(date +%s) - began))
  bytes=$($docker image inspect --format '{{.Size}}' "$image")
  echo "$image: $((bytes / 1000000)) MB, built in $seconds s"
done
