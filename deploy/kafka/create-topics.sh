#!/usr/bin/env bash
# Makes the topics that are missing, configured as docs/security.md says. Needs Kafka's own kafka-topics.sh.
#   BOOTSTRAP_SERVERS=kafka:9092 PARTITIONS=6 REPLICATION=3 COMMAND_CONFIG=admin.properties create-topics.sh
set -euo pipefail

kafka_topics=${KAFKA_HOME:-/opt/kafka}/bin/kafka-topics.sh
options=(--bootstrap-server "${BOOTSTRAP_SERVERS:?the brokers, host:port}" --create --if-not-exists)
options+=(--replication-factor "${REPLICATION:-1}")
if [[ -n ${COMMAND_CONFIG:-} ]]; then
    options+=(--command-config "$COMMAND_CONFIG")
fi

create() { # TOPIC PARTITIONS [CONFIG]
    "$kafka_topics" "${options[@]}" --topic "$1" --partitions "$2" ${3:+--config "$3"}
}

create flows               "${PARTITIONS:-6}" compression.type=uncompressed
create alerts              "${PARTITIONS:-6}"
create flowsentry.events   1
create flows.dead          1                  max.message.bytes=8388608
create flows.dead.replayed 1                  cleanup.policy=compact
