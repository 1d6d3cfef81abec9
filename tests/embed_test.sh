#!/usr/bin/env bash
# The library as those meet it who embed it: installed, then built against from outside the tree with
# pkg-config and with CMake, from C and from C++.
cd "$(dirname "$0")/.." || exit 2
. tests/script.sh
build=$(cd "${NC_BUILD:?names the build to use}" && pwd)
sources=$PWD/tests/embed
export DESTDIR=$work/installed

check 'meson install' meson install -C "$build" --no-rebuild --quiet
pc=$(find "$DESTDIR" -name nc.pc)
check 'a pkg-config file is installed' test -f "$pc"
prefix=$(sed -n 's/^prefix=//p' "$pc")
check 'headers are installed as nc/<folder>/<file>.h' test -f "$DESTDIR$prefix/include/nc/neurons/nc.h"
none_inner() { ! find "$DESTDIR" -name '*_simd.h' -o -name 'nc_program.h' | grep .; }
check 'no inner header is installed' none_inner

export PKG_CONFIG_PATH=${pc%/*} PKG_CONFIG_SYSROOT_DIR=$DESTDIR
flags=$(pkg-config --cflags nc) libraries=$(pkg-config --libs nc)
cp -r "$sources" "$work/embed"
cd "$work" || exit 2
check 'C with pkg-config' gcc -std=c99 -O2 -Wall -Wextra -Wpedantic -Werror embed/example.c $flags $libraries -o c_pc
check 'C++ with pkg-config' g++ -std=c++20 -O2 -Wall -Wextra -Wpedantic -Werror embed/example.cpp $flags $libraries -o cpp_pc
programs=(c_pc cpp_pc)
if command -v cmake >/dev/null; then
    config=$(find "$DESTDIR" -name nc-config.cmake)
    check 'cmake configures' cmake -S embed -B cmake -Dnc_DIR="${config%/*}"
    check 'cmake builds' cmake --build cmake
    programs+=(cmake/example_c cmake/example_cpp)
else
    skip 'C and C++ with CMake' 'no cmake'
fi

# A shared library around it gives away the C interface only.
library=$(find "$DESTDIR" -name libnc.a)
check 'a shared library' g++ -shared -o libembed.so -Wl,--whole-archive "$library" -Wl,--no-whole-archive $libraries
only_c() { [ "$(nm -D --defined-only libembed.so | awk '$2 == "T" { print $3 }' | grep -vc '^nc_')" = 0 ]; }
check 'it exports functions of nc.h and no others' only_c
all_of_c() {
    local name
    for name in $(grep -oP '^NC_API .*?\Knc_[a-z_]+(?=\()' "$sources/../../neurons/nc.h"); do
        nm -D --defined-only libembed.so | grep -qw "T $name" || { echo "$name is not exported"; return 1; }
    done
}
check 'all of them' all_of_c

# What they say is what nc_convert says of the same network.
check 'a network to run' "$build/nc_train" --model mlp --neuron if --dataset synthetic-events --samples 20 --epochs 1 --out m.safetensors
for program in "${programs[@]}"; do
    "./$program" m.safetensors >"$work/said" 2>&1
    status=$?
    [ -s first ] || cp said first
    if [ "$status" = 0 ] && [ -s said ] && cmp -s said first; then
        pass "$program runs, and says what the others say"
    else
        fail "$program runs, and says what the others say" "exit status $status"$'\n'"$(head -5 said)"
    fi
    ./"$program" none.safetensors >said 2>&1
    if [ $? = 1 ] && grep -q none.safetensors said; then
        pass "$program names a file that is not there"
    else
        fail "$program names a file that is not there" "$(cat said)"
    fi
done
strip -o stripped c_pc && echo "the C example, linked statically with libnc and stripped: $(stat -c %s stripped) bytes"
finish
