#!/usr/bin/env bash
# Installs the live clients that live_clients.rs runs, each pinned, below <target>/clients/.
#
# Usage: install.sh [TARGET_DIR]
set -u
here="$(cd "$(dirname "$0")" && pwd)"
target="${1:-${CARGO_TARGET_DIR:-$here/../../../../target}}"
# shellcheck source=../../../testing/install_client.sh
. "$here/../../../testing/install_client.sh"

python_client confluent-kafka "confluent-kafka==2.16.1"
# crc32c and the codecs are optional to the two others.
python_client kafka-python "kafka-python==3.0.12" "crc32c" "lz4" "python-snappy" "zstandard"
python_client aiokafka "aiokafka==0.14.0" "cramjam"
node_client kafkajs "kafkajs@2.2.4"
exit "$failed"
