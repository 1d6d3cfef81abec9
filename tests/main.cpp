// The test binary: doctest's main, which refuses an NC_ISA this machine cannot run.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "tests/check.h"

// What clang's libomp keeps for its threads until the process ends is no leak of ours.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() {
    return "leak:libomp.so\n";
}

int main(int argc, char** argv) {
    // A kernel has ended when its launch returns, so that a test may read what it wrote. Cases of the
    // engine wait by themselves: they may be given 0.
    setenv("CUDA_LAUNCH_BLOCKING", "1", 0);
    if (nc::kernels::best() == nullptr) {
        const char* forced = std::getenv("NC_ISA");
        std::fprintf(stderr, "NC_ISA=%s: %s\n", forced, nc::kernels::why_unusable(forced));
        return 2;
    }
    nc::test::use_card_memory();
    return doctest::Context(argc, argv).run();
}
