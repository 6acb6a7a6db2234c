#!/usr/bin/env bash
# redis-benchmark runs to its end without an error: plain, pipelined, RESP3, threads, and --cluster.
#
#     redis_benchmark.sh HOST:PORT [cluster]
set -u
host="${1%:*}" port="${1##*:}" mode="${2:-plain}"
failures=0

bench() {
    local out
    out="$(timeout 60 redis-benchmark -h "$host" -p "$port" -q "$@" 2>&1 | tr '\r' '\n')"
    local code=$?
    # A finished test prints "NAME: N requests per second"; a failed one prints an error instead.
    if [ $code -ne 0 ] || ! grep -q 'requests per second' <<<"$out" || grep -qiE 'error|warning: could not|refused|closed' <<<"$out"; then
        echo "redis-benchmark $*: exit code $code: $(tail -5 <<<"$out")" >&2
        failures=$((failures + 1))
    fi
}

if [ "$mode" = cluster ]; then
    bench --cluster -t set,get,incr,mset -n 20000 -r 10000
    bench --cluster -t set,get -n 20000 -r 10000 -P 16 --threads 2
else
    bench -t ping_inline,ping_mbulk,set,get,incr,mset -n 20000
    bench -t set,get -n 50000 -P 16 -r 10000 -d 64
    bench -t set,get -n 50000 -P 64 -c 10
    bench -t set,get -n 20000 -3
    bench -t set,get -n 20000 --threads 2
    bench -t set,get -n 2000 -d 65536
    bench -n 20000 -r 1000 SET key:__rand_int__ value EX 100
    bench -n 20000 -r 1000 GETRANGE key:__rand_int__ 0 2
    bench -n 20000 -c 500 GET key
fi
[ "$failures" -eq 0 ] || exit 1
echo "$(redis-benchmark --version) $mode: ok"
