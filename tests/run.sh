#!/usr/bin/env bash
# Every test: installs what is missing, builds with g++ and with clang++ and its sanitizers, runs, counts.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
# Threads that wait asleep: spinning ones steal the core from each other where tests use more than there are.
export OMP_WAIT_POLICY=passive
. bench/packages.sh

usage() {
    cat <<'END'
usage: bash tests/run.sh [--full] [STAGE...]

Stages, all of them by default:
  gcc       g++ release: the test binary once for every instruction set this machine has (the kernel
            cases only once: they try all of them against the reference each time); the runtime under the
            thread sanitizer
  clang     clang++ with address and undefined sanitizers: the test binary, and every reader of files fuzzed
            for NC_FUZZ_SECONDS (1; 20 with --full)
  scripts   whole programs, embedding the library, faults planted in kernels, fetch, layers and README, against the g++ release build
  rtl       the generated hardware in simulators and synthesis tools
  python    against PyTorch and other Python packages, installed in a virtual environment (tests/python/run.sh)
One stage's tests run while the next one is built; after the last build two at a time. --full runs what takes longer too (the same as NC_FULL=1).
NC_DATA names real data, NC_GOLDEN recorded vectors; tests that need them are skipped without.
The last line is "N passed, N failed, N skipped"; the exit status is 0 when nothing failed.
END
}

stages=()
for argument; do
    case $argument in
        --full) export NC_FULL=1 ;;
        -h | --help) usage; exit 0 ;;
        gcc | clang | scripts | rtl | python) stages+=("$argument") ;;
        *) echo "error: unknown argument: $argument" >&2; usage >&2; exit 2 ;;
    esac
done
[ ${#stages[@]} -gt 0 ] || stages=(gcc scripts python rtl clang)

bold='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'; fi
passed=0 failed=0 skipped=0 skips='' failures=()
limit=1200  # seconds of one script
[ "${NC_FULL:-}" != 1 ] || limit=7200
logs=$PWD/build-logs
mkdir -p "$logs"

say() { printf '%s[%3d s] %s%s\n' "$bold" "$SECONDS" "$1" "$plain"; }

# add PASSED FAILED SKIPPED
add() { passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3)); }

# fail NAME LOG: a stage that went wrong, with the end of what it said.
fail() {
    failures+=("$1")
    printf '%sFAILED: %s%s\n' "$red" "$1" "$plain"
    tail -n 300 "$2" | sed 's/^/    /'
}

# build NAME TARGET... : in build-NAME, set up with the words in the array `options`.
build() {
    local name=$1 log=$logs/build-$1.log
    shift
    say "$name: build"
    if { [ -f "build-$name/build.ninja" ] || meson setup "build-$name" . "${options[@]}"; } \
        >"$log" 2>&1 && ninja -C "build-$name" "$@" >>"$log" 2>&1; then
        return 0
    fi
    fail "$name: build" "$log"
    add 0 1 0
    return 1
}

# cases NAME BINARY ARGUMENT...: one run of a test binary, counted by its own summary.
cases() {
    local name=$1 binary=build-$2 log=$logs/cases-${1//[^a-z0-9]/-}.log status=0 line p f s
    shift 2
    say "$name: test cases"
    timeout 1200 "$binary" --no-colors=true "$@" >"$log" 2>&1 || status=$?
    line=$(grep -a '^\[doctest\] test cases:' "$log" | tail -1)
    if [[ $line =~ \|\ *([0-9]+)\ passed\ \|\ *([0-9]+)\ failed ]]; then
        p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]}
        s=$(grep -ac '^skipped: ' "$log")
        [ "$status" = 0 ] || [ "$f" -gt 0 ] || f=1
        add $((p - s)) "$f" "$s"
        collect "$name" "$log"
    else
        f=1 && add 0 1 0
    fi
    [ "$f" = 0 ] || fail "$name: test cases (exit status $status)" "$log"
}

# script NAME COMMAND...: a script that ends with its counts, or passes and fails as one.
script() {
    local name=$1 log=$logs/script-$1.log status=0 f=0
    shift
    say "$name"
    timeout "$limit" "$@" >"$log" 2>&1 || status=$?
    if [[ $(tail -1 "$log") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)?$ ]]; then
        f=${BASH_REMATCH[2]}
        [ "$status" = 0 ] || [ "$f" -gt 0 ] || f=1
        add "${BASH_REMATCH[1]}" "$f" "${BASH_REMATCH[4]:-0}"
        collect "$name" "$log"
    elif [ "$status" = 0 ]; then
        add 1 0 0
    else
        f=1 && add 0 1 0
    fi
    [ "$f" = 0 ] || fail "$name (exit status $status)" "$log"
}

# collect NAME LOG: the names of skipped tests, with the stage after a tab.
collect() { skips+=$(grep -a '^skipped: ' "$2" | sed "s/^skipped: \(.*\)/\1\t$1/")$'\n'; }

# later COMMAND...: when a worker is free.
later() { printf '%q ' "$@" >&3 && printf '\n' >&3; }
# What `later` hands to: takes from standard input what no other worker has taken; keeps its own counts, which the file
# named here brings back.
worker() {
    local command
    passed=0 failed=0 skipped=0 skips='' failures=()
    while flock 8 && IFS= read -r command; do flock -u 8; eval "$command" </dev/null; done 8<"$queue"
    declare -p passed failed skipped skips failures >"$1"
}

