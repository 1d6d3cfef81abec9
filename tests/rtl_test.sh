#!/usr/bin/env bash
# Generated RTL: lint, Verilator and Icarus against the simulator in every u, v, s, logit and cycle;
# Yosys and nextpnr; C++ for HLS against the same; mutations that must be caught. NC_BUILD names the
# build with integer_emit; NC_FULL synthesises larger networks too.
. "$(dirname "$0")/script.sh"
emit=${NC_BUILD:-$(cd "$(dirname "$0")/.." && pwd)/build}/integer_emit
export CCACHE_DISABLE=1

# have TOOL NAME: the tool is there, else the test is skipped by name.
have() {
    command -v "$1" >/dev/null && return 0
    skip "$2" "$1 is not installed"
    return 1
}
design() { find . -maxdepth 1 -name '*.sv' ! -name testbench.sv -printf '%f\n' | sort | tr '\n' ' '; }

# make FOLDER NETWORK SAMPLES T LANES [temporal] [pipelined]
make() {
    local folder=$work/$1 network=$2 samples=$3 T=$4 lanes=$5
    shift 5
    if said=$("$emit" "$network" "$samples" "$T" "$lanes" "$folder" "$@" 2>&1); then
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

make mlp_hls mlp 100 8 16 hls && hls mlp_hls 100
make conv_hls conv 10 8 8 hls && hls conv_hls 10
make lif_hls lif 100 8 8 temporal hls && hls lif_hls 100
make residual_hls residual 10 6 4 hls && hls residual_hls 10
make coarse_hls coarse 4 8 4 hls && sed -i 's/spike = v >= theta/spike = v > theta/' "$work/coarse_hls/spiking.h" &&
    if said=$(hls coarse_hls 4) && grep -Eq ', [1-9][0-9]* different' <<<"$said"; then
        pass 'HLS: >= to > is caught'
    else
        fail 'HLS: >= to > is caught' "$said"
    fi

make mlp mlp 100 8 16 && lint mlp && verilate mlp 100 && icarus mlp 1
make conv conv 10 8 8 && lint conv && verilate conv 10 && icarus conv 10
make lif lif 20 8 8 && lint lif && verilate lif 20 && icarus lif 20
make residual residual 3 6 4 temporal pipelined && lint residual && verilate residual 3 && icarus residual 3
make pipelined conv 3 8 4 pipelined && lint pipelined && icarus pipelined 3
make one lif 3 6 1 && lint one && icarus one 3
make small small 4 8 4 && lint small && icarus small 4 && ice40 small && place small && xilinx small
xilinx lif
if [ -n "${NC_FULL:-}" ]; then # minutes
    ice40 lif
    xilinx conv
    xilinx mlp
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
