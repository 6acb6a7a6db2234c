#!/usr/bin/env bash
# Measures rows of the table of claims and makes the tables of BENCHMARKS.md anew.
#
# Usage, from the top of the repository: measure-all.sh BENCH REPORTS [ROW...]
#   BENCH    the program `bench`, built in release
#   REPORTS  a folder for full reports (JSON, HTML, CSV, histogram log), one folder for each row
#   ROW      cache-3, pauses, storage-cross, broker-4b, ...; all when none is given
# BENCH_OPTIONS goes to every run, for instance '--pairs 3 --seconds 0.4'. A row that fails keeps the result it had and is
# named; the others go on. Run it as root on a machine that does nothing else: it takes two to three hours.
set -euo pipefail

bench="$1" reports="$2"
shift 2
rows=("$@")
if [ "${#rows[@]}" -eq 0 ]; then
    rows=(cache-{3,3b,3c,4,5,6,7,8} pauses storage-{commits,files,cold,cross} broker-{4,4b,5,10})
fi
read -ra options <<<"${BENCH_OPTIONS:-}"
results=bench-harness/results
mkdir -p "$reports" "$results"

# Options a row needs beside its number, as the table of claims has them.
own_options() {
    case "$1" in
    cache-3c) echo "--transport spin --fifo" ;;
    cache-5) echo "--fifo" ;;
    storage-*) echo "--pairs 10" ;;
    esac
}

without_seconds=()
for ((at = 0; at < ${#options[@]}; at++)); do
    if [ "${options[at]}" = --seconds ]; then at=$((at + 1)); else without_seconds+=("${options[at]}"); fi
done

failed=()
for name in "${rows[@]}"; do
    subject="${name%%-*}" row="${name#*-}"
    read -ra own <<<"$(own_options "$name")"
    # Options given later count; clap refuses the same one twice, so ours give way.
    if [[ " ${options[*]} " == *" --pairs "* ]] && [ "${own[0]:-}" = --pairs ]; then own=(); fi
    picked=(--row "$row") all=("${options[@]}")
    # One row by itself, whose events take as long as they take.
    if [ "$name" = pauses ]; then picked=() all=("${without_seconds[@]}"); fi
    echo "== $name"
    if "$bench" "$subject" "${picked[@]}" "${own[@]}" "${all[@]}" --out "$reports/$name"; then
        cp "$reports/$name/summary.json" "$results/$name.json"
    else
        failed+=("$name")
    fi
done
"$bench" benchmarks
if [ "${#failed[@]}" -gt 0 ]; then
    echo "not measured: ${failed[*]}" >&2
    exit 1
fi
