#!/usr/bin/env bash
# The figures of the README again: each experiment trains, converts, measures and says PASS or SHORT.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/packages.sh

usage() {
    cat <<'END'
usage: bash bench/reproduce.sh --list | --quick | --all | NAME... [--seeds LIST] [--minutes N] [--out DIR] [--fresh]
       bash bench/reproduce.sh --demo    events in, decisions out: see bench/demo.sh --help

Runs experiments (--list names them): trains, converts and measures on the whole test set, prints each figure beside
published ones and the goal, says PASS or SHORT, and writes bench/results/NAME.json (--out: into DIR).
--quick takes those of a few minutes, with one seed; its results go to run/reproduce/quick and are no claim.
What was cut, by Ctrl-C, --minutes or a lost machine, goes on where it was when the same command is given again; the
models lie in run/reproduce/NAME, those of hours of work in bench/results/NAME. --fresh begins again. --seeds 0,1 takes these and labels the result so. --table FILE is a table of your own (default:
bench/experiments.py).
Exit status: 0 every required figure is reached, 1 one is not, 2 bad usage or no data, 130 cut.
NC_BUILD names a build that is there already; NC_DATA the data sets, which are fetched when they are missing.
END
}

[ $# -gt 0 ] || { usage >&2; exit 2; }
for word; do
    case $word in -h | --help) usage; exit 0 ;; esac
done
if [ "$1" = --demo ]; then
    shift
    exec bash bench/demo.sh "$@"
fi
need_packages python3
case " $* " in *' --list '*) exec python3 bench/reproduce.py "$@" ;; esac
need_packages dataset-fashion-mnist
if [ -z "${NC_BUILD:-}" ]; then
    need_packages meson ninja-build g++ pkg-config libxsimd-dev zlib1g-dev nlohmann-json3-dev libcli11-dev libfmt-dev
    # CUDA only where it can run: its kernels take minutes to compile.
    [ -e /dev/nvidiactl ] && cuda=auto || cuda=disabled
    [ -f build/build.ninja ] || meson setup build -Dcuda=$cuda >/dev/null
    ninja -C build --quiet nc_train nc_convert nc_bench
    NC_BUILD=$PWD/build
fi
export NC_BUILD
exec python3 bench/reproduce.py "$@"
