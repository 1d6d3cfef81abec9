// Loops over arrays and over the columns of matrices for the vector files: ends that do not fill a
// vector, rows that do not, and sums over rows by a tree that depends on the sizes only.
#pragma once

#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/parallel.h"

namespace nc::kernels::NC_ISA {

// How a loop's body reads and writes: whole vectors, or the first n lanes of the last one.
struct Whole {
    Vec load(const float* p) const { return NC_ISA::load(p); }
    void store(float* p, Vec v) const { NC_ISA::store(p, v); }
};
struct Part {
    size_t n;
    Vec load(const float* p) const { return load_partial(p, n); }
    void store(float* p, Vec v) const { store_partial(p, v, n); }
};

// Calls body(Whole or Part, i) for the vectors that make up [begin, end).
template <class Body>
static inline void vector_loop(size_t begin, size_t end, Body body) {
    size_t i = begin;
    for (; i + lanes <= end; i += lanes) body(Whole{}, i);
    if (i < end) body(Part{end - i}, i);
}

// The same over [0, n) on threads; grain: the elements worth a thread's while.
template <class Body>
static inline void parallel_vectors(int threads, size_t n, size_t grain, Body body) {
    parallel_for(threads, n, grain,
                 [&](size_t begin, size_t end) { vector_loop(begin, end, body); });
}

// A matrix [rows, cols] read as wide rows of `repeat` rows each, so that a wide row is a multiple
// of 16 floats and at least 64 where that fits in max_wide; otherwise repeat is 1.
constexpr static size_t max_wide = 1024;
struct Tiling {
    size_t repeat, wide;
};
static inline Tiling tiling(size_t cols) {
    size_t repeat = 1;
    while (cols * repeat % 16 != 0 || cols * repeat < 64) repeat *= 2;
    return cols * repeat <= max_wide ? Tiling{repeat, cols * repeat} : Tiling{1, cols};
}

// A row [cols] repeated to a wide row. Without memory of its own when it is one already.
class WideRow {
 public:
    WideRow(const float* row, size_t cols) : row_(row) {
        const Tiling t = tiling(cols);
        if (t.repeat == 1) return;
        for (size_t i = 0; i < t.wide; i += cols) memcpy(copy_ + i, row, cols * sizeof(float));
        row_ = copy_;
    }
    WideRow(const WideRow&) = delete;
    const float* data() const { return row_; }

 private:
    const float* row_;
    float copy_[max_wide];
};

// Calls body(Whole or Part, i, j) for the vectors of a matrix [rows, cols], cols > 0: i is the
// element, j its place in the wide row.
template <class Body>
static inline void parallel_rows(int threads, size_t rows, size_t cols, size_t grain, Body body) {
    const Tiling t = tiling(cols);
    const size_t n = rows * cols;
    const size_t wide_grain = (grain + t.wide - 1) / t.wide * t.wide;
    parallel_for(threads, n, wide_grain, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; i += t.wide) {
            const size_t length = end - i < t.wide ? end - i : t.wide;
            vector_loop(0, length, [&](auto io, size_t j) { body(io, i + j, j); });
        }
    });
}

// Sums over rows: blocks of 256 wide rows, in each four wide rows at a time as (a + b) + (c + d),
// then halves of the wide row onto each other, then the blocks in order in double.
constexpr static size_t block_wide_rows = 256;

static inline size_t row_blocks(size_t rows, size_t cols) {
    const size_t block = block_wide_rows * tiling(cols).repeat;
    return (rows + block - 1) / block;
}

// Bytes for the block sums of N results.
static inline size_t row_sums_scratch(size_t rows, size_t cols, size_t results) {
    return cols == 0 ? 0 : row_blocks(rows, cols) * results * cols * sizeof(float);
}

// Adds `count` elements from i on, at most a block, to sums [N, wide], overwritten.
template <size_t N, class Term>
static inline void sum_block(const Term& term, size_t i, size_t count, size_t wide, float* sums) {
    memset(sums, 0, N * wide * sizeof(float));
    const size_t end = i + count;
    for (; i + 4 * wide <= end; i += 4 * wide)
        vector_loop(0, wide, [&](auto io, size_t j) {
            Vec a[N], b[N], c[N], d[N];
            term(io, i + j, j, a);
            term(io, i + wide + j, j, b);
            term(io, i + 2 * wide + j, j, c);
            term(io, i + 3 * wide + j, j, d);
            for (size_t k = 0; k < N; ++k) {
                float* sum = sums + k * wide + j;
                io.store(sum, io.load(sum) + ((a[k] + b[k]) + (c[k] + d[k])));
            }
        });
    for (; i < end; i += wide)
        vector_loop(0, end - i < wide ? end - i : wide, [&](auto io, size_t j) {
            Vec a[N];
            term(io, i + j, j, a);
            for (size_t k = 0; k < N; ++k) {
                float* sum = sums + k * wide + j;
                io.store(sum, io.load(sum) + a[k]);
            }
        });
}

// term(Whole or Part, i, j, Vec out[N]) gives the N addends of element i, at j in the wide row;
// done(k, c, total) receives result k of column c. scratch: row_sums_scratch(rows, cols, N) bytes.
template <size_t N, class Term, class Done>
static inline void sum_over_rows(int threads, size_t rows, size_t cols, float* scratch, Term term,
                                 Done done) {
    if (cols == 0) return;
    const Tiling t = tiling(cols);
    const size_t blocks = row_blocks(rows, cols), block = block_wide_rows * t.wide;
    const size_t n = rows * cols, grain = 32768 / block + 1;
    parallel_for(threads, blocks, grain, [&](size_t begin, size_t end) {
        float wide[N * max_wide];
        for (size_t b = begin; b < end; ++b) {
            const size_t count = n - b * block < block ? n - b * block : block;
            float* out = scratch + b * N * cols;
            if (t.repeat == 1) {
                sum_block<N>(term, b * block, count, t.wide, out);
                continue;
            }
            sum_block<N>(term, b * block, count, t.wide, wide);
            for (size_t k = 0; k < N; ++k) {
                float* sums = wide + k * t.wide;
                for (size_t half = t.wide / 2; half >= cols; half /= 2)
                    for (size_t j = 0; j < half; ++j) sums[j] += sums[half + j];
                memcpy(out + k * cols, sums, cols * sizeof(float));
            }
        }
    });
    for (size_t k = 0; k < N; ++k)
        for (size_t c = 0; c < cols; ++c) {
            double total = 0;
            for (size_t b = 0; b < blocks; ++b) total += double(scratch[(b * N + k) * cols + c]);
            done(k, c, total);
        }
}

}  // namespace nc::kernels::NC_ISA
