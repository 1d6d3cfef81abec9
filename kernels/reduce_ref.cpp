// The definition of the reduce family: plain loops, double sums.
#include <limits>

#include "kernels/families.h"

namespace nc::kernels {
namespace {

template <class F>
void sum(Queue&, const F* a, F* out, size_t n) {
    double total = 0;
    for (size_t i = 0; i < n; ++i) total += double(a[i]);
    *out = F(total);
}

template <class F>
void sum_squares(Queue&, const F* a, double* out, size_t n) {
    double total = 0;
    for (size_t i = 0; i < n; ++i) total += double(a[i]) * double(a[i]);
    *out = total;
}

template <class F>
void sum_rows(Queue&, const F* a, F* out, size_t rows, size_t cols) {
    for (size_t c = 0; c < cols; ++c) {
        double total = 0;
        for (size_t r = 0; r < rows; ++r) total += double(a[r * cols + c]);
        out[c] = F(total);
    }
}

// NaN counts as -infinity.
template <class F>
void argmax(Queue&, const F* a, int32_t* out, size_t rows, size_t cols) {
    for (size_t r = 0; r < rows; ++r) {
        F best = -std::numeric_limits<F>::infinity();
        out[r] = 0;
        for (size_t c = 0; c < cols; ++c)
            if (a[r * cols + c] > best) {
                best = a[r * cols + c];
                out[r] = int32_t(c);
            }
    }
}

size_t no_scratch(size_t) {
    return 0;
}

size_t no_rows_scratch(size_t, size_t) {
    return 0;
}

}  // namespace

template <class F>
Reduce<F> reference_reduce() {
    return {.sum = sum<F>,
            .sum_squares = sum_squares<F>,
            .sum_rows = sum_rows<F>,
            .argmax = argmax<F>,
            .sum_scratch = no_scratch,
            .sum_rows_scratch = no_rows_scratch};
}

template Reduce<float> reference_reduce<float>();
template Reduce<double> reference_reduce<double>();

}  // namespace nc::kernels
