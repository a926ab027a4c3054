#!/bin/sh
# kafka-server-start.sh SERVER.PROPERTIES, with the variables of the distribution's own script.
home=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck disable=SC2086
exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" ${KAFKA_HEAP_OPTS:--Xmx1G -Xms1G} ${KAFKA_JVM_PERFORMANCE_OPTS:-} \
  ${KAFKA_LOG4J_OPTS:--Dlog4j.configuration=file:$home/config/log4j.properties} ${KAFKA_OPTS:-} -cp "$home/libs/*" kafka.Kafka "$@"
