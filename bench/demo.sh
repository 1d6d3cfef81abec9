#!/usr/bin/env bash
# Events in, decisions out: recordings of an event camera through a spiking network, frame by frame.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/packages.sh

usage() {
    cat <<'END'
usage: bash bench/demo.sh [--model SNN.safetensors] [--dataset NAME] [--epochs N] [--samples N] [--run DIR]

Installs what is missing (as root or with sudo), builds the programs, and shows what a spiking network
does on a stream of events: its decisions with their latency, its sparsity and modelled energy, and
its NIR file. Without a model one is trained and converted, in about two minutes.
The data set: the model's, or N-MNIST where NC_DATA has it, or MNIST before a simulated camera, or
moving shapes. Leaves the model and the figures in DIR (run/demo). NC_BUILD names a build that is there.
END
}

model='' dataset='' epochs=5 samples=1000 run=run/demo
while [ $# -gt 0 ]; do
    case $1 in
        --model) model=${2:?--model wants a file} && shift 2 ;;
        --dataset) dataset=${2:?--dataset wants a name} && shift 2 ;;
        --epochs) epochs=${2:?--epochs wants a number} && shift 2 ;;
        --samples) samples=${2:?--samples wants a number} && shift 2 ;;
        --run) run=${2:?--run wants a folder} && shift 2 ;;
        -h | --help) usage && exit 0 ;;
        *) echo "error: unknown argument: $1" >&2 && usage >&2 && exit 2 ;;
    esac
done
[ -z "$model" ] || [ -f "$model" ] || { echo "error: no model file: $model" >&2 && exit 3; }

say() { printf '\n[%3d s] %s\n' "$SECONDS" "$1"; }

build=${NC_BUILD:-build}
if [ -z "${NC_BUILD:-}" ]; then
    say 'Packages'
    need_packages meson ninja-build g++ pkg-config libxsimd-dev zlib1g-dev nlohmann-json3-dev \
        libcli11-dev libfmt-dev libhdf5-dev libprotobuf-dev protobuf-compiler
    echo 'All there.'

    say 'Building nc_train, nc_convert and nc_bench in build/'
    if [ -f build/build.ninja ]; then
        # A build from before these packages were there looks for them again.
        meson setup --reconfigure build >/dev/null
    else
        # CUDA only where it can run: its kernels take minutes to compile.
        [ -e /dev/nvidiactl ] && cuda=auto || cuda=disabled
        meson setup build -Dcuda=$cuda >/dev/null
    fi
    ninja -C build --quiet nc_train nc_convert nc_bench
fi

mkdir -p "$run"
if [ -z "$model" ]; then
    data=${NC_DATA:-/usr/share/datasets}
    if [ -z "$dataset" ]; then
        if [ -d "$data/nmnist" ]; then
            dataset=nmnist
        elif [ -d "$data/mnist" ]; then
            dataset=nmnist-simulated
        else
            dataset=synthetic-events
        fi
    fi
    model=$run/snn.safetensors
    say "Training a network on $dataset ($epochs epochs of $samples recordings)"
    "$build"/nc_train --model cnn-nmnist --dataset "$dataset" --T 10 --batch 32 --epochs "$epochs" \
        --samples "$samples" --seed 0 --out "$run/ann.safetensors" --force
    say 'Converting it to spikes'
    "$build"/nc_convert "$run/ann.safetensors" --dataset "$dataset" --T 10 --fold after --batch 32 --qcfs-epochs 2 \
        --if-epochs 3 --samples "$samples" --seed 0 --out "$model" --force
fi
from=(${dataset:+--dataset "$dataset"})

say 'Decisions: test recordings as a stream, with and without deciding early'
"$build"/nc_bench stream "$model" "${from[@]}" --margin 0,1,2,4 --threads 1 --samples "$samples" \
    --json "$run/stream.json" --force

recorded=("${NC_DATA:-/nonexistent}"/nmnist/Test/*/00001.bin)
if [ -f "${recorded[0]}" ]; then
    say "Decisions on a file of events: ${recorded[0]}"
    "$build"/nc_bench stream "$model" "${recorded[0]}" --margin 2 --threads 1
fi

say 'Spikes and modelled energy of whole recordings'
"$build"/nc_convert sparsity "$model" "${from[@]}" --samples "$samples" --json "$run/sparsity.json" --force
"$build"/nc_convert energy "$model" "${from[@]}" --samples "$samples" --json "$run/energy.json" --force

say 'The network as NIR, and the accuracy of what comes back from the file'
"$build"/nc_convert export "$model" --emit nir="$run/net.nir" --force
"$build"/nc_convert eval "$run/net.nir" "${from[@]}" --samples "$samples"

say "Done. The figures are in $run: stream.json, sparsity.json, energy.json; the network is $run/net.nir."
