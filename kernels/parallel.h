// Splitting a range over OpenMP threads; how a range is split never changes a result.
#pragma once

#include <stddef.h>

namespace nc::kernels {

// Calls body(begin, end) on disjoint ranges covering [0, n), each but the last a multiple of grain
// long. Static split: thread i gets the i-th run of grains. `static` so that no instruction set's
// copy can be linked into another's.
template <class Body>
static inline void parallel_for(int threads, size_t n, size_t grain, Body body) {
    if (n == 0) return;
    const size_t grains = (n + grain - 1) / grain;
    if (threads <= 1 || grains <= 1) {
        body(size_t(0), n);
        return;
    }
    const size_t parts = grains < size_t(threads) ? grains : size_t(threads);
#pragma omp parallel for schedule(static, 1) num_threads(int(parts))
    for (size_t part = 0; part < parts; ++part) {
        const size_t begin = grains * part / parts * grain;
        const size_t next = grains * (part + 1) / parts * grain;
        body(begin, next < n ? next : n);
    }
}

}  // namespace nc::kernels
