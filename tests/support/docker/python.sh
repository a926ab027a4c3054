#!/usr/bin/env bash
# The image `eventing-mesh-test/python:3.11`, for machines that reach no registry of images: what `python:3.11-slim` is elsewhere, made of
# Debian's packages. Prints its name. It trusts the authorities that this machine trusts, where a proxy has one of its own.
# Needs a Docker engine, apt and root.
set -euo pipefail
NAME=eventing-mesh-test/python:3.11
TRUST=/etc/ssl/certs/ca-certificates.crt
here=$(cd "$(dirname "$0")" && pwd)

if ! docker image inspect "$NAME" >/dev/null 2>&1; then
  base=$(bash "$here/debian.sh" bookworm)
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  cat >"$work/Dockerfile" <<DOCKERFILE
FROM $base
RUN apt-get -o Acquire::Retries=3 update -qq \\
 && DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install -y -qq --no-install-recommends \\
    ca-certificates python3 python3-venv >/dev/null \\
 && rm -rf /var/lib/apt/lists/*
DOCKERFILE
  if [ -s "$TRUST" ]; then
    cp "$TRUST" "$work/trust.crt"
    echo "COPY trust.crt $TRUST" >>"$work/Dockerfile"
  fi
  tries=3
  until DOCKER_BUILDKIT=0 docker build --quiet --network host --tag "$NAME" "$work" >&2; do
    tries=$((tries - 1)) && [ "$tries" -gt 0 ] || exit 1
    sleep 5
  done
fi
echo "$NAME"
