#!/usr/bin/env bash
# The same networks, weights and samples here and in Python's packages, taking turns: one table of ratios each.
set -uo pipefail
usage() {
    cat <<'END'
usage: bash bench/peers/run.sh [--T LIST] [--batch LIST] [--threads LIST] [--rounds N] [--out DIR] [--train] MODEL...

MODEL: spiking networks of nc_train --neuron or nc_convert, and analog ones, which meet ONNX Runtime; none:
cnn-nmnist-3x3 is trained first, on N-MNIST where NC_DATA has it and on simulated events where not, and training is
compared too, as it is with --train: a step of cnn-nmnist-3x3, integrate-and-fire neurons forward and back, a linear
layer with LIF neurons over 500 steps. Lists are separated by commas (default: T 16, batch 1,32, threads 1 and all).
NC_BUILD names the build (default: build). Python's packages go into a virtual environment of their own
in ~/.cache/neurocuda/peers (NC_VENV names another); what cannot be installed is skipped by name. --out DIR keeps
JSON results.
END
}
export NC_COMMAND="bash bench/peers/run.sh $*" # for the results
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
T=16 batches=1,32 threads=1,$(nproc) rounds=20 out='' train='' models=()
[ "$(nproc)" -gt 1 ] || threads=1
while [ $# -gt 0 ]; do
    case $1 in
        --T) T=$2; shift 2 ;;
        --batch) batches=$2; shift 2 ;;
        --threads) threads=$2; shift 2 ;;
        --rounds) rounds=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --train) train=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        -*) echo "error: unknown option: $1" >&2; usage >&2; exit 2 ;;
        *) models+=("$(realpath "$1")"); shift ;;
    esac
done
build=$(cd "${NC_BUILD:-$root/build}" 2>/dev/null && pwd) || { echo 'error: no build; NC_BUILD names its folder' >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ -z "$out" ] || { mkdir -p "$out" && out=$(realpath "$out"); } || exit 2

venv=${NC_VENV:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/neurocuda/peers}
python=$venv/bin/python
if ! [ -e "$venv/installed" ]; then
    echo "Installing Python packages in $venv"
    python3 -m venv "$venv" || exit 2
    pip=("$python" -m pip install -q --no-input --disable-pip-version-check --retries 1 --timeout 30)
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    "${pip[@]}" numpy || exit 2
    # PyTorch without the 2 GB of CUDA that it asks for.
    "${pip[@]}" --no-deps torch && "$python" "$root/tests/python/cpu_torch.py" "$site" && "${pip[@]}" torch
    for name in snntorch spikingjelly onnx onnxruntime; do "${pip[@]}" "$name" || echo "could not install $name"; done
    touch "$venv/installed"
fi

# nc.h for Python, with what the package says the library needs.
read -ra needs < <(sed -n 's/^Libs: .* -lnc //p' "$build/meson-private/nc.pc")
g++ -shared -o "$work/libnc.so" -Wl,--whole-archive "$build/libnc.a" -Wl,--no-whole-archive "${needs[@]}" || exit 2
trained=$work/cnn-nmnist-3x3.safetensors
if [ ${#models[@]} = 0 ]; then
    [ -n "$train" ] || models=("$trained")
    train=yes
fi
if [ -n "$train" ]; then
    data=synthetic-events
    [ ! -d "${NC_DATA:-}/nmnist" ] || data=nmnist
    "$build/nc_train" --model cnn-nmnist-3x3 --neuron lif --dataset $data --T 16 --epochs 4 --out "$trained" || exit 1
fi

failed=0
# Whether the file's graph has neurons.
is_spiking() {
    (cd "$here" && "$python" -c 'import sys
from peers import read_model
sys.exit(all(node["op"] != "neuron" for node in read_model(sys.argv[1])[0]))' "$1")
}

dump=$work/samples
for model in "${models[@]}"; do
    if ! is_spiking "$model"; then
        for batch in ${batches//,/ }; do
            rm -rf "$dump"
            mkdir "$dump"
            "$build/nc_bench" ann "$model" --batch "$batch" --threads 1 --seconds 0 --dump "$dump" >/dev/null ||
                { failed=1; continue; }
            for n in ${threads//,/ }; do
                echo
                echo "$(basename "$model"), batch $batch, $n threads"
                name=$(basename "$model" .safetensors)-batch$batch-threads$n.json
                "$python" -W ignore "$here/analog.py" --libnc "$work/libnc.so" --model "$model" --samples "$dump" \
                    --threads "$n" --rounds "$rounds" ${out:+--json "$out/$name"} || failed=1
            done
        done
        continue
    fi
    for t in ${T//,/ }; do
        for batch in ${batches//,/ }; do
            rm -rf "$dump"
            mkdir "$dump"
            "$build/nc_bench" infer "$model" --T "$t" --batch "$batch" --threads 1 --seconds 0 --dump "$dump" \
                >/dev/null || { failed=1; continue; }
            for n in ${threads//,/ }; do
                echo
                echo "$(basename "$model"), T $t, batch $batch, $n threads"
                name=$(basename "$model" .safetensors)-T$t-batch$batch-threads$n.json
                OMP_NUM_THREADS=$n "$python" -W ignore "$here/peers.py" --libnc "$work/libnc.so" --model "$model" \
                    --samples "$dump" --threads "$n" --rounds "$rounds" ${out:+--json "$out/$name"} || failed=1
            done
        done
    done
done

# training NAME THREADS ARGUMENT...
training() {
    local name=$1 n=$2
    shift 2
    echo
    echo "training: $name, $n threads"
    OMP_NUM_THREADS=$n "$python" -W ignore "$here/training.py" --nc-bench "$build/nc_bench" --threads "$n" \
        ${out:+--json "$out/$name-threads$n.json"} "$@" || failed=1
}
if [ -n "$train" ]; then
    training cnn-nmnist-3x3-step "$(nproc)" step "$trained" --T 16 --batch 32
    training neurons-8m "$(nproc)" neurons --T 4 --elements 8388608
    training linear-lif-step 1 step "$here/linear_lif.json" --frames --T 500 --batch 16
fi
exit $failed
