#!/bin/sh
# kafka-storage.sh format …, as the script of the same name in the distribution.
home=$(cd "$(dirname "$0")/.." && pwd)
exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
  "-Dlog4j.configuration=file:$home/config/tools-log4j.properties" -cp "$home/libs/*" kafka.tools.StorageTool "$@"
