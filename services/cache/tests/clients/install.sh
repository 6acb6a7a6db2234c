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

# The own tests of clients, from their source archives.
pytest=("pytest==9.2.0" "pytest-asyncio==1.5.0" "pytest-timeout==2.4.0" "packaging==26.3")
python_client redis-py-suite "redis==8.1.0" "${pytest[@]}" "PyJWT==2.15.1"
python_source redis-py-suite "redis==8.1.0"
python_client fakeredis-suite "fakeredis==2.40.0" "redis==8.1.0" "${pytest[@]}" "valkey==6.2.0" "lupa==2.8" "pytest-mock==3.17.0"
python_source fakeredis-suite "fakeredis==2.40.0"

# What people build on clients.
python_client celery "celery[redis]==5.7.0"
python_client frameworks-python "rq==2.12.0" "huey[redis]==3.5.4" "dramatiq[redis]==2.2.1" "django-redis==7.0.0" "channels-redis==4.3.0"
python_client arq "arq==0.28.0"
node_client frameworks-node "bullmq@6.7.0" "socket.io@4.8.4" "socket.io-client@4.8.4" "@socket.io/redis-adapter@8.3.0" \
    "rate-limiter-flexible@11.4.0" "redlock@4.2.0" "connect-redis@10.0.0" "express-session@1.19.0" "express@5.3.0" \
    "ioredis@5.11.1" "redis@5.12.1"
exit "$failed"
