#!/usr/bin/env bash
# Installs the live clients that live_clients.rs runs, each pinned, below <target>/clients/.
#
# Usage: install.sh [TARGET_DIR]
set -u
here="$(cd "$(dirname "$0")" && pwd)"
target="${1:-${CARGO_TARGET_DIR:-$here/../../../../target}}"
# shellcheck source=../../../testing/install_client.sh
. "$here/../../../testing/install_client.sh"

kafka_python="kafka-python==3.0.12"
# crc32c and the codecs are optional to it.
kafka_python_needs=(crc32c lz4 python-snappy zstandard)

python_client confluent-kafka "confluent-kafka==2.16.1"
python_client kafka-python "$kafka_python" "${kafka_python_needs[@]}"
python_client aiokafka "aiokafka==0.14.0" "cramjam"
node_client kafkajs "kafkajs@2.2.4" "kafkajs-snappy@1.1.0"
rust_client rdkafka "$here/rdkafka"

# kafka-python's own tests, which its source archive brings along.
python_client kafka-python-suite "$kafka_python" "${kafka_python_needs[@]}" \
    "pytest==9.2.0" "pytest-timeout==2.4.0" "py==1.11.0"
python_source kafka-python-suite "$kafka_python"
exit "$failed"
