#!/usr/bin/env bash
# The main job from a clean clone: trains LeNet on Fashion-MNIST, converts it to spikes, reports.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/packages.sh

usage() {
    cat <<'END'
usage: bash bench/quickstart.sh [--epochs N] [--samples N] [--run DIR]

Installs what is missing (as root or with sudo), builds the programs, trains LeNet on Fashion-MNIST,
converts it to a spiking network for 8 time steps, and prints accuracy, sparsity and energy on the
10 000 test images. Leaves the models, the figures and report.html in DIR (run/quickstart).
--epochs and --samples make the training shorter; the figures are then no measure of anything.
END
}

epochs=5 samples=() run=run/quickstart
while [ $# -gt 0 ]; do
    case $1 in
        --epochs) epochs=${2:?--epochs wants a number} && shift 2 ;;
        --samples) samples=(--samples "${2:?--samples wants a number}") && shift 2 ;;
        --run) run=${2:?--run wants a folder} && shift 2 ;;
        -h | --help) usage && exit 0 ;;
        *) echo "error: unknown argument: $1" >&2 && usage >&2 && exit 2 ;;
    esac
done

say() { printf '\n[%3d s] %s\n' "$SECONDS" "$1"; }

say 'Packages'
need_packages meson ninja-build g++ pkg-config libxsimd-dev zlib1g-dev nlohmann-json3-dev \
    libcli11-dev libfmt-dev dataset-fashion-mnist
echo 'All there.'

say 'Building nc_train and nc_convert in build/'
# CUDA only where it can run: its kernels take minutes to compile.
[ -e /dev/nvidiactl ] && cuda=auto || cuda=disabled
[ -f build/build.ninja ] || meson setup build -Dcuda=$cuda >/dev/null
ninja -C build --quiet nc_train nc_convert

mkdir -p "$run"
say "Training LeNet on Fashion-MNIST ($epochs epochs)"
build/nc_train --model lenet --dataset fashion-mnist --epochs "$epochs" "${samples[@]}" --seed 0 \
    --out "$run/ann.safetensors" --log "$run/train.jsonl" --force

say 'Converting to spikes: calibration, QCFS training, fine-tuning through 8 time steps'
build/nc_convert "$run/ann.safetensors" --dataset fashion-mnist --T 8 "${samples[@]}" --seed 0 \
    --out "$run/snn.safetensors" --report "$run/report.html" --json "$run/stats.json" --force

say "Done. Look at $run/report.html; the models and the figures (stats.json, train.jsonl) are beside it."
