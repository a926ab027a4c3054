#!/usr/bin/env bash
# The image `eventing-mesh-test/debian:SUITE`, made of Debian's packages, for machines that reach no registry of images.
# Prints its name. It is what `debian:SUITE-slim` is elsewhere: build other images FROM it. Needs a Docker engine, apt and root.
set -euo pipefail
SUITE=${1:-bookworm}
NAME=eventing-mesh-test/debian:$SUITE

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

if ! docker image inspect "$NAME" >/dev/null 2>&1; then
  work=$(mktemp -d)
  trap 'as_root rm -rf "$work"' EXIT
  if ! command -v mmdebstrap >/dev/null; then
    { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap; } >&2
  fi
  # The machine's own list of sources, if it is of the same suite: it may name a mirror.
  sources=()
  if grep -qs "$SUITE" /etc/apt/sources.list /etc/apt/sources.list.d/*; then
    for each in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
      ! grep -qs "$SUITE" "$each" || sources+=("$each")
    done
  fi
  tries=3
  until as_root mmdebstrap --quiet --variant=apt --mode=root --aptopt='Acquire::Check-Valid-Until "false"' \
    --aptopt='Acquire::Retries "3"' "$SUITE" "$work/root.tar" ${sources[@]+"${sources[@]}"} >&2; do
    tries=$((tries - 1)) && [ "$tries" -gt 0 ] || exit 1
    sleep 5
  done
  docker import --change 'CMD ["bash"]' "$work/root.tar" "$NAME" >/dev/null
fi
echo "$NAME"
