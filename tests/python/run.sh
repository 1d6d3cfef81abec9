#!/usr/bin/env bash
# The checks against Python's packages: makes a virtual environment, installs what is missing, runs every *_check.py.
set -uo pipefail
cd "$(dirname "$0")" || exit 2
. ../../bench/packages.sh

usage() {
    cat <<'END_USAGE'
usage: bash tests/python/run.sh [--full] [CHECK...]

CHECK names a file by what stands before _check.py; all of them by default. --full (or NC_FULL=1) runs
what takes longer too. NC_BUILD is the folder of the programs (default: build), NC_DATA names real data,
NC_GOLDEN recorded files. The packages are kept in a virtual environment: NC_VENV, or neurocuda/python in
the user's cache folder. What is not there, and cannot be installed, is skipped by name.
The last line is "N passed, N failed, N skipped"; the exit status is 0 when nothing failed.
END_USAGE
}

arguments=() names=()
[ "${NC_FULL:-}" != 1 ] || arguments=(--full)
for argument; do
    case $argument in
        --full) arguments=(--full) ;;
        -h | --help) usage; exit 0 ;;
        -*) echo "error: unknown argument: $argument" >&2; usage >&2; exit 2 ;;
        *) names+=("$argument") ;;
    esac
done
if [ ${#names[@]} = 0 ]; then
    for file in *_check.py; do names+=("${file%_check.py}"); done
fi
for name in "${names[@]}"; do
    [ -f "${name}_check.py" ] || { echo "error: no such check: $name" >&2; exit 2; }
done
NC_BUILD=$(cd ../.. && cd "${NC_BUILD:-build}" 2>/dev/null && pwd) ||
    { echo 'error: no build; NC_BUILD names its folder' >&2; exit 2; }
export NC_BUILD

# PyTorch first. NIR by version: older ones lack v_reset, and other packages are content with them.
packages=(numpy torch torchvision safetensors onnx onnxscript onnxruntime "nir>=1.0.8" "nirtorch>=2.6" norse snntorch
    tonic expelliarmus neurobench gymnasium)
venv=${NC_VENV:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/neurocuda/python}
python=$venv/bin/python
pip=("$python" -m pip install -q --no-input --disable-pip-version-check --retries 1 --timeout 30)

installed() { "$python" -m pip -q show "$1" >/dev/null 2>&1; }

install_torch() {
    # Without what it asks for, which is 2 GB of CUDA; then what is left of that.
    local site
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    { installed torch || "${pip[@]}" --no-deps torch; } && "$python" cpu_torch.py "$site" &&
        "${pip[@]}" torch && "$python" -c 'import torch'
}

# Installs one by one: a package that is not to be had leaves the others.
install() {
    local name log=$venv/install.log
    need_packages python3 python3-venv binutils gcc || echo 'python: not every tool could be installed'
    if ! [ -x "$python" ] && ! python3 -m venv "$venv"; then
        echo "no virtual environment in $venv: what Python has is used"
        python=python3
        return
    fi
    : >"$log"
    for name in "${packages[@]}"; do
        if [ "$name" = torch ]; then install_torch >>"$log" 2>&1; else "${pip[@]}" "$name" >>"$log" 2>&1; fi ||
            {
                echo "could not install $name: $(tail -n 1 "$log")"
                # Nothing else will come where not even this does.
                [ "$name" != numpy ] || return
                continue
            }
        echo "[$SECONDS s] $name"
    done
    printf '%s\n' "${packages[@]}" >"$venv/installed"
}

mkdir -p "$venv"
exec 9>"$venv/lock"
flock 9
if ! printf '%s\n' "${packages[@]}" | cmp -s - "$venv/installed"; then
    echo "Installing Python packages in $venv"
    install
fi
exec 9>&-

passed=0 failed=0 skipped=0
for name in "${names[@]}"; do
    echo "[$SECONDS s] $name"
    log=$(mktemp) status=0
    timeout 3000 "$python" -W ignore "${name}_check.py" "${arguments[@]}" >"$log" 2>&1 </dev/null || status=$?
    cat "$log"
    if [[ $(tail -n 1 "$log") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        f=${BASH_REMATCH[2]}
        [ "$status" = 0 ] || [ "$f" -gt 0 ] || f=1
        passed=$((passed + BASH_REMATCH[1])) skipped=$((skipped + BASH_REMATCH[3]))
    else
        f=1
    fi
    [ "$f" = 0 ] || echo "FAILED: $name (exit status $status)"
    failed=$((failed + f))
    rm -f "$log"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
