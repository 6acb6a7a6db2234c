#!/usr/bin/env bash
# A kernel of Debian's for a guest: unpacked, not installed. Nothing is done when it is there already.
#
# Usage: kernel.sh SUITE DIR
# Puts vmlinuz, modules/ and version into DIR. The newest cloud kernel of the suite is taken, from the mirror
# that this machine's own apt uses, by an apt with a source list of its own. Needs root for nothing.
set -euo pipefail

suite="$1"
dir="$2"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$dir/version" ] && exit 0

mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)"
[ -n "$mirror" ] || { echo "no kernel of $suite: apt knows no mirror of Debian's (run apt-get update)" >&2; exit 1; }
[ -e "$keys" ] || { echo "no kernel of $suite: $keys is missing (apt-get install debian-archive-keyring)" >&2; exit 1; }

rm -rf "$dir"
mkdir -p "$dir/lists/partial" "$dir/unpacked"
dir="$(cd "$dir" && pwd)"
echo "deb [signed-by=$keys] $mirror $suite main" > "$dir/sources.list"
options=(-qq -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$dir/lists"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root -o Acquire::Retries=2)
timeout 120 apt-get "${options[@]}" update
package="$(apt-cache "${options[@]}" depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)"
[ -n "$package" ] || { echo "no kernel of $suite: its linux-image-cloud-amd64 names none" >&2; exit 1; }
(cd "$dir" && timeout 300 apt-get "${options[@]}" download "$package")
dpkg-deb -x "$dir"/linux-image-*.deb "$dir/unpacked"
mv "$dir"/unpacked/boot/vmlinuz-* "$dir/vmlinuz"
if [ -d "$dir/unpacked/usr/lib/modules" ]; then
    mv "$dir"/unpacked/usr/lib/modules/* "$dir/modules"
else
    mv "$dir"/unpacked/lib/modules/* "$dir/modules"
fi
rm -rf "$dir/unpacked" "$dir/lists" "$dir/sources.list" "$dir"/*.deb
# Last: what is named here is whole.
echo "${package#linux-image-}" > "$dir/version"
