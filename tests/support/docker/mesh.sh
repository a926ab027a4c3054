#!/usr/bin/env bash
# The mesh's image of this tree, as the Compose file builds it, for the tests: eventing-mesh-test/mesh. Prints its name.
# Built on $BASE_IMAGE, else on python:3.11-slim if that is here, else on what python.sh beside this file makes. Installs Debian's
# docker-compose where there is no Compose. Needs a Docker engine.
set -euo pipefail
cd "$(dirname "$0")"
export EVENTING_IMAGE=eventing-mesh-test/mesh:latest

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
compose() { if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi; }

if ! docker compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null; then
  { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker-compose; } >&2
fi
if [ -z "${BASE_IMAGE:-}" ] && ! docker image inspect python:3.11-slim >/dev/null 2>&1; then
  BASE_IMAGE=$(bash python.sh)
  export BASE_IMAGE
fi
tries=3
until compose -f ../../../deploy/compose.yaml build >&2; do
  tries=$((tries - 1)) && [ "$tries" -gt 0 ] || exit 1
  sleep 5
done
echo "$EVENTING_IMAGE"
