#!/usr/bin/env bash
# kcat: metadata, every codec, keys, offsets by time, and a balanced consumer.
#
# Usage: kcat.sh HOST:PORT
set -euo pipefail
servers="$1"
run="$(date +%s%N)"

kcat -b "$servers" -L -J >/dev/null
for codec in none gzip snappy lz4 zstd; do
    topic="kcat-$codec-$run"
    seq 1 2000 | kcat -b "$servers" -P -t "$topic" -z "$codec"
    kcat -b "$servers" -C -t "$topic" -e -q | cmp - <(seq 1 2000)
done

topic="kcat-keys-$run"
printf 'a:1\nb:2\na:3\n' | kcat -b "$servers" -P -t "$topic" -K:
[ "$(kcat -b "$servers" -C -t "$topic" -e -q -K: | grep -c '^a:')" = 2 ]
[ "$(kcat -b "$servers" -C -t "$topic" -o -1 -c 1 -e -q)" = 3 ]
kcat -b "$servers" -Q -t "$topic:0:-1" | grep -q 'offset 3'
[ "$(timeout 20 kcat -b "$servers" -G "group-$run" -q -c 3 "$topic" -o beginning | wc -l)" = 3 ]
echo "kcat: ok"
