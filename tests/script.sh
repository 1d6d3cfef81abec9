# What the test scripts share: checks that count, a folder that goes away, the closing line. Sourced.

set -uo pipefail
passed=0 failed=0 skipped=0
work=$(mktemp -d)
trap 'cleanup; rm -rf "$work"' EXIT
cleanup() { :; } # a script that has more to undo defines its own

pass() {
    passed=$((passed + 1))
    echo "ok: $1"
}

# fail NAME [DETAIL]
fail() {
    failed=$((failed + 1))
    echo "FAILED: $1"
    [ -z "${2:-}" ] || sed 's/^/    /' <<<"$2"
}

# skip NAME WHY
skip() {
    skipped=$((skipped + 1))
    echo "skipped: $1: $2"
}

# check NAME COMMAND...: the command succeeds; shown with what it said when not.
check() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then pass "$name"; else fail "$name" "$*"$'\n'"$said"; fi
}

# finish: the closing line that tests/run.sh reads, and the exit status.
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
    exit
}
