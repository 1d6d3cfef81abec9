#!/usr/bin/env bash
# Faults planted in copies of the CUDA kernels, one at a time: the kernels' cases, run in emulation, fail with each.
cd "$(dirname "$0")/.." || exit 2
. tests/script.sh
build=$(cd "${NC_BUILD:?names the build to use}" && pwd)
link=$(ninja -C "$build" -t commands nc_test | tail -1)
# The kernels' cases alone: libraries that others need start before the address sanitizer does, which it cannot bear.
tests=$(grep -oE 'nc_test\.p/tests_(main|card_memory|kernels_[a-z]*_test)\.cpp\.o' <<<"$link")
libraries=$(grep -o -- '-Wl,--as-needed.*' <<<"$link" | sed 's/libnc_cuda_emulated\.a//')
tree=$PWD emulated=libnc_cuda_emulated.a.p
sanitizer='-fsanitize=address'
export OMP_WAIT_POLICY=passive # spinning threads steal the core from the others
cores=$(nproc)
declare -A controlled # what is tried without a fault
tried=() # one name each; how it went is in $work/NUMBER/said

# compile SOURCE OBJECT FOLDER [FLAG]: as the emulated library is; what FOLDER has comes before the tree's.
compile() {
    g++ -std=c++20 -O1 -w -ffp-contract=off -I"$3" -I. -include tests/cuda_emulation.h \
        -DNC_CUDA=on_cuda_emulated ${4:-} -c -x c++ "$1" -o "$2"
}

