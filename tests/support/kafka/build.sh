#!/usr/bin/env bash
# A Kafka broker for the tests, from Maven Central's packages (46 MB); what it has built once it keeps.
#   bash tests/support/kafka/build.sh home     as files: $XDG_CACHE_HOME/eventing-mesh/kafka-…; needs Java 17 or newer and Maven
#   bash tests/support/kafka/build.sh image    as an image: eventing-mesh-test/kafka:VERSION; needs a Docker engine too, and root
#   bash tests/support/kafka/build.sh where    builds nothing, prints where the files are or would be, and the name of the image
set -euo pipefail
cd "$(dirname "$0")"
VERSION=$(sed -n 's/^  <version>\(.*\)<\/version>/\1/p' pom.xml)
STAMP=$(find . -type f ! -name '*.py' ! -path '*/__pycache__/*' | LC_ALL=C sort | xargs cat | sha256sum | cut -c 1-12)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/eventing-mesh
BUILT=$CACHE/kafka-$VERSION-$STAMP
IMAGE=eventing-mesh-test/kafka:$VERSION
PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.8.1

home() {
  [ ! -d "$BUILT" ] || return 0
  local tries=3 part
  command -v mvn >/dev/null || { echo "Kafka is built with Maven, which is not here (Debian: apt install maven)" >&2; return 1; }
  mkdir -p "$CACHE"
  part=$(mktemp -d "$BUILT.XXXXXX")
  chmod 755 "$part"
  echo "getting Kafka $VERSION" >&2
  until mvn --quiet --batch-mode --strict-checksums "$PLUGIN:copy-dependencies" -DincludeScope=runtime "-DoutputDirectory=$part/libs" >&2; do
    tries=$((tries - 1)) && [ "$tries" -gt 0 ] || { rm -rf "$part"; return 1; }
    sleep 5
  done
  cp -R bin config docker "$part/"
  cp config/log4j.properties config/tools-log4j.properties "$part/docker/"
  # Two at the same time: the second one's is the same.
  if [ -d "$BUILT" ]; then rm -rf "$part"; else mv "$part" "$BUILT"; fi
}

image() {
  [ "$(docker image inspect --format '{{index .Config.Labels "stamp"}}' "$IMAGE" 2>/dev/null)" != "$STAMP" ] || return 0
  local base tries=3
  home
  base=$(bash ../docker/debian.sh)
  echo "building $IMAGE" >&2
  until DOCKER_BUILDKIT=0 docker build --quiet --network host --build-arg "BASE=$base" --label "stamp=$STAMP" --tag "$IMAGE" --file Dockerfile "$BUILT" >&2; do
    tries=$((tries - 1)) && [ "$tries" -gt 0 ] || return 1
    sleep 5
  done
}

case "${1:-}" in
  home) home && echo "$BUILT" ;;
  image) image && echo "$IMAGE" ;;
  where) echo "$BUILT" && echo "$IMAGE" ;;
  *) sed -n '2,5p' "$0" >&2; exit 2 ;;
esac
