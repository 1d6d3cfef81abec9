// The test binary: doctest's main, which refuses an NC_ISA this machine cannot run.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/kernels.h"

int main(int argc, char** argv) {
    if (nc::kernels::best() == nullptr) {
        const char* forced = std::getenv("NC_ISA");
        std::fprintf(stderr, "NC_ISA=%s: %s\n", forced, nc::kernels::why_unusable(forced));
        return 2;
    }
    return doctest::Context(argc, argv).run();
}