# cases UNIT CASES FOLDER [FLAG]: builds the kernels of UNIT_cuda.cu and runs these cases on them. The exit status is
# the cases', 125 when there is nothing to run. CASES are "family: pattern of names".
cases() {
    local unit=$1 family=${2%%: *} pattern=${2#*: } folder=$3 flag=${4:-} others objects=("$3/kernels.o") source
    source=$folder/kernels/${unit}_cuda.cu
    [ -f "$source" ] || source=kernels/${unit}_cuda.cu
    compile "$source" "$folder/kernels.o" "$folder" "$flag" || return 125
    others=$(cd "$build" && ls $emulated/*.o | grep -v "_${unit}_cuda\.cu")
    if [ -n "$flag" ]; then
        others=$(grep -v /tests_cuda_emulation <<<"$others")
        objects+=("$work"/emulation*.o)
    fi
    (cd "$build" && g++ $flag -o "$folder/test" $tests "${objects[@]}" $others $libraries) || return 125
    timeout 60 "$folder/test" --abort-after=1 --no-colors=true -sf="*kernels_${family}_test.cpp" -tc="$pattern" \
        >"$folder/log" 2>&1
}

# plant FILE UNIT CASES FROM TO [FLAG]: says "as it should" when the cases fail with FROM in kernels/FILE replaced by TO.
plant() {
    local file=kernels/$1 unit=$2 cases=$3 from=$4 to=$5 folder=$PWD text status=0
    cd "$tree" || return
    text=$(<"$file")
    if [[ $text != *"$from"* ]] || [ "$from" = "$to" ]; then
        echo "$file has changed: the fault no longer applies: $from"
        return
    fi
    mkdir "$folder/kernels"
    printf '%s\n' "${text/"$from"/"$to"}" >"$folder/$file"
    cases "$unit" "$cases" "$folder" "${6:-}" >"$folder/built" 2>&1 || status=$?
    case $status in
        0) echo "not noticed" ;;
        124) echo "does not end" ;;
        125) echo "does not build" && cat "$folder/built" ;;
        *) echo "as it should" ;;
    esac
}

# control UNIT CASES [FLAG]: says "as it should" when the cases pass without a fault.
control() {
    local folder=$PWD
    cd "$tree" || return
    if [ -n "${3:-}" ]; then
        cases "$1" "$2" "$folder" "$3" >"$folder/built" 2>&1
    else
        "$build/nc_test" --no-colors=true -sf="*kernels_${2%%: *}_test.cpp" -tc="${2#*: }" >"$folder/log" 2>&1
    fi && echo "as it should" || cat "$folder/built" "$folder/log" 2>&1
}

# start NAME COMMAND...: beside others, one a core.
start() {
    local folder=$work/${#tried[@]}
    tried+=("$1")
    shift
    while [ "$(jobs -rp | wc -l)" -ge "$cores" ]; do wait -n; done
    mkdir "$folder"
    (cd "$folder" && "$@" >"$folder/said" 2>&1) &
}

# fault NAME FILE UNIT CASES FROM TO [FLAG]
fault() {
    local key="$3 with ${4#*: } ${7:-}"
    if [ -z "${controlled[$key]:-}" ]; then
        controlled[$key]=yes
        start "without a fault: $key" control "$3" "$4" "${7:-}"
    fi
    start "$1" plant "${@:2}"
}

for file in emulation emulation_runtime; do
    compile "tests/cuda_$file.cpp" "$work/$file.o" . $sanitizer
done

spike='spike: convolution canonical*'
fault 'spike: a slab of weights is read before it is there' spike_cuda.cu spike "$spike" \
    '__syncthreads();
            ky = slab_ky' \
    'ky = slab_ky'
fault 'spike: a slab of weights is written over while it is read' spike_cuda.cu spike "$spike" \
    '__syncthreads();
            for (unsigned i = threadIdx.x; i < rows * width' \
    'for (unsigned i = threadIdx.x; i < rows * width'
fault 'spike: a tile is read before it is there' spike_cuda.cu spike "$spike" \
    '__syncthreads();
        NC_UNROLL
        for (unsigned k = 0; k < tile_inputs; ++k)' \
    'NC_UNROLL
        for (unsigned k = 0; k < tile_inputs; ++k)'
fault 'spike: a shared array is one too small' spike_cuda.cu spike "$spike" \
    'slab_rows* width)' 'slab_rows* width - 1)' $sanitizer
fault 'spike: outputs past the last are written' spike_cuda.cu spike "$spike" \
    'if (pixel < all && o < s.cout)' 'if (pixel < all)' $sanitizer
fault 'spike: a canonical sum is taken in reverse' spike_cuda.cu spike "$spike" \
    'own[list[e + j] * s.cout]' 'own[list[listed - 1 - e - j] * s.cout]'
fault 'spike: the row after the one that fired is added' spike_cuda.cu spike "$spike" \
    'row + unsigned(__ffsll((long long)word) - 1)' 'row + unsigned(__ffsll((long long)word))'
fault 'spike: products that are not 0 or 1 times a weight are fused' spike_cuda.cu spike "$spike" \
    'binary ? add_tiles<true, 4> : add_tiles<false, 4>' 'add_tiles<true, 4>'
fault 'spike: a bias of -0 stays one' spike_cuda.cuh spike "$spike" 'bias[o] + 0.f' 'bias[o]'
fault 'spike: a ballot is kept by the wrong lane' spike_cuda.cu spike 'spike: spikes pack*' \
    'if (lane == k) own' 'if (lane == k + 1) own'
fault 'spike: words are left unwritten' spike_cuda.cu spike 'spike: spikes pack*' \
    'lane < at_once && first' 'lane + 1 < at_once && first'
fault 'spike: parts of a block sum are read before they are there' cuda_util.cuh spike 'spike: spikes pack*' \
    '__syncthreads();
    T sum' \
    'T sum'
fault 'split: the lower half of the weights is left out' spike_split_cuda.cu spike_split 'spike: split*' \
    'mma(sum[p][o], a[p], lo);' ''
fault 'split: two pieces of a fragment change places' spike_split_cuda.cu spike_split 'spike: split*' \
    'row >> i % 4 / 2 * 8' 'row >> i % 2 * 8'
fault 'split: spikes are written over while they are read' spike_split_cuda.cu spike_split 'spike: split*' \
    '__syncthreads();
        unsigned pieces' \
    'unsigned pieces'
fault 'neuron: the membrane is not carried over' neuron_cuda.cu neuron 'neuron: neuron forward equals*' \
    'v != nullptr && mine ? v[i] : v0[p]' 'v0[p]'
fault 'neuron: > for >=' neuron_math.h neuron 'neuron: neuron forward equals*' 'a >= theta' 'a > theta'
fault 'neuron: a step has a wrong stride' neuron_cuda.cu neuron 'neuron: neuron forward equals*' \
    'or_last(begin + j, s.steps) * s.size]' 'or_last(begin + j, s.steps) * padded]'
fault 'neuron: threads past the last element send spikes' neuron_cuda.cu neuron 'neuron: neuron forward equals*' \
    'spike && mine' 'spike'
fault 'neuron: a checkpoint is not stored' neuron_cuda.cu neuron 'neuron: neuron backward*' \
    'k.checkpoints[block * s.size + i] = m;' ''
fault 'neuron: a checkpoint of another block is read' neuron_cuda.cu neuron 'neuron: neuron backward*' \
    '(block - 1) * s.size' 'block * s.size'
fault 'sums: rows of a chunk are added before they are there' sum_cuda.cuh elementwise 'elementwise: prelu*' \
    '__syncthreads();
    if (ty != 0' \
    'if (ty != 0'
fault 'sums: a chunk begins at the one before' sum_cuda.cuh elementwise 'elementwise: prelu*' \
    'begin = chunk * height' 'begin = (chunk - (chunk > 0)) * height'
gemm='gemm: gemm: every table*'
fault 'gemm: a tile is read before it is there' gemm_cuda.cuh gemm "$gemm" \
    '__syncthreads();

    float sums' \
    'float sums'
fault 'gemm: a tile is written over while it is read' gemm_cuda.cuh gemm "$gemm" \
    '__syncthreads();
    }

    const bool whole' \
    '}

    const bool whole'
fault 'gemm: rows of a thread lie too close' gemm_cuda.cuh gemm "$gemm" 'i / 4 * 16' 'i / 4 * 8'
fault 'gemm: columns past the last are written' gemm_cuda.cuh gemm "$gemm" 'if (j < left) out' 'out'
fault 'gemm: terms past the last are read' gemm_cuda.cuh gemm "$gemm" 'at < end' 'at <= end' $sanitizer
fault 'gemm: a part of the terms is left out' gemm_cuda.cuh gemm "$gemm" 'unsigned s = 1;' 'unsigned s = 2;'
conv='conv: conv: strides*'
fault 'conv: the row below the image is read' conv_cuda.cu conv "$conv" \
    'unsigned(place.y + tap.y) >= h' 'unsigned(place.y + tap.y) > h'
fault 'conv: columns have the stride of rows' conv_cuda.cu conv "$conv" 'int(s.stride_w)' 'int(s.stride_h)'
fault 'reduce: of equal values the higher column wins' reduce_cuda.cu reduce 'reduce: argmax*' \
    'other_at < at' 'other_at > at'
fault 'reduce: the last run goes on past the array' reduce_cuda.cu reduce 'reduce: sum and sum*' \
    'begin + length < n ? begin + length : n' 'begin + length' $sanitizer
fault 'norm: rows past the last are written' norm_cuda.cu norm 'reduce: batch norm stays*' \
    'if (r < rows) out' 'out' $sanitizer
fault 'norm: factors of another channel are used' norm_cuda.cu norm 'reduce: batch norm stays*' \
    'return {f.a[c], f.b[c]}' 'return {f.a[c], f.b[0]}'
fault 'pool: the column right of the image is read' pool_cuda.cu pool 'pool: pooling and*' 'x < s.w' 'x <= s.w'
fault 'pool: a window too few covers a pixel' pool_cuda.cu pool 'pool: pooling and*' \
    'from / step + 1;' 'from / step;'
fault 'loss: the lanes do not share their greatest value' loss_cuda.cu loss 'loss: softmax*' \
    'top = other > top ? other : top' 'top = other > top ? top : top'
fault 'optim: a block steps what the next one steps too' optim_cuda.cu optim 'loss: optimiser steps give*' \
    'i < s.n; i += threads' 'i < s.n; i += threads / 2'
fault 'image: a flipped row begins one too far' image_cuda.cu image 'pool: augmentation*' \
    'width - 1 - ox' 'width - ox'
fault 'integer: threads past the last element send spikes' integer_cuda.cu integer 'integer: integer scan*' \
    'spike && mine' 'spike'
fault 'integer: a layer of several groups reads the first one only' integer_cuda.cu integer 'integer: an integer sum*' \
    'source.sum(r * groups + g' 'source.sum(r * groups'

wait
for i in "${!tried[@]}"; do
    said=$(<"$work/$i/said")
    if [ "$said" = "as it should" ]; then pass "${tried[i]}"; else fail "${tried[i]}" "$said"; fi
done
finish
