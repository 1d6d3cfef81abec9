#!/usr/bin/env bash
# Generated RTL: lint, Verilator and Icarus against the simulator in every u, v, s, logit and cycle;
# Yosys and nextpnr; C++ for HLS against the same; mutations that must be caught. Networks are trained,
# converted and quantised here; what images do not exercise has random ones. NC_BUILD names the build
# with the programs and integer_emit; NC_FULL synthesises larger networks and plays more samples.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/script.sh"
build=${NC_BUILD:-$(dirname "$here")/build}
export CCACHE_DISABLE=1
played=4 # of the MLP's 100 samples, by Icarus: it takes seconds each
[ -z "${NC_FULL:-}" ] || played=100
dataset=mnist
[ -d "${NC_DATA:-/nonexistent}/mnist" ] || dataset=fashion-mnist

# have TOOL NAME: the tool is there, else the test is skipped by name.
have() {
    command -v "$1" >/dev/null && return 0
    skip "$2" "$1 is not installed"
    return 1
}
design() { find . -maxdepth 1 -name '*.sv' ! -name testbench.sv -printf '%f\n' | sort | tr '\n' ' '; }

train() { "$build/nc_train" --dataset "$dataset" --samples 6000 --quiet "$@"; }
# convert NAME EPOCHS: of tuning through the time steps.
convert() {
    "$build/nc_convert" "$work/$1_ann" --T 8 --samples 6000 --qcfs-epochs 1 --if-epochs "$2" \
        --out "$work/$1_snn" --quiet
}
quantize() { "$build/nc_convert" quantize "$work/$1_snn" --samples 1000 --out "$work/$1" --quiet; }
make_mlp() {
    train --model mlp --epochs 2 --out "$work/net_mlp_ann" && convert net_mlp 1 && quantize net_mlp
}
make_residual() {
    train --graph "$here/rtl_residual.json" --epochs 2 --out "$work/net_residual_ann" &&
        convert net_residual 0 && quantize net_residual
}
make_lif() {
    train --graph "$here/rtl_lif.json" --T 8 --epochs 3 --out "$work/net_lif_snn" &&
        quantize net_lif
}

# network NAME: net_NAME, as a user would make it: more than half of the test images right.
network() {
    local said right
    if said=$("make_$1" 2>&1) &&
        right=$(grep -oP 'accuracy .*, \K[0-9.]+(?= % quantised)' <<<"$said") &&
        [ "${right%.*}" -gt 50 ]; then
        pass "$1 on $dataset: $right % of 1000 test images in whole numbers"
    else
        fail "$1 on $dataset" "$said"
        return 1
    fi
}

# export_to FORM NETWORK FOLDER SAMPLES LANES [OPTION...]: a trained network's hardware.
export_to() {
    local form=$1 network=$2 folder=$3 samples=$4 lanes=$5 said
    shift 5
    if said=$("$build/nc_convert" export "$work/net_$network" --emit "$form=$work/$folder" \
        --samples "$samples" --lanes "$lanes" "$@" 2>&1); then
        pass "$folder is written, $lanes lanes${*:+, $*}: ${said##*: }"
    else
        fail "$folder is written" "$said"
        return 1
    fi
}

# make FOLDER NETWORK SAMPLES T LANES [temporal] [pipelined] [hls]: a random network's.
make() {
    local folder=$work/$1 network=$2 samples=$3 T=$4 lanes=$5 said
    shift 5
    if said=$("$build/integer_emit" "$network" "$samples" "$T" "$lanes" "$folder" "$@" 2>&1); then
        echo "$network, T = $T, $lanes lanes${*:+, $*}: $said"
    else
        fail "$network is written" "$said"
        return 1
    fi
}

lint() {
    have verilator "lint of $1" || return
    # shellcheck disable=SC2046
    check "lint of $1" env -C "$work/$1" verilator --lint-only -Wall --top-module network_axis \
        $(cd "$work/$1" && design)
}

# agrees NAME SAMPLES SAID: the testbench compared so many samples and found no difference.
agrees() {
    if grep -q "^$2 samples, [0-9]* compared, 0 different$" <<<"$3"; then
        pass "$1: $(grep compared <<<"$3")"
    else
        fail "$1" "$(tail -n 25 <<<"$3")"
    fi
}

