#!/usr/bin/env bash
# openssl s_client: both versions of TLS, tickets, and who is refused.
#
# Usage: openssl.sh HOST:PORT DIRECTORY tls|mutual
# DIRECTORY: ca.pem, stranger-ca.pem, client.pem, client-key.pem
set -euo pipefail
server="$1" dir="$2" mode="$3"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

connect() {
    # The pause leaves time for tickets, and for a refusal that comes after the handshake.
    sleep 0.5 | timeout 20 openssl s_client -connect "$server" -verify_return_error "$@" 2>&1
}
identity=(-cert "$dir/client.pem" -key "$dir/client-key.pem")

for version in -tls1_2 -tls1_3; do
    connect "$version" -CAfile "$dir/ca.pem" "${identity[@]}" -sess_out "$scratch/session" >"$scratch/first"
    grep -q 'Verify return code: 0' "$scratch/first"
    grep -q '^New, TLSv1' "$scratch/first"
    connect "$version" -CAfile "$dir/ca.pem" "${identity[@]}" -sess_in "$scratch/session" >"$scratch/second"
    grep -q '^Reused, TLSv1' "$scratch/second" || { cat "$scratch/second"; exit 1; }
    if connect "$version" -CAfile "$dir/stranger-ca.pem" "${identity[@]}" >/dev/null; then
        echo "a server of a strange authority was trusted"
        exit 1
    fi
    connect "$version" -CAfile "$dir/ca.pem" >"$scratch/nobody" || true
    if [ "$mode" = mutual ]; then
        grep -q 'alert' "$scratch/nobody" || { cat "$scratch/nobody"; exit 1; }
    else
        grep -q 'Verify return code: 0' "$scratch/nobody"
    fi
done
for version in -tls1 -tls1_1; do
    if connect "$version" -CAfile "$dir/ca.pem" >/dev/null; then
        echo "$version was accepted"
        exit 1
    fi
done
echo "openssl: ok"
