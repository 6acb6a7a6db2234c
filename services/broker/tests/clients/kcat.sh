#!/usr/bin/env bash
# kcat: metadata, every codec, keys, seeking by time, a group of three with a member killed, and an idempotent
# producer whose connections are reset. It has no administration: topics are made by asking for them.
#
# Usage: kcat.sh HOST:PORT [resets]
set -euo pipefail
servers="$1"
run="$(date +%s%N)"
scratch="$(mktemp -d)"
members=()
# shellcheck disable=SC2317
leave() {
    [ "${#members[@]}" = 0 ] || { kill -9 "${members[@]}"; wait "${members[@]}"; } 2>/dev/null || true
    rm -rf "$scratch"
}
trap leave EXIT

fail() {
    echo "$1" >&2
    exit 1
}

wait_until() { # what, command...
    local what="$1" tries=0
    shift
    until "$@"; do
        [ $((tries += 1)) -lt 300 ] || fail "$what"
        sleep 0.1
    done
}

if [ "${2:-}" = resets ]; then
    topic="kcat-resets-$run"
    seq -f '%0100.0f' 1 2000 |
        kcat -b "$servers" -P -t "$topic" -X enable.idempotence=true -X batch.num.messages=100 -X log_level=2
    kcat -b "$servers" -C -t "$topic" -e -q -X log_level=2 | cmp - <(seq -f '%0100.0f' 1 2000)
    echo "kcat: ok"
    exit
fi

kcat -b "$servers" -L -J >/dev/null
for codec in none gzip snappy lz4 zstd; do
    topic="kcat-$codec-$run"
    seq 1 2000 | kcat -b "$servers" -P -t "$topic" -z "$codec"
    kcat -b "$servers" -C -t "$topic" -e -q | cmp - <(seq 1 2000)
done

topic="kcat-keys-$run"
printf 'a:1\nb:2\n' | kcat -b "$servers" -P -t "$topic" -K:
sleep 0.05
middle="$(date +%s%3N)"
sleep 0.05
printf 'a:3\n' | kcat -b "$servers" -P -t "$topic" -K:
[ "$(kcat -b "$servers" -C -t "$topic" -e -q -K: | grep -c '^a:')" = 2 ]
[ "$(kcat -b "$servers" -C -t "$topic" -o -1 -c 1 -e -q)" = 3 ]
kcat -b "$servers" -Q -t "$topic:0:-1" | grep -q 'offset 3'
kcat -b "$servers" -Q -t "$topic:0:$middle" | grep -q 'offset 2'
[ "$(kcat -b "$servers" -C -t "$topic" -o "s@$middle" -e -q)" = 3 ]

# Partitions of three topics, so that each member gets one.
topics=("kcat-group-a-$run" "kcat-group-b-$run" "kcat-group-c-$run")
produce() { # first, last
    for topic in "${topics[@]}"; do
        seq -f "$topic %.0f" "$1" "$2" | kcat -b "$servers" -P -t "$topic"
    done
}
produce 1 10
for number in 1 2 3; do
    kcat -b "$servers" -G "group-$run" -q -u -o beginning -X session.timeout.ms=2000 -X heartbeat.interval.ms=400 \
        -X partition.assignment.strategy=roundrobin "${topics[@]}" >"$scratch/$number" 2>/dev/null &
    members+=("$!")
done
sent=10
all_read() { [ "$(sort -u "$scratch"/[123] | wc -l)" = $((3 * sent)) ]; }
each_read() {
    produce $((sent + 1)) $((sent + 10))
    sent=$((sent + 10))
    sleep 0.3
    [ -s "$scratch/1" ] && [ -s "$scratch/2" ] && [ -s "$scratch/3" ]
}
wait_until "each member has a partition" each_read
wait_until "all records by three members" all_read
kill -9 "${members[2]}"
produce $((sent + 1)) $((sent + 10))
sent=$((sent + 10))
wait_until "all records by the two that are left" all_read
echo "kcat: ok"
