#!/usr/bin/env bash
# The order of the folders, the rules of #include lines, and what vector code may leak into the rest.
cd "$(dirname "$0")/.." || exit 2
. tests/script.sh

layers=(kernels engine io datasets autograd neurons hw convert bench tests)
declare -A rank
for i in "${!layers[@]}"; do rank[${layers[i]}]=$i; done
sources=$(git ls-files -co --exclude-standard -- '*.h' '*.cpp' '*.cu' '*.cuh')

# Every breach on its own line; an empty answer is a pass.
none() {
    local name=$1
    shift
    local breaches
    breaches=$("$@")
    if [ -z "$breaches" ]; then pass "$name"; else fail "$name" "$breaches"; fi
}

# "file:line:header" of each quoted #include.
quoted() { grep -nHoP '^\s*#\s*include\s*"\K[^"]+' $sources; }

unknown_folders() {
    git ls-files -co --exclude-standard | grep / | cut -d/ -f1 | sort -u |
        grep -vxE "$(IFS='|' && echo "${layers[*]}|\.ci")"
}

upward_includes() {
    local file line header from to
    while IFS=: read -r file line header; do
        from=${rank[${file%%/*}]:-} to=${rank[${header%%/*}]:-}
        if [ -z "$to" ] || [ ! -f "$header" ]; then
            echo "$file:$line: \"$header\" is not a file named from the root"
        elif [ "$to" -gt "${from:-99}" ]; then
            echo "$file:$line: ${file%%/*} may not include ${header%%/*}"
        fi
    done < <(quoted)
}

# x.cpp includes x.h, where there is one, before anything else.
own_header_later() {
    local file first
    for file in $(grep '\.cpp$' <<<"$sources"); do
        [ -f "${file%.cpp}.h" ] || continue
        first=$(grep -oPm1 '^#include\s*\K.*' "$file")
        [ "$first" = "\"${file%.cpp}.h\"" ] || echo "$file: begins with $first"
    done
}

headers_without_once() { grep -L '^#pragma once$' $(grep '\.h$' <<<"$sources"); }

files_without_opening() {
    local file
    for file in $sources; do head -1 "$file" | grep -q '^// .' || echo "$file"; done
}

# Vector code lives only in *_simd.cpp and isa.h, which include only what is static.
vectors_elsewhere() {
    grep -lE '#include <(xsimd|immintrin|x86intrin)' $sources |
        grep -vxE 'kernels/(isa\.h|[a-z0-9_]+_simd\.cpp)'
}
simd_includes() {
    quoted | grep -E '^kernels/(isa\.h|[a-z0-9_]+_simd\.cpp):' |
        grep -vE ':kernels/(isa|kernels|families|parallel|neuron_math|[a-z0-9_]+_(simd|core))\.h$'
    grep -nHE '^#include <' kernels/*_simd.cpp | grep -vE '<[a-z0-9]+\.h>|<xsimd/'
}
reference_includes() { grep -nHE 'neuron_math\.h|isa\.h|_simd' kernels/*_ref.cpp; }

# The kernels neither throw, allocate nor print.
kernel_calls() {
    grep -nHE '\bthrow\b|std::vector|\bnew [A-Z]|\bmalloc\(|\bprintf\(|std::cout|std::cerr' \
        $(grep '^kernels/' <<<"$sources") | grep -vE ':[0-9]+: *//'
}
# The library never prints, aborts or exits; the programs do.
library_prints() {
    grep -nHE 'std::(cout|cerr|exit|abort)\b|\b(f?printf|exit|abort)\(' \
        $(grep -E '^(kernels|engine|io|datasets|autograd|neurons|hw|convert)/' <<<"$sources" |
            grep -v '/nc_[a-z]*\.\(cpp\|h\)$') | grep -vE ':[0-9]+: *//'
}

# The linker keeps one copy of a weak symbol; one compiled for AVX2 must not be it. Each object's
# weak symbols belong to its own instruction set's namespace.
leaking_symbols() {
    local isa
    for isa in sse2 avx2 avx512; do
        nm -C --defined-only "$NC_BUILD/kernels/libnc_$isa.a" 2>/dev/null |
            grep -E '^[0-9a-f]+ [WVu] ' | grep -vE "xsimd_$isa|nc::kernels::$isa" | grep -v 'DW\.ref' | sort -u |
            sed "s/^[0-9a-f]*/libnc_$isa.a:/"
    done
}

none 'only the folders of the design' unknown_folders
none 'a folder includes itself and those above it' upward_includes
none 'a source file begins with its own header' own_header_later
none 'every header has #pragma once' headers_without_once
none 'every file opens with what it is for' files_without_opening
none 'vector code only in *_simd.cpp' vectors_elsewhere
none 'vector code includes only what is static' simd_includes
none 'the reference shares no code with the fast kernels' reference_includes
none 'kernels never throw, allocate or print' kernel_calls
none 'the library never prints, aborts or exits' library_prints
if [ -n "${NC_BUILD:-}" ]; then
    # A build that is named has them: what is looked for elsewhere must not pass for found clean.
    [ -f "$NC_BUILD/kernels/libnc_avx2.a" ] ||
        fail 'the libraries of the instruction sets' "$NC_BUILD/kernels holds no libnc_avx2.a"
    none 'no inline function of an instruction set leaks' leaking_symbols
else
    skip 'no inline function of an instruction set leaks' 'NC_BUILD names no build'
fi
finish
