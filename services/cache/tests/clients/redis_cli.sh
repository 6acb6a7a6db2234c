#!/usr/bin/env bash
# redis-cli against a server: one-shot calls, -3, --pipe, --scan, -r, --bigkeys, and -c with "cluster".
#
#     redis_cli.sh HOST:PORT [cluster]
set -u
host="${1%:*}" port="${1##*:}" mode="${2:-plain}"
failures=0

cli() { redis-cli -h "$host" -p "$port" "$@" 2>&1; }

expect() { # expected output, then redis-cli arguments
    local expected="$1" got
    shift
    got="$(cli "$@")"
    if [ "$got" != "$expected" ]; then
        echo "redis-cli $*: expected '$expected', got '$got'" >&2
        failures=$((failures + 1))
    fi
}

contains() { # text, then redis-cli arguments
    local text="$1" got
    shift
    got="$(cli "$@")"
    case "$got" in
        *"$text"*) ;;
        *)
            echo "redis-cli $*: '$text' is not in '$got'" >&2
            failures=$((failures + 1))
            ;;
    esac
}

plain() {
    expect PONG PING
    expect OK FLUSHALL
    expect OK SET k v
    expect v GET k
    expect "" GET missing
    expect 1 EXISTS k
    expect "ERR syntax error" SET k v NX XX
    expect "ERR value is not an integer or out of range" INCR k
    expect OK -n 3 SET k three
    expect three -n 3 GET k
    expect v GET k
    expect "(nil)" --no-raw GET missing
    expect '"v"' --no-raw GET k
    expect "(integer) 1" --no-raw INCR n
    expect "(nil)" -3 --no-raw GET missing
    contains '"maxmemory" => "0"' -3 --no-raw CONFIG GET maxmemory
    expect "v" -3 GET k
    expect OK MSET a 1 b 2 c 3
    expect "1
2
3" MGET a b c
    expect string TYPE a
    expect int OBJECT ENCODING a
    expect "$(printf '2\n3\n4')" -r 3 INCR n
    contains "redis_version:" INFO server
    contains "tcp_port:$port" INFO server
    contains "name=" CLIENT LIST
    contains "unknown command" NOSUCH
    contains "wrong number of arguments" GET
}

scans() {
    cli FLUSHALL >/dev/null
    local piped found
    piped="$(for i in $(seq 1 300); do printf 'SET key:%d %d\r\n' "$i" "$i"; done | cli --pipe)"
    case "$piped" in
        *"errors: 0, replies: 300"*) ;;
        *)
            echo "redis-cli --pipe: $piped" >&2
            failures=$((failures + 1))
            ;;
    esac
    expect 300 DBSIZE
    found="$(cli --scan --pattern 'key:1*' | sort -u | wc -l)"
    [ "$found" -eq 111 ] || {
        echo "redis-cli --scan found $found of 111 keys" >&2
        failures=$((failures + 1))
    }
    contains "300 strings" --bigkeys
    expect "$(printf '300\n299\n298')" --raw MGET key:300 key:299 key:298
    expect "hello world" -x ECHO <<<"hello world"
}

cluster() {
    contains "cluster_state:ok" CLUSTER INFO
    contains "connected" CLUSTER NODES
    expect 12182 CLUSTER KEYSLOT foo
    for key in foo bar hello a b c d e f; do
        expect OK -c SET "$key" "value-$key"
        expect "value-$key" -c GET "$key"
    done
    contains "master" --no-raw CLUSTER SHARDS
    contains "myself,master - 0" CLUSTER NODES
    contains "127.0.0.1" --no-raw CLUSTER SLOTS
}

if [ "$mode" = cluster ]; then cluster; else
    plain
    scans
fi
[ "$failures" -eq 0 ] || exit 1
echo "$(redis-cli --version) $mode: ok"
