#!/usr/bin/env bash
# Installs the live clients that live_clients.rs runs, each pinned, below <target>/clients/.
#
# Usage: install.sh [TARGET_DIR]
# Idempotent: what is present is left alone. A client that cannot be installed is
# reported and the others go on; live_clients.rs then prints it as skipped.
set -u
here="$(cd "$(dirname "$0")" && pwd)"
target="${1:-${CARGO_TARGET_DIR:-$here/../../../../target}}"
mkdir -p "$target/clients"
cd "$target/clients" || exit 1
failed=0

# Several test binaries may call this at once; the second one waits and finds the work done.
exec 9>.lock
flock 9 2>/dev/null || true

python_client() { # directory, requirement
    local dir="$1" requirement="$2"
    [ -f "$dir/.installed-$requirement" ] && return
    rm -rf "$dir"
    if python3 -m venv "$dir" && "$dir/bin/pip" install --quiet --disable-pip-version-check "$requirement"; then
        touch "$dir/.installed-$requirement"
    else
        echo "install.sh: $requirement could not be installed" >&2
        rm -rf "$dir"
        failed=1
    fi
}

node_client() { # directory, package@version
    local dir="$1" package="$2"
    local mark="$dir/.installed-${package//\//_}"
    [ -f "$mark" ] && return
    rm -rf "$dir"
    mkdir -p "$dir"
    echo '{"name":"live-client","private":true}' >"$dir/package.json"
    if (cd "$dir" && npm install --silent --no-audit --no-fund "$package"); then
        touch "$mark"
    else
        echo "install.sh: $package could not be installed" >&2
        rm -rf "$dir"
        failed=1
    fi
}

python_client redis-py-5 "redis==5.3.1"
python_client redis-py-8 "redis==8.1.0"
node_client ioredis "ioredis@5.11.1"
node_client node-redis "redis@5.12.1"
exit "$failed"
