#!/usr/bin/env bash
# Every reader of files fed by libFuzzer, from good files on, with the address and undefined sanitizers.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2

usage() {
    cat <<'END'
usage: bash tests/fuzz/run.sh [SECONDS [TARGET...]]

Feeds each reader (or those named) for SECONDS (default: NC_FUZZ_SECONDS, else 20), one on each processor. A
crash, a hang of 10 s, one allocation above 32 MB for a file of at most 8 KB (NIR: 32), or 1 GB in all fails it. NC_BUILD is
a build by clang (default: build-clang, made when missing); what was found stays in build-fuzz/TARGET, and
the input that fails in build-fuzz/TARGET.failed-*. The last line is "N passed, N failed".
END
}

case ${1:-} in -h | --help) usage; exit 0 ;; esac
seconds=${1:-${NC_FUZZ_SECONDS:-20}}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { usage >&2; exit 2; }
shift
build=${NC_BUILD:-build-clang}
if ! [ -f "$build/build.ninja" ]; then
    CC=clang CXX=clang++ meson setup "$build" . --buildtype=release -Doptimization=1 -Dcuda=disabled \
        -Db_sanitize=address,undefined -Db_lundef=false || exit 2
fi
ninja -C "$build" nc_fuzz || exit 2
fuzz=$PWD/$build/nc_fuzz
[ "${build#/}" = "$build" ] || fuzz=$build/nc_fuzz
mkdir -p build-fuzz && cd build-fuzz || exit 2
"$fuzz" --seeds seeds || exit 1

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <("$fuzz" --targets)

# one TARGET: quiet unless it fails.
one() {
    local longest=8192
    [ "$1" != nir ] || longest=32768  # the smallest graph in HDF5 has 16 KB
    mkdir -p "$1"
    NC_FUZZ=$1 timeout $((seconds + 60)) "$fuzz" "$1" "seeds/$1" -max_total_time="$seconds" -max_len=$longest -timeout=10 \
        -rss_limit_mb=1024 -malloc_limit_mb=32 -artifact_prefix="$1.failed-" -print_final_stats=1 >"$1.log" 2>&1
}
running=() passed=0 failed=0
# finish: waits for the first of those running.
finish() {
    local pid=${running[0]%% *} name=${running[0]#* }
    running=("${running[@]:1}")
    if wait "$pid"; then
        echo "ok: $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$name.log") inputs"
        passed=$((passed + 1))
    else
        echo "FAILED: $name"
        grep -v '^#' "$name.log" | tail -n 60 | sed 's/^/    /'
        failed=$((failed + 1))
    fi
}
for target in "${targets[@]}"; do
    [ ${#running[@]} -lt "$(nproc)" ] || finish
    one "$target" &
    running+=("$! $target")
done
while [ ${#running[@]} -gt 0 ]; do finish; done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
