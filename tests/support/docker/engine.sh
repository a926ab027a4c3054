#!/usr/bin/env bash
# A Docker engine for the tests, where none runs. As root:
#   bash tests/support/docker/engine.sh start    installs Debian's docker.io if there is no dockerd, and starts it
#   bash tests/support/docker/engine.sh stop     ends what `start` has started, with all its containers
# Where an engine answers already (Docker Desktop, a service of the machine), `start` leaves everything as it is.
set -euo pipefail
OURS=/run/eventing-mesh-dockerd.pid
LOG=/var/log/eventing-mesh-dockerd.log

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
answers() { docker version --format '{{.Server.Version}}' 2>/dev/null; }
runs() { [ -s "$OURS" ] && [ "$(cat "/proc/$(cat "$OURS")/comm" 2>/dev/null)" = dockerd ]; }

install() {
  command -v apt-get >/dev/null || { echo "there is no dockerd here, and no apt-get to install docker.io with" >&2; return 1; }
  local tries=3
  until as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io >/dev/null; do
    tries=$((tries - 1)) && [ "$tries" -gt 0 ] || return 1
    sleep 5
  done
}

start() {
  local version
  ! version=$(answers) || { echo "the Docker engine that runs here: $version"; return 0; }
  [ -z "${DOCKER_HOST:-}" ] || { echo "\$DOCKER_HOST names $DOCKER_HOST, which does not answer" >&2; return 1; }
  [ -x /usr/sbin/dockerd ] || command -v dockerd >/dev/null || install
  # What a dockerd that was killed has left: it would take the numbers of dead processes for living ones.
  # Its network namespaces are still mounted there, and a mounted one cannot be removed.
  pgrep -x dockerd >/dev/null || {
    as_root sh -c 'umount /run/docker/netns/* 2>/dev/null' || true
    as_root rm -rf /run/docker /run/docker.pid /run/docker.sock "$OURS" || true
  }
  as_root sh -c "PATH=\$PATH:/usr/sbin:/sbin exec setsid dockerd --pidfile $OURS </dev/null >>$LOG 2>&1 &"
  for _ in $(seq 120); do
    if version=$(answers); then
      echo "a Docker engine was started: $version"
      # Containers of test runs that were ended together with an engine before this one.
      docker container prune --force --filter label=org.testcontainers >/dev/null
      return 0
    fi
    sleep 0.25
  done
  echo "dockerd did not come up within 30 s; the end of $LOG:" >&2
  as_root tail -n 20 "$LOG" >&2
  return 1
}

stop() {
  runs || return 0
  local pid
  pid=$(cat "$OURS")
  as_root kill "$pid"
  for _ in $(seq 120); do
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || return 0
    sleep 0.25
  done
  as_root kill -9 "$pid"
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  *) sed -n '2,5p' "$0" >&2; exit 2 ;;
esac
