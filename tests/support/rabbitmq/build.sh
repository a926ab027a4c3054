#!/usr/bin/env bash
# A RabbitMQ broker for the tests, from Debian's package. MAJOR is 3, which is Debian 12's 3.10, or 4, which is Debian 13's 4.0.
#   bash tests/support/rabbitmq/build.sh home            installs the program of this machine's Debian, if none is here; as root
#   bash tests/support/rabbitmq/build.sh image MAJOR     as an image: eventing-mesh-test/rabbitmq:VERSION; needs a Docker engine, and root
#   bash tests/support/rabbitmq/build.sh where MAJOR     builds nothing, prints where the program of this version is, an empty line where
#                                                        there is another or none, and the name of the image
set -euo pipefail
cd "$(dirname "$0")"
STAMP=$(cat Dockerfile docker/run | sha256sum | cut -c 1-12)
PROGRAM=/usr/lib/rabbitmq/bin # not the one on PATH, which is for root and the account rabbitmq only
MAJOR=${2:-}
case "$MAJOR" in
  3) VERSION=3.10.8 SUITE=bookworm ;;
  4) VERSION=4.0.5 SUITE=trixie ;;
  *) VERSION='' SUITE='' ;;
esac
IMAGE=eventing-mesh-test/rabbitmq:$VERSION

usage() { sed -n '2,6p' build.sh >&2; exit 2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

home() {
  [ ! -x "$PROGRAM/rabbitmq-server" ] || return 0
  command -v apt-get >/dev/null || { echo "RabbitMQ is not here, and no apt-get to install it with" >&2; return 1; }
  local tries=3 policy=/usr/sbin/policy-rc.d
  # Nobody here needs it as a service.
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod +x "$policy" && trap "as_root rm $policy" EXIT; }
  until as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rabbitmq-server >/dev/null; do
    tries=$((tries - 1)) && [ "$tries" -gt 0 ] || return 1
    sleep 5
  done
}

image() {
  [ "$(docker image inspect --format '{{index .Config.Labels "stamp"}}' "$IMAGE" 2>/dev/null)" != "$STAMP" ] || return 0
  local base tries=3
  base=$(bash ../docker/debian.sh "$SUITE")
  echo "building $IMAGE" >&2
  until DOCKER_BUILDKIT=0 docker build --quiet --network host --build-arg "BASE=$base" --label "stamp=$STAMP" --tag "$IMAGE" . >&2; do
    tries=$((tries - 1)) && [ "$tries" -gt 0 ] || return 1
    sleep 5
  done
}

# The folder of the installed program, if it is of this version: its plugins have the version in their names.
installed() {
  local found
  # As the official image and other systems have it.
  [ -x "$PROGRAM/rabbitmq-server" ] || ! found=$(command -v rabbitmq-server) || PROGRAM=$(dirname "$(readlink -f "$found")")
  found=$(readlink -f "$PROGRAM/rabbitmq-server") || return 0
  ! compgen -G "$(dirname "$found")/../plugins/rabbit-$MAJOR.*" >/dev/null || echo "$PROGRAM"
}

case "${1:-}" in
  home) home && echo "$PROGRAM" ;;
  image) [ -n "$VERSION" ] || usage; image && echo "$IMAGE" ;;
  where) [ -n "$VERSION" ] || usage; echo "$(installed)" && echo "$IMAGE" ;;
  *) usage ;;
esac
