#!/usr/bin/env bash
# Installs what reads our histogram logs in tests/report.rs, pinned, below <target>/clients/.
#
# Usage: install.sh [TARGET_DIR]
set -u
here="$(cd "$(dirname "$0")" && pwd)"
target="${1:-${CARGO_TARGET_DIR:-$here/../../../target}}"
# shellcheck source=../../../services/testing/install_client.sh
. "$here/../../../services/testing/install_client.sh"

python_client hdrhistogram "hdrhistogram==0.10.8"
exit "$failed"
