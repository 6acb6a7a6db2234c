#!/usr/bin/env bash
# Runs fuzzers: `run.sh SECONDS [TARGET …]`, all of them when none is named. What they find new goes below the target directory, what
# makes one fail into `artifacts` there; then this fails too. `run.sh build` only builds; `run.sh minimise TARGET …` puts into the
# corpus what the runs found that nothing in it covers.
#
# The toolchain of the repository will do: the compiler's coverage flags are given here, as cargo-fuzz would, and no sanitizer,
# since there is no unsafe code to look after.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
work=${CARGO_TARGET_DIR:-$here/../../../target}/fuzz
seconds=${1:?how many seconds, or build, or minimise}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(aof dump lua memcached rdb resp)

# Most address space of a fuzzer, in KiB: an allocation of what was only announced fails.
address_space_kib=$((4 << 20))
# Bounds of one input.
bounds=(-timeout=20 -rss_limit_mb=1536 -max_len=16384)

flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
CARGO_TARGET_DIR=$work RUSTFLAGS=$flags cargo build --locked --release --target "$host" --manifest-path "$here/Cargo.toml"
[ "$seconds" != build ] || exit 0

ulimit -v "$address_space_kib"
failed=0
for target in "${targets[@]}"; do
    binary=$work/$host/release/$target
    found=$work/found/$target artifacts=$work/artifacts/$target seeds=$here/corpus/$target
    mkdir -p "$found" "$artifacts"
    if [ "$seconds" = minimise ]; then
        fresh=$(mktemp -d)
        "$binary" "${bounds[@]}" -set_cover_merge=1 "$fresh" "$seeds" "$found"
        for file in "$fresh"/*; do
            cmp -s "$file" "$seeds/$(basename "$file")" || cp "$file" "$seeds/$(basename "$file" | cut -c1-12)"
        done
        rm -r "$fresh"
        continue
    fi
    echo "== fuzz $target for $seconds s"
    if ! "$binary" "${bounds[@]}" -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="$artifacts/" "$found" "$seeds" 2>"$artifacts/log"; then
        failed=1
        tail -n 40 "$artifacts/log"
        echo "fuzz: $target failed; the input is in $artifacts, and \`$binary FILE\` runs it again" >&2
    fi
    grep -E "^stat::|DONE" "$artifacts/log" || true
done
exit $failed
