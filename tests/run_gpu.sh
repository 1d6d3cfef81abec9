#!/usr/bin/env bash
# Everything that needs a real card, in one command: builds with CUDA, runs the kernel cases on it,
# compute-sanitizer, the engine's cases on the device, and the spike comparison of CPU and card.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
export OMP_WAIT_POLICY=passive

usage() {
    cat <<'END'
usage: bash tests/run_gpu.sh [--list]

Needs an NVIDIA card with compute capability 8.0 or newer, its driver and nvcc; compute-sanitizer is used
where it is on PATH. NC_DATA names real data, which the spike comparison uses when it is there.
NC_TEST_ARENA is how many bytes of page-locked memory the kernel cases get (2 GiB).
Ends with a table of what ran on which device and the line "N passed, N failed"; the exit status is 0
when nothing failed, 2 when there is no card to run on. --list names the stages and runs nothing.
END
}

# What compute-sanitizer runs, tens of times slower: one case or two of every family, no commas.
cases=('sums stay*' 'sum and sum*' 'argmax*' 'batch norm with*' 'pooling and*' 'augmentation*'
    'softmax*' 'cross-entropy and*' 'optimiser steps give*' 'row kernels*' 'prelu gradients*'
    'gemm: every way*' 'conv: strides*' 'qcfs*' 'neuron forward*' 'spikes pack*'
    'a linear layer over*' 'split spike sums*' 'integer convolutions*')
short=$(IFS=, && echo "${cases[*]}")

list() {
    cat <<'END'
kernels               every kernel case: all tables, the card's among them
memcheck kernels      a short selection of them under compute-sanitizer
racecheck kernels     the same: hazards in shared memory
memcheck device       the engine on the device, under compute-sanitizer
initcheck device      the same: device memory read before it was written
device                the engine on the device
spikes                spikes of converted networks, CPU and card compared
benchmarks            kernels and neurons over time against the card's own bandwidth and multiply-adds
END
}

case ${1:-} in
    '') ;;
    -h | --help) usage; exit 0 ;;
    --list) list; exit 0 ;;
    *) echo "error: unknown argument: $1" >&2; usage >&2; exit 2 ;;
esac

# stop WHY HINT
stop() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 2
}

query() { nvidia-smi --id=0 --query-gpu="$1" --format=csv,noheader 2>/dev/null; }
if name=$(query name) && [ -n "$name" ]; then
    device="$name, compute capability $(query compute_cap), driver $(query driver_version)"
elif [ -e /dev/nvidia0 ]; then
    device='/dev/nvidia0 (no nvidia-smi to name it)'
else
    stop 'there is no NVIDIA card here: nvidia-smi finds none and there is no /dev/nvidia0' \
        'the same kernels run without one in emulation: bash tests/run.sh'
fi
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null) ||
    stop 'nvcc is not on PATH and not in /usr/local/cuda' 'install the CUDA toolkit, or add it to PATH'

logs=$PWD/build-logs
mkdir -p "$logs"
say() { printf '[%3d s] %s\n' "$SECONDS" "$1"; }

say "build for $device with $("$nvcc" --version | tail -1)"
log=$logs/gpu-build.log
if ! { [ -f build-gpu/build.ninja ] ||
        meson setup build-gpu . --buildtype=release -Dcuda=enabled; } >"$log" 2>&1 ||
    ! ninja -C build-gpu nc_test nc_bench >>"$log" 2>&1; then
    tail -n 60 "$log"
    stop "the build failed" "see ${log#"$PWD/"}"
fi

# The program's own word on whether it can use the card.
why=$(build-gpu/nc_test -tc='cuda: the card*' | sed -n 's/^skipped: [^:]*: [^:]*: //p')
[ -z "$why" ] || stop "the card cannot be used: $why" 'see the driver and the toolkit above'

passed=0 failed=0 rows=()

# stage NAME COMMAND...: one run of the test binary, counted by its own summary. A run of no cases fails.
stage() {
    local name=$1 log=$logs/gpu-${1// /-}.log status=0 start=$SECONDS p=0 f=0 s=0 line
    shift
    say "$name"
    timeout 3600 "$@" >"$log" 2>&1 || status=$?
    line=$(grep -a '^\[doctest\] test cases:' "$log" | tail -1)
    if [[ $line =~ \|\ *([0-9]+)\ passed\ \|\ *([0-9]+)\ failed ]]; then
        p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]}
        s=$(grep -ac '^skipped: ' "$log")
        p=$((p - s))
    fi
    if [ "$f" = 0 ] && { [ "$status" != 0 ] || [ $((p + s)) = 0 ]; }; then f=1; fi
    passed=$((passed + p)) failed=$((failed + f))
    rows+=("$(printf '%-20s %7d %7d %8d %8d   %s' "$name" "$p" "$f" "$s" $((SECONDS - start)) "$device")")
    [ "$f" = 0 ] || { echo "FAILED: $name (exit status $status), ${log#"$PWD/"}" && tail -n 60 "$log"; }
    grep -a '^skipped: ' "$log" | sed 's/^/  /'
    return 0
}

# checked TOOL NAME ARGUMENT...: the same under compute-sanitizer, where a finding fails the run.
checked() {
    local tool=$1 name="$1 $2"
    shift 2
    if [ -z "$sanitizer" ]; then
        echo "  skipped: $name: compute-sanitizer is not on PATH"
        rows+=("$(printf '%-20s %7s %7s %8s %8s   %s' "$name" - - - - 'skipped: no compute-sanitizer')")
        return
    fi
    stage "$name" "$sanitizer" --tool "$tool" --error-exitcode 9 build-gpu/nc_test --no-colors=true "$@"
}

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
stage kernels build-gpu/nc_test --no-colors=true -sf='*kernels_*'
checked memcheck kernels -sf='*kernels_*' -tc="$short"
checked racecheck kernels -sf='*kernels_*' -tc="$short"
checked memcheck device -tc='device: *' -tce='device: spikes*'
checked initcheck device -tc='device: *' -tce='device: spikes*'
stage device env CUDA_LAUNCH_BLOCKING=0 build-gpu/nc_test --no-colors=true -tc='device: *' -tce='device: spikes*'
stage spikes env CUDA_LAUNCH_BLOCKING=0 build-gpu/nc_test --no-colors=true -tc='device: spikes*'

# measure NAME ARGUMENT...: a table of nc_bench, also as JSON beside the logs; what is wrong fails.
measure() {
    local name=$1 start=$SECONDS p=1 f=0
    shift
    say "benchmarks: $name"
    timeout 3600 build-gpu/nc_bench "$@" --seconds 0.1 --force --json "$logs/gpu-bench-$name.json" || { p=0 f=1; }
    passed=$((passed + p)) failed=$((failed + f))
    rows+=("$(printf '%-20s %7d %7d %8d %8d   %s' "$name" $p $f 0 $((SECONDS - start)) "$device")")
}
measure neurons bptt --table cuda --neuron if,lif --T 4,32 --elements 134217728
measure kernels kernels --table cuda,cuda-vendor
measure tf32 kernels --table cuda-vendor --precision tf32 --filter 'gemm|conv\.'
measure bf16 kernels --table cuda-vendor --precision bf16 --filter 'gemm|conv\.'

printf '\n%-20s %7s %7s %8s %8s   %s\n' stage passed failed skipped seconds device
printf '%s\n' "${rows[@]}"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
