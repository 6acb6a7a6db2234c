# Sourced by the services' clients/install.sh: installs one client each, pinned, below <target>/clients/.
#
# Idempotent: what is present is left alone. A client that cannot be installed is reported and the others go on;
# the live tests then print it as skipped. `$failed` is 1 afterwards.
mkdir -p "$target/clients"
cd "$target/clients" || exit 1
failed=0

# Several test binaries may call this at once; the second one waits and finds the work done.
exec 9>.lock
flock 9 2>/dev/null || true

python_client() { # directory, requirement...
    local dir="$1"
    shift
    local mark="$dir/.installed-$*"
    [ -f "${mark// /_}" ] && return
    rm -rf "$dir"
    if python3 -m venv "$dir" && "$dir/bin/pip" install --quiet --disable-pip-version-check "$@"; then
        touch "${mark// /_}"
    else
        echo "install.sh: $* could not be installed" >&2
        rm -rf "$dir"
        failed=1
    fi
}

# The source archive of a package, unpacked to the folder `source` of a client that is installed.
python_source() { # directory, requirement
    local dir="$1" package="${2%%==*}"
    [ -d "$dir/source" ] || [ ! -x "$dir/bin/pip" ] && return
    local archive="$dir/archive"
    rm -rf "$archive" "$dir/unpacked"
    mkdir -p "$archive" "$dir/unpacked"
    if "$dir/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary "$package" \
        --dest "$archive" "$2" &&
        tar -xzf "$archive"/*.tar.gz -C "$dir/unpacked" --strip-components=1; then
        mv "$dir/unpacked" "$dir/source"
    else
        echo "install.sh: the source archive of $2 could not be fetched" >&2
        failed=1
    fi
}

rust_client() { # directory, package's folder
    local dir="$1" package="$2"
    # Up to date, it ends at once.
    if ! cargo build --quiet --locked --manifest-path "$package/Cargo.toml" --target-dir "$dir"; then
        echo "install.sh: $package could not be built" >&2
        failed=1
    fi
}

node_client() { # directory, package@version...
    local dir="$1"
    shift
    local mark="$dir/.installed-${*//\//_}"
    [ -f "${mark// /_}" ] && return
    rm -rf "$dir"
    mkdir -p "$dir"
    echo '{"name":"live-client","private":true}' >"$dir/package.json"
    if (cd "$dir" && npm install --silent --no-audit --no-fund "$@"); then
        touch "${mark// /_}"
    else
        echo "install.sh: $* could not be installed" >&2
        rm -rf "$dir"
        failed=1
    fi
}
