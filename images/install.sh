#!/bin/sh
# install.sh NAME EXTRA...: the locked packages of some extras into /opt/venv, and the bill of what is in there.
# pip's configuration and the authorities' certificates come as secrets, and wheels from /wheels, where they are given.
set -eu
name=$1
shift

ca=/run/secrets/ca
if [ -s "$ca" ]; then export SSL_CERT_FILE="$ca" PIP_CERT="$ca"; fi
if index=$(pip config get global.index-url 2>/dev/null); then export UV_DEFAULT_INDEX="$index"; fi

python3 -m venv --without-pip /opt/venv
extras=""
for extra in "$@"; do extras="$extras --extra $extra"; done
# The lock only says which versions: what a CPU build of torch does not ask for stays out. Compiled here, as the root
# file system is read-only later.
# shellcheck disable=SC2086
uv pip install --python /opt/venv/bin/python --link-mode copy --compile-bytecode --no-progress \
  --find-links /wheels --constraint requirements.lock --requirement pyproject.toml $extras

mkdir -p /opt/sbom
cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible --of JSON \
  -o "/opt/sbom/$name.cdx.json" /opt/venv/bin/python
