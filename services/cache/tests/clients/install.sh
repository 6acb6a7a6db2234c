#!/usr/bin/env bash
# Installs the live clients that live_clients.rs runs, each pinned, below <target>/clients/.
#
# Usage: install.sh [TARGET_DIR]
set -u
here="$(cd "$(dirname "$0")" && pwd)"
target="${1:-${CARGO_TARGET_DIR:-$here/../../../../target}}"
# shellcheck source=../../../testing/install_client.sh
. "$here/../../../testing/install_client.sh"

python_client redis-py-5 "redis==5.3.1"
python_client redis-py-8 "redis==8.1.0"
node_client ioredis "ioredis@5.11.1"
node_client node-redis "redis@5.12.1"
pymemcache="pymemcache==4.0.0"
python_client pymemcache "$pymemcache" "pytest==8.4.2"
python_source pymemcache "$pymemcache"
exit "$failed"
