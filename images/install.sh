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
# What these extras need, at the lock's versions; what a CPU build of torch does not ask for stays out. Then each file is
# held against the lock's digests. Compiled here, as the root file system is read-only later.
# shellcheck disable=SC2086
uv pip compile --quiet --python /opt/venv/bin/python --no-annotate --no-header --find-links /wheels \
  --constraint requirements.lock pyproject.toml $extras -o /tmp/resolved.txt > /dev/null
python3 locked.py requirements.lock --wheels /wheels --only /tmp/resolved.txt > /tmp/locked.txt
uv pip sync --python /opt/venv/bin/python --link-mode copy --compile-bytecode --no-progress \
  --find-links /wheels --require-hashes /tmp/locked.txt

mkdir -p /opt/sbom
cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible --of JSON \
  -o "/opt/sbom/$name.cdx.json" /opt/venv/bin/python