verilate() {
    have verilator "Verilator: $1" || return
    local log=$work/$1/verilator.log
    if (cd "$work/$1" && verilator --binary -Wno-fatal -Wno-WIDTH --top-module testbench ./*.sv) \
        >"$log" 2>&1; then
        agrees "Verilator: $1" "$2" "$(cd "$work/$1" && timeout 300 ./obj_dir/Vtestbench 2>&1)"
    else
        fail "Verilator: $1" "$(tail -n 25 "$log")"
    fi
}

# play FOLDER SAMPLES: what Icarus says.
play() {
    (cd "$work/$1" && iverilog -g2012 -s testbench -o testbench.vvp ./*.sv &&
        timeout 300 vvp -n testbench.vvp "+samples=$2") 2>&1
}
icarus() {
    have iverilog "Icarus: $1" || return
    agrees "Icarus: $1" "$2" "$(play "$1" "$2")"
}

# synthesise FOLDER TARGET COMMAND PATTERN: counts of the cells that match.
synthesise() {
    have yosys "Yosys: $1 for $2" || return
    local log=$work/$1/$2.log counts
    if (cd "$work/$1" && timeout 300 yosys -q -p \
        "read_verilog -defer -sv $(design); $3; check -assert; tee -o $2.txt stat") >"$log" 2>&1; then
        counts=$(awk -v want="$4" '$1 ~ want { n[$1] += $2 }
            END { for (k in n) printf "%s %d, ", k, n[k] }' "$work/$1/$2.txt")
        pass "Yosys: $1 for $2: ${counts%, }"
    else
        fail "Yosys: $1 for $2" "$(tail -n 25 "$log")"
    fi
}
ice40() {
    synthesise "$1" iCE40 'synth_ice40 -top network_axis -json network.json' '^SB_(LUT4|DFF|RAM|CARRY|MAC)'
}
xilinx() {
    synthesise "$1" xc7 'synth_xilinx -flatten -family xc7 -top network_axis' '^(LUT|FD|RAM|DSP|CARRY)'
}
place() {
    have nextpnr-ice40 "nextpnr: $1" || return
    local said
    said=$(cd "$work/$1" && timeout 300 nextpnr-ice40 --hx8k --package ct256 --json network.json \
        --pcf-allow-unconstrained --seed 1 2>&1)
    if grep -q '^Info: Max frequency' <<<"$said"; then
        pass "nextpnr: $1 on iCE40 HX8K: $(grep 'Max frequency' <<<"$said" | tail -1 | grep -o '[0-9.]* MHz' | head -1), $(
            grep -o 'ICESTORM_LC: *[0-9]*/ *[0-9]*' <<<"$said" | head -1 | tr -s ' ')"
    else
        fail "nextpnr: $1" "$(tail -n 25 <<<"$said")"
    fi
}

# mutant NAME FILES SED: changes a copy of `coarse`; the testbench must notice.
mutant() {
    have iverilog "mutation: $1" || return
    local copy=$work/mutant said
    rm -rf "$copy" && cp -r "$work/coarse" "$copy"
    # shellcheck disable=SC2086
    (cd "$copy" && sed -i "$3" $2)
    if [ -n "$(diff -rq "$work/coarse" "$copy")" ]; then
        said=$(play mutant 4)
        if grep -q '^4 samples, [0-9]* compared, 0 different$' <<<"$said"; then
            fail "mutation: $1" "nobody noticed"
        elif grep -Eq '^sample|^no end' <<<"$said"; then
            pass "mutation: $1: caught: $(grep -E '^sample|^no end' <<<"$said" | head -1)"
        else
            fail "mutation: $1" "$said"
        fi
    else
        fail "mutation: $1" "it changes nothing"
    fi
}

# hls FOLDER SAMPLES: the C++ compiles without a warning and finds no difference.
hls() {
    local said
    if said=$(cd "$work/$1" && "${CXX:-g++}" -std=c++17 -O1 -Wall -Wextra -Werror -Istand_in \
        main.cpp network.cpp -o check 2>&1 && ./check 2>&1); then
        agrees "HLS: $1" "$2" "$said"
    else
        fail "HLS: $1" "$(tail -n 25 <<<"$said")"
    fi
}

network mlp && {
    export_to hls mlp mlp_hls 100 8 && hls mlp_hls 100
    export_to rtl mlp mlp 100 8 && lint mlp && verilate mlp 100 && icarus mlp "$played"
}
network residual && {
    export_to hls residual residual_hls 10 8 && hls residual_hls 10
    export_to rtl residual residual 10 8 && lint residual && verilate residual 10 && icarus residual 10
    export_to rtl residual pipelined 2 4 --pipelined && lint pipelined && icarus pipelined 2
}
network lif && {
    export_to hls lif lif_hls 100 4 && hls lif_hls 100
    export_to rtl lif lif 100 4 && lint lif && verilate lif 100 && icarus lif 20 && xilinx lif
}
make mixed mixed 3 6 4 temporal pipelined && lint mixed && verilate mixed 3 && icarus mixed 3
make mixed_hls mixed 10 6 4 temporal hls && hls mixed_hls 10
make small small 4 8 4 && lint small && icarus small 4 && ice40 small && place small && xilinx small
make one small 4 8 1 && lint one && icarus one 4
if [ -n "${NC_FULL:-}" ]; then # minutes
    ice40 lif
    xilinx residual
    xilinx mlp
fi

make coarse_hls coarse 4 8 4 hls && sed -i 's/spike = v >= theta/spike = v > theta/' "$work/coarse_hls/spiking.h" &&
    if said=$(hls coarse_hls 4) && grep -Eq ', [1-9][0-9]* different' <<<"$said"; then
        pass 'HLS: >= to > is caught'
    else
        fail 'HLS: >= to > is caught' "$said"
    fi
make coarse coarse 4 8 4 && icarus coarse 4
mutant 'a weight bit' syn_2_0_weights.hex '5y/0123456789abcdef/1032547698badcfe/'
mutant 'threshold + 1' core_1.sv "s/, threshold};/, threshold + 1'd1};/"
mutant '>= to >' core_2.sv 's/\$signed(raised) >= /$signed(raised) > /'
mutant 'dropped events' core_1.sv 's/assign push = state == PUSH /assign push = (state == PUSH \&\& row != 0) /'
mutant 'a lost carry' core_2.sv 's/+ {{\(.*terms_0\)/^ {{\1/'
mutant 'a lost reset' core_2.sv 's/raised - level : raised/raised : raised/'
mutant 'accumulators not cleared' core_2.sv "s/adding ? sums : [0-9]*'d0/adding ? sums : accumulators/"
finish
