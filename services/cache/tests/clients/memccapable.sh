#!/usr/bin/env bash
# memccapable, libmemcached's test of servers: everything it knows of the text protocol.
#
#     memccapable.sh HOST:PORT
set -u
host="${1%:*}" port="${1##*:}"
out="$(timeout 60 memccapable -h "$host" -p "$port" -a -t 10 2>&1)"
code=$?
# One line a test, each ends with [pass] or [FAIL].
if [ $code -ne 0 ] || grep -qi 'fail\]' <<<"$out" || ! grep -q 'pass\]' <<<"$out"; then
    echo "memccapable: exit code $code" >&2
    echo "$out" >&2
    exit 1
fi
echo "memccapable, $(grep -c 'pass\]' <<<"$out") tests: ok"
