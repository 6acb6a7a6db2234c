#!/usr/bin/env bash
# The oracle scenarios on other kernels than this machine's: Debian's 6.1 and 6.12, each in a guest that qemu
# emulates, so that neither KVM nor root is needed.
#
# Usage: run.sh CACHE [SCENARIO...]
# CACHE is where kernels and images are kept. Without names of scenarios, those of the file `scenarios` beside this one are
# run, and the test of `netprobe pcap`. KERNELS in the environment says on which kernels, LIMIT_S how long each guest may
# take; COMMANDS are run in place of the tests, for a look around. Ends with a line that says how much passed on each; the
# exit code is 0 when nothing failed, and as much passed as the file `scenarios` says at least.
#
# A guest is a kernel and an image in memory: the tests and what they test, which cargo builds, at the same paths as here;
# busybox, dash, iproute2, the libraries that all need, a few modules, and init.sh. There is no network and no disk. What it
# prints is in CACHE/KERNEL/log.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p "$1"
cache="$(cd "$1" && pwd)"
shift
# An emulated processor is so much slower: what may take a while may take so many times as long.
slowness=3
limit_s="${LIMIT_S:-1200}"
modules=(veth tun sch_fq sch_netem sch_ingress sch_htb sch_prio cls_bpf fuse tcp_bbr inet_diag tcp_diag)
executables=()
built() { # pattern: the executable whose path ends so
    printf '%s\n' "${executables[@]}" | grep -E "$1\$" || { echo "cargo built no executable like $1" >&2; return 1; }
}
declare -A suites=([6.1]=bookworm [6.12]=bookworm-backports)

image() { # kernel directory: what the guest has in memory
    local dir="$1" root="$1/root"
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,proc,sys,run,tmp,scratch,root,modules}
    install -m 755 "$here/init.sh" "$root/init"
    cp "$(command -v busybox)" "$(command -v dash)" "$(command -v ip)" "$(command -v tc)" "$(command -v ss)" "$root/bin/"
    ln -s dash "$root/bin/sh"
    # Debug information is most of them, and memory is short there.
    local executable
    for executable in "${executables[@]}"; do
        mkdir -p "$root$(dirname "$executable")"
        strip -g -o "$root$executable" "$executable"
    done
    # Libraries, and the loader that has no arrow.
    { ldd "${executables[@]}" "$root"/bin/{ip,tc,ss,dash,busybox} 2>/dev/null || true; } | grep -oE '/[^ ]+\.so[^ ]*' | sort -u |
        while read -r library; do
            mkdir -p "$root$(dirname "$library")"
            cp -L "$library" "$root$library"
        done
    for module in "${modules[@]}"; do
        local file
        file="$(find "$dir/modules" -name "$module.ko*" | head -n 1)"
        case "$file" in
            *.xz) xz -dc "$file" > "$root/modules/$module.ko" ;;
            *.ko) cp "$file" "$root/modules/" ;;
            # It is a part of this kernel.
        esac
    done
    # Words of its own for init.sh.
    {
        echo "CHAOS=$(built /chaos) ORACLE=$(built '/oracle-[0-9a-f]+') NETPROBE=$(built '/netprobe-[0-9a-f]+')"
        echo "export SLOWNESS=$slowness SCENARIOS='$wanted'"
        echo "commands() { :; ${COMMANDS:-tests}; }"
    } > "$root/words"
    (cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) > "$dir/image"
}

guest() { # kernel: runs it; what it printed is in its log
    local dir="$cache/$1"
    # QEMU 7.2.22 leaves rubbish in the flags after cmpxchg16b, which the allocator of memory then crashes on: it is hidden.
    # lsm= says that programs may refuse calls; without mitigations there is less to emulate.
    local begin="$SECONDS"
    timeout "$limit_s" qemu-system-x86_64 -accel tcg,thread=multi -cpu max,cx16=off -m 1024 -smp 2 -nographic -no-reboot -nic none \
        -kernel "$dir/vmlinuz" -initrd "$dir/image" \
        -append "console=ttyS0 quiet panic=-1 oops=panic mitigations=off rdinit=/init lsm=lockdown,capability,landlock,bpf" \
        < /dev/null > "$dir/log" 2>&1 || echo "guest: qemu ended with $?, of $limit_s s at most" >> "$dir/log"
    echo "$((SECONDS - begin))" > "$dir/took"
}

if [ "$#" -gt 0 ]; then
    wanted="$*" least=0
else
    wanted="$(sed -n 's/^\([a-z0-9-]\+\).*/\1/p' "$here/scenarios" | tr '\n' ' ')"
    least="$(sed -n 's/^# At least \([0-9]\+\) pass.*/\1/p' "$here/scenarios")"
fi
mapfile -t executables < <("${CARGO:-cargo}" test --locked -p bpf --test oracle --test netprobe --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | sort -u)
# shellcheck disable=SC2206 # Several words.
kernels=(${KERNELS:-6.1 6.12})
for kernel in "${kernels[@]}"; do
    "$here/kernel.sh" "${suites[$kernel]}" "$cache/$kernel"
    image "$cache/$kernel"
done
# Each guest is busy with one thing at a time: they share the processors well.
for kernel in "${kernels[@]}"; do
    guest "$kernel" &
done
wait

summary="" failed=0
for kernel in "${kernels[@]}"; do
    dir="$cache/$kernel"
    # The console ends lines as terminals do, and begins the first with what clears a screen.
    sed -i 's/\r$//; s/.*guest: Linux/guest: Linux/' "$dir/log"
    grep -aE '^(guest: |test )' "$dir/log" || true
    # The first such line is the oracle's.
    passed="$(sed -n 's/^test result: .* \([0-9]\+\) passed; .*/\1/p' "$dir/log" | head -n 1)"
    passed="${passed:-0}"
    if ! grep -qax 'guest: ended 0' "$dir/log" || [ "$passed" -lt "${least:-1}" ]; then
        failed=1
        echo "Linux $(cat "$dir/version"): a scenario failed, or fewer than ${least:-1} passed; all that was said:" >&2
        tail -n 200 "$dir/log" >&2
    fi
    summary="$summary${summary:+, }$passed scenarios passed on $kernel ($(cat "$dir/took") s)"
done
echo "$summary"
exit "$failed"
