// Matrix product on CUDA: the tiles of gemm_cuda.cuh over operands stored either way.
//
// Bytes and flops: 2 m n k flops for 4 (m k / columns of a tile + k n / rows of a tile) n, m bytes
// read through the second-level cache, 4 (m k + k n + m n) from memory when it holds them. A
// layer's weight gradient has a small m n and a large k: there k is split over blocks (8 m n bytes
// more a split).
#include "kernels/gemm_cuda.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

template <bool transpose_a, bool transpose_b>
void product(Queue& q, const float* a, const float* b, const float* bias, bool accumulate, float* c,
             size_t m, size_t n, size_t k) {
    const Matrix<!transpose_a> lines_a = {a, unsigned(transpose_a ? m : k), 0};
    const Matrix<transpose_b> lines_b = {b, unsigned(transpose_b ? k : n), 0};
    multiply(q, lines_a, lines_b, PlainRows{unsigned(n)}, bias, accumulate, c, m, n, k, 1);
}

void gemm(Queue& q, bool transpose_a, bool transpose_b, const float* a, const float* b,
          const float* bias, bool accumulate, float* c, size_t m, size_t n, size_t k) {
    const auto run = transpose_a ? (transpose_b ? product<true, true> : product<true, false>)
                                 : (transpose_b ? product<false, true> : product<false, false>);
    run(q, a, b, bias, accumulate, c, m, n, k);
}

size_t gemm_scratch(bool, bool, size_t m, size_t n, size_t k, int) {
    return product_scratch(m, n, k, 1);
}

}  // namespace

Gemm<float> gemm() {
    return {.gemm = gemm, .gemm_scratch = gemm_scratch};
}

}  // namespace nc::kernels::NC_CUDA
