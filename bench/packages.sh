# Installs the Debian packages that are missing; sourced by quickstart.sh and tests/run.sh.

# need_packages NAME...: as root or with sudo, saying what it does; nothing when all are there.
need_packages() {
    local name as_root=() missing=()
    if ! command -v dpkg-query >/dev/null; then
        echo "Not a Debian or Ubuntu machine: taking for granted what $* provide." >&2
        return 0
    fi
    for name; do
        dpkg-query -W -f='${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed ||
            missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "Installing Debian packages: ${missing[*]}"
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "error: not root and no sudo; install them with: apt-get install ${missing[*]}" >&2
            return 1
        fi
        as_root=(sudo)
    fi
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
    local log
    log=$(mktemp)
    # A failed update matters only if the install then fails.
    "${apt[@]}" update >"$log" 2>&1 || true
    if ! "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then
        cat "$log" >&2
        echo "error: apt-get could not install: ${missing[*]}" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}
