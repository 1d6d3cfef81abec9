// Matrix product, vectorised: packs either operand as it is stored and leaves the rest to
// gemm_core.
#include "kernels/families.h"
#include "kernels/gemm_core.h"

namespace nc::kernels::NC_ISA {

static void multiply(Queue& q, bool transpose_a, bool transpose_b, const float* a, const float* b,
                     const float* bias, bool accumulate, float* c, size_t m, size_t n, size_t k) {
    const size_t stride = transpose_a ? m : k;
    const auto gather = [=](size_t r0, size_t r1, size_t e0, size_t e1, float* dst) {
        for (size_t r = r0; r < r1; ++r, dst += row_stride) {
            if (r + 2 < r1)
                for (size_t e = e0; e < e1; e += 16) prefetch(a + (r + 2) * stride + e);
            copy_over(dst, a + r * stride + e0, e1 - e0);
        }
    };
    const auto pack_b = [=](size_t p0, size_t p1, size_t j0, size_t j1, float* dst) {
        if (transpose_b)
            pack_columns(b + j0 * k + p0, k, p1 - p0, j1 - j0, p1 - p0, 0, dst);
        else
            pack_rows(b + p0 * n + j0, n, p1 - p0, j1 - j0, p1 - p0, dst);
    };
    const auto row = [=](size_t i) { return c + i * n; };
    // Each element of b is read once or twice only when there are so few rows: not worth a copy.
    const float* direct = !transpose_b && m <= 2 * tile_rows ? b : nullptr;
    if (transpose_a)
        product<true>(q, m, n, k, gather, pack_b, direct, n, bias, accumulate, row);
    else
        product<false>(q, m, n, k, gather, pack_b, direct, n, bias, accumulate, row);
}

static size_t multiply_scratch(bool, bool, size_t, size_t n, size_t k, int threads) {
    return product_scratch(n, k, threads);
}

Gemm<float> gemm() {
    return {.gemm = multiply, .gemm_scratch = multiply_scratch};
}

}  // namespace nc::kernels::NC_ISA
