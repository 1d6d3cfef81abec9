// Matrix product, the definition: plain loops, double sums.
#include "kernels/families.h"

namespace nc::kernels {
namespace {

constexpr size_t block = 64;  // columns of c summed at once, so that b is read along its rows

template <class F>
void gemm(Queue& q, bool transpose_a, bool transpose_b, const F* a, const F* b, const F* bias,
          bool accumulate, F* c, size_t m, size_t n, size_t k) {
    const size_t a_row = transpose_a ? 1 : k, a_col = transpose_a ? m : 1;
#pragma omp parallel for schedule(static) num_threads(q.threads)
    for (size_t i = 0; i < m; ++i) {
        for (size_t j0 = 0; j0 < n; j0 += block) {
            const size_t cols = n - j0 < block ? n - j0 : block;
            double sum[block] = {};
            if (transpose_b) {
                for (size_t j = 0; j < cols; ++j)
                    for (size_t p = 0; p < k; ++p)
                        sum[j] += double(a[i * a_row + p * a_col]) * double(b[(j0 + j) * k + p]);
            } else {
                for (size_t p = 0; p < k; ++p) {
                    const double factor = double(a[i * a_row + p * a_col]);
                    for (size_t j = 0; j < cols; ++j) sum[j] += factor * double(b[p * n + j0 + j]);
                }
            }
            F* out = c + i * n + j0;
            for (size_t j = 0; j < cols; ++j) {
                if (bias != nullptr) sum[j] += double(bias[j0 + j]);
                if (accumulate) sum[j] += double(out[j]);
                out[j] = F(sum[j]);
            }
        }
    }
}

size_t gemm_scratch(bool, bool, size_t, size_t, size_t, int) {
    return 0;
}

}  // namespace

template <class F>
Gemm<F> reference_gemm() {
    return {.gemm = gemm<F>, .gemm_scratch = gemm_scratch};
}
template Gemm<float> reference_gemm<float>();
template Gemm<double> reference_gemm<double>();

}  // namespace nc::kernels
