// The reduce family of one instruction set: the trees of loops_simd.h, so all sets give the same
// bits.
#include "kernels/families.h"
#include "kernels/loops_simd.h"

namespace nc::kernels::NC_ISA {

static void sum_rows(Queue& q, const float* a, float* out, size_t rows, size_t cols) {
    sum_over_rows<1>(
        q.threads, rows, cols, reinterpret_cast<float*>(q.scratch),
        [=](auto io, size_t i, size_t, Vec* v) { v[0] = io.load(a + i); },
        [=](size_t, size_t c, double total) { out[c] = float(total); });
}

static size_t sum_rows_scratch(size_t rows, size_t cols) {
    return row_sums_scratch(rows, cols, 1);
}

static void sum(Queue& q, const float* a, float* out, size_t n) {
    sum_rows(q, a, out, n, 1);
}

// Blocks of 16384 elements, in each 16 double accumulators.
constexpr static size_t square_block = 16384;

static void sum_squares(Queue& q, const float* a, double* out, size_t n) {
    double* blocks = reinterpret_cast<double*>(q.scratch);
    const size_t count = (n + square_block - 1) / square_block;
    parallel_for(q.threads, count, 4, [=](size_t begin, size_t end) {
        for (size_t b = begin; b < end; ++b) {
            const size_t last = (b + 1) * square_block < n ? (b + 1) * square_block : n;
            double acc[16] = {};
            size_t i = b * square_block;
            for (; i + 16 <= last; i += 16)
                for (size_t k = 0; k < 16; ++k) acc[k] += double(a[i + k]) * double(a[i + k]);
            for (size_t k = 0; i < last; ++i, ++k) acc[k] += double(a[i]) * double(a[i]);
            for (size_t half = 8; half > 0; half /= 2)
                for (size_t k = 0; k < half; ++k) acc[k] += acc[k + half];
            blocks[b] = acc[0];
        }
    });
    double total = 0;
    for (size_t b = 0; b < count; ++b) total += blocks[b];
    *out = total;
}

static size_t sum_scratch(size_t n) {
    const size_t squares = (n + square_block - 1) / square_block * sizeof(double);
    const size_t sums = row_sums_scratch(n, 1, 1);
    return squares > sums ? squares : sums;
}

// The greatest value by vectors, then its first place. NaN compares below everything.
static int32_t row_argmax(const float* a, size_t cols) {
    const float low = -__builtin_inff();
    Vec top = broadcast(low);
    float best = low;
    size_t i = 0;
    for (; i + lanes <= cols; i += lanes) {
        const Vec v = load(a + i);
        top = select(v > top, v, top);
    }
    float each[lanes];
    store(each, top);
    for (float v : each) best = v > best ? v : best;
    for (; i < cols; ++i) best = a[i] > best ? a[i] : best;
    if (best == low) return 0;
    const Vec wanted = broadcast(best);
    for (i = 0; i + lanes <= cols; i += lanes) {
        const uint32_t hits = mask_bits(load(a + i) == wanted);
        if (hits != 0) return int32_t(i) + __builtin_ctz(hits);
    }
    while (a[i] != best) ++i;
    return int32_t(i);
}

static void argmax(Queue& q, const float* a, int32_t* out, size_t rows, size_t cols) {
    parallel_for(q.threads, rows, 32768 / (cols + 1) + 1, [=](size_t begin, size_t end) {
        for (size_t r = begin; r < end; ++r) out[r] = row_argmax(a + r * cols, cols);
    });
}

Reduce<float> reduce() {
    return {.sum = sum,
            .sum_squares = sum_squares,
            .sum_rows = sum_rows,
            .argmax = argmax,
            .sum_scratch = sum_scratch,
            .sum_rows_scratch = sum_rows_scratch};
}

}  // namespace nc::kernels::NC_ISA