# Once, whichever stages want it: later stages must not build where the tests of earlier ones run.
gcc_built=''
gcc_build() {
    options=(--buildtype=release)
    [ -n "$gcc_built" ] ||
        { CC=gcc CXX=g++ build gcc all nc_test nc_race integer_emit && gcc_built=yes || gcc_built=no; }
    [ "$gcc_built" = yes ]
}

# on ISA COMMAND...
on() { NC_ISA=$1 "${@:2}"; }

gcc_stage() {
    gcc_build || return
    local isa why best=''
    for isa in avx512 avx2 sse2 reference; do
        if ! why=$(NC_ISA=$isa build-gcc/nc_test --count 2>&1 >/dev/null); then
            add 0 0 1
            skips+="g++ $isa: $why"$'\tg++\n'
        elif [ -z "$best" ]; then
            best=$isa
            later on "$isa" cases "g++ $isa" gcc/nc_test
        else
            later on "$isa" cases "g++ $isa" gcc/nc_test "${light[@]}"
        fi
    done
    later on reference cases 'g++ with the thread sanitizer' gcc/nc_race "${threads[@]}"
}

clang_stage() {
    # Without b_lundef: what the sanitizers call comes with the program, not with a library.
    options=(--buildtype=release -Doptimization=1 -Dcuda=disabled -Db_sanitize=address,undefined -Db_lundef=false)
    # Older releases have libFuzzer in clang's own package.
    need_packages libclang-rt-dev || echo 'fuzz: no package libclang-rt-dev'
    local seconds=1
    [ "${NC_FULL:-}" != 1 ] || seconds=20
    CC=clang CXX=clang++ build clang all nc_test nc_fuzz && later cases 'clang++ with sanitizers' clang/nc_test &&
        later script fuzz env NC_BUILD="$PWD/build-clang" bash tests/fuzz/run.sh "${NC_FUZZ_SECONDS:-$seconds}"
}

scripts_stage() {
    gcc_build || return
    local name
    for name in layers cuda_fault fetch program embed reproduce readme; do
        later script "$name" env NC_BUILD="$PWD/build-gcc" bash "tests/${name}_test.sh"
    done
}

rtl_stage() {
    # Tools that cannot be had are skipped by name.
    need_packages verilator iverilog yosys nextpnr-ice40 fpga-icestorm ||
        echo 'rtl: not every tool could be installed'
    gcc_build && later script rtl env NC_BUILD="$PWD/build-gcc" bash tests/rtl_test.sh
}

python_stage() {
    gcc_build && later script python env NC_BUILD="$PWD/build-gcc" bash tests/python/run.sh
}

# What the test binary leaves out where the instruction set in use is not the machine's best: cases that try every
# table whichever is in use, or none, or a device's own.
light=('--source-file-exclude=*kernels_*,*analog_test*,*convert_whole_*,*device_*,*cuda_*,*dataset_*,*augment_*,*events_*,*recordings_*,*damage_*,*io_test*,*weights_*,*zip_*,*onnx_*,*nir_file_*,*report_*')

# Cases in which threads work together, or side by side.
threads=('--test-case=runtime: a batch*,runtime: every operation*,runtime in integers: what floats*,analog: a sample*,analog: every operation*,nc.h: models*')

packages=(meson ninja-build g++ pkg-config libxsimd-dev doctest-dev zlib1g-dev nlohmann-json3-dev
    libcli11-dev libfmt-dev libhdf5-dev libprotobuf-dev protobuf-compiler dataset-fashion-mnist)
for stage in "${stages[@]}"; do
    case $stage in
        clang) packages+=(clang libomp-dev) ;;
        scripts) packages+=(python3 curl unzip cmake) ;;
    esac
done
need_packages "${packages[@]}" </dev/null || exit 2
queue=$(mktemp -d)
trap 'rm -rf "$queue"' EXIT
mkfifo "$queue/commands"
# One worker while something is built, two from then on.
worker "$queue/counts_1" <"$queue/commands" &
exec 3>"$queue/commands"
for stage in "${stages[@]}"; do "${stage}_stage" </dev/null; done
worker "$queue/counts_2" <"$queue/commands" 3>&- &
exec 3>&-
wait
for counts in "$queue"/counts_*; do
    here=("$passed" "$failed" "$skipped") skips_here=$skips failures_here=("${failures[@]}")
    . "$counts" || failed=1
    add "${here[@]}"
    skips+=$skips_here failures+=("${failures_here[@]}")
done

if [ "$skipped" -gt 0 ]; then
    echo "Skipped:"
    # A test skipped in several stages is one line that names them.
    printf '%s' "$skips" | awk -F'\t' 'NF { if (!($1 in in_stages)) order[++n] = $1
        in_stages[$1] = in_stages[$1] (in_stages[$1] ? ", " : "") $2 }
        END { for (i = 1; i <= n; ++i) printf "  %s (%s)\n", order[i], in_stages[order[i]] }'
fi
if [ ${#failures[@]} -gt 0 ]; then
    echo "Failed:"
    printf '  %s\n' "${failures[@]}"
fi
say "done; logs in ${logs#"$PWD/"}"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
