// The packed matrix product that gemm_simd, conv_simd and analog_simd share (Goto & van de Geijn,
// 2008): tiles of c held in registers, blocks of a packed to fit the second-level cache, panels of
// b the first.
//
// Every element of c is the same chain of operations whatever the tile, block or thread it falls
// into: an fma per k in order within a block of k, blocks added in order. Only product_blocks(k),
// a function of k alone, decides where the blocks of k end; so results do not depend on threads.
#pragma once

#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/parallel.h"

namespace nc::kernels::NC_ISA {

// tile_rows x tile_vectors accumulators, tile_vectors of b and one of a fill the registers: 32 on
// AVX-512, else 16. A panel of b (tile_cols x block_k) fits the first-level cache (on AVX-512
// nearly: longer blocks save more on c), a block of a (block_rows x block_k) half of the second.
// tile_rows <= lanes, so a column of a tile is one vector in a packed block.
#if defined(__AVX512F__)
static constexpr size_t tile_rows = 14, block_rows = 224, block_k = 512;
#elif defined(__AVX2__)
static constexpr size_t tile_rows = 6, block_rows = 144, block_k = 320;
#else
static constexpr size_t tile_rows = 4, block_rows = 128, block_k = 256;
#endif
static constexpr size_t tile_vectors = 2, tile_cols = tile_vectors * lanes;

// Packed blocks of a, in floats. As stored: [rows][row_stride], with room for one vector stored
// past the end of a row, and a stride of an odd number of cache lines. Transposed:
// [tile][kc][lanes].
static constexpr size_t row_stride = block_k + 16;
static constexpr size_t block_floats =
    (block_rows + tile_rows) *
    (row_stride > block_k * lanes / tile_rows + 1 ? row_stride : block_k * lanes / tile_rows + 1);
// Rows gathered at once before they are spread over the tiles of a transposed block.
static constexpr size_t spread_rows = 16, spread_floats = spread_rows * row_stride;
static_assert(tile_rows <= lanes && block_rows + lanes <= row_stride);

static inline size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}
static inline size_t divide_up(size_t a, size_t b) {
    return (a + b - 1) / b;
}
static inline size_t round_up(size_t a, size_t b) {
    return divide_up(a, b) * b;
}

// k is cut into this many blocks of equal length but the last (at least one, so that c is written).
static inline size_t product_blocks(size_t k) {
    return k == 0 ? 1 : divide_up(k, block_k);
}
static inline size_t product_block_length(size_t k) {
    return divide_up(k, product_blocks(k));
}

static inline void prefetch(const float* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

// Copies n floats to dst, which has room for up to lanes - 1 more; those become undefined.
static inline void copy_over(float* dst, const float* src, size_t n) {
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) store(dst + i, load(src + i));
    if (i < n) store(dst + i, load_partial(src + i, n - i));
}
static inline void zero_over(float* dst, size_t n) {
    for (size_t i = 0; i < n; i += lanes) store(dst + i, broadcast(0));
}

// ----------------------------------------------------------------------------------------------
// tile

// Cache lines of the next panel are fetched every so many steps of k, the panel's lines shared out
// over a block's tiles.
static constexpr size_t ahead_steps = 8, ahead_lines = ahead_steps * tile_cols / 16;

// What a tile is multiplied from and added to. c points to the rows' starts; col is its first
// column, cols how many are written.
struct Tile {
    const float* a;
    const float* b;
    size_t b_stride, k;
    float* const* c;
    size_t col, cols;
    const float* bias;  // null, or added at `col`
    bool accumulate;
    const float* next;        // fetched ahead: this tile's share of the panel of b that comes next,
    size_t next_lines;        // so many cache lines every ahead_steps of k
    const float* const* add;  // null, or added as c points to rows
    bool relu;                // at last: what is <= 0 becomes 0
};

// NaN stays NaN.
static inline Vec not_negative(Vec x) {
    return select(x <= broadcast(0), broadcast(0), x);
}

// Adds to a tile's sums [rows][lanes] what belongs to them and writes their first n columns, in a
// loop: unrolled in every kernel below, it was half of their time to compile.
__attribute__((noinline)) static inline void finish_columns(const Tile& t, const float* sums,
                                                            size_t rows, size_t col, size_t n) {
    const Vec bias = t.bias != nullptr ? load_partial(t.bias + col, n) : broadcast(0);
    for (size_t r = 0; r < rows; ++r) {
        float* c = t.c[r] + col;
        Vec s = load(sums + r * lanes);
        if (t.bias != nullptr) s = s + bias;
        if (t.accumulate) s = s + load_partial(c, n);
        if (t.add != nullptr) s = s + load_partial(t.add[r] + col, n);
        if (t.relu) s = not_negative(s);
        store_partial(c, s, n);
    }
}

template <size_t R, size_t V, bool transposed>
static void multiply_tile(const Tile& t) {
    constexpr size_t row_step = transposed ? 1 : row_stride, k_step = transposed ? lanes : 1;
    Vec sum[R * V];
    unrolled<R * V>([&](size_t i) __attribute__((always_inline)) { sum[i] = broadcast(0); });
    const float* a = t.a;
    const float* b = t.b;
    const size_t b_stride = t.b_stride;
    const auto step = [&]() __attribute__((always_inline)) {
        Vec vb[V];
        unrolled<V>([&](size_t v) __attribute__((always_inline)) { vb[v] = load(b + v * lanes); });
        unrolled<R>([&](size_t r) __attribute__((always_inline)) {
            const Vec va = broadcast(a[r * row_step]);
            unrolled<V>([&](size_t v) __attribute__((always_inline)) {
                Vec& s = sum[r * V + v];
                s = fma(va, vb[v], s);
            });
        });
        a += k_step;
        b += b_stride;
    };
    size_t p = t.k;
    for (size_t r = 0; r < R && p > 0; ++r, --p) {
        prefetch(t.c[r] + t.col);
        if (V > 1) prefetch(t.c[r] + t.col + lanes);
        step();
    }
    // The panel of b is read again by every tile but comes from far away the first time: waiting
    // for it would cost a first tile as much as its products.
    const float* next = t.next;
    for (; p >= ahead_steps; p -= ahead_steps) {
        for (size_t i = 0; i < t.next_lines; ++i, next += 16) prefetch(next);
        for (size_t i = 0; i < ahead_steps; ++i) step();
    }
    for (; p > 0; --p) step();
    const size_t tail = t.cols - (V - 1) * lanes;  // columns of the last vector, 1..lanes
    unrolled<V>([&](size_t v) __attribute__((always_inline)) {
        const size_t col = t.col + v * lanes;
        if (v + 1 < V || tail == lanes) {
            const Vec bias = t.bias != nullptr ? load(t.bias + col) : broadcast(0);
            unrolled<R>([&](size_t r) __attribute__((always_inline)) {
                float* c = t.c[r] + col;
                Vec s = sum[r * V + v];
                if (t.bias != nullptr) s = s + bias;
                if (t.accumulate) s = s + load(c);
                if (t.add != nullptr) s = s + load(t.add[r] + col);
                if (t.relu) s = not_negative(s);
                store(c, s);
            });
        } else {
            alignas(64) float last[R * lanes];
            unrolled<R>([&](size_t r) __attribute__((always_inline)) {
                store(last + r * lanes, sum[r * V + v]);
            });
            finish_columns(t, last, R, col, tail);
        }
    });
}

using TileKernel = void (*)(const Tile&);
template <bool transposed, size_t R = 1>
static inline TileKernel tile_kernel(size_t rows, size_t vectors) {
    if constexpr (R < tile_rows) {
        if (rows > R) return tile_kernel<transposed, R + 1>(rows, vectors);
    }
    return vectors == 1 ? multiply_tile<R, 1, transposed> : multiply_tile<R, 2, transposed>;
}

// ----------------------------------------------------------------------------------------------
// packing

// Rows are shared out evenly over the tiles of a block: 32 rows are 11 + 11 + 10, not 14 + 14 + 4.
static inline size_t rows_per_tile(size_t rows) {
    return divide_up(rows, divide_up(rows, tile_rows));
}

// Packs the block of a with rows [i0, i1) and k [p0, p1). gather(r0, r1, e0, e1, dst) writes
// elements [e0, e1) of rows [r0, r1) to dst[(r - r0) * row_stride + (e - e0)], and may write up to
// a vector past the end of each; its rows are those of a, or of a^T when transposed.
template <bool transposed, class Gather>
static void pack_a(const Gather& gather, size_t i0, size_t i1, size_t p0, size_t p1, float* spread,
                   float* block) {
    if constexpr (!transposed) {
        gather(i0, i1, p0, p1, block);
    } else {
        const size_t kc = p1 - p0, step = rows_per_tile(i1 - i0);
        for (size_t p = 0; p < kc; p += spread_rows) {
            const size_t count = smaller(spread_rows, kc - p);
            gather(p0 + p, p0 + p + count, i0, i1, spread);
            float* out = block + p * lanes;
            for (size_t i = 0; i < i1 - i0; i += step, out += kc * lanes)
                for (size_t r = 0; r < count; ++r)
                    store(out + r * lanes, load(spread + r * row_stride + i));
        }
    }
}

// b's packed block of k lies in panels of tile_cols columns one after another, each
// [kc][tile_cols], the last one only as wide as whole vectors need and filled up with zeros.
static inline size_t panel_width(size_t cols, size_t j) {
    return smaller(tile_cols, round_up(cols - j, lanes));
}

// Writes [rows, cols] of src, its rows `stride` apart, into panels kc rows high. Runs along the
// rows of src, which are far apart: the next ones are asked for ahead.
static inline void pack_rows(const float* src, size_t stride, size_t rows, size_t cols, size_t kc,
                             float* dst) {
    constexpr size_t ahead = 4;
    for (size_t p = 0; p < rows; ++p, src += stride)
        for (size_t j = 0; j < cols; j += tile_cols) {
            const size_t width = panel_width(cols, j);
            float* out = dst + j * kc + p * width;
            for (size_t v = j; v < j + width; v += lanes, out += lanes) {
                if (p + ahead < rows) prefetch(src + ahead * stride + v);
                store(out, v + lanes <= cols ? load(src + v) : load_partial(src + v, cols - v));
            }
        }
}

// The same of a transposed src, whose row j is column j, into rows [at, at + rows) of the panels.
static inline void pack_columns(const float* src, size_t stride, size_t rows, size_t cols,
                                size_t kc, size_t at, float* dst) {
    for (size_t first = 0; first < cols; first += tile_cols) {
        const size_t width = panel_width(cols, first), count = smaller(width, cols - first);
        const float* from = src + first * stride;
        float* out = dst + first * kc + at * width;
        size_t j = 0;
        for (; j + 4 <= count; j += 4) {
            const float* s = from + j * stride;
            size_t p = 0;
            for (; p + 4 <= rows; p += 4) {
                __m128 r0 = _mm_loadu_ps(s + p), r1 = _mm_loadu_ps(s + stride + p);
                __m128 r2 = _mm_loadu_ps(s + 2 * stride + p), r3 = _mm_loadu_ps(s + 3 * stride + p);
                _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
                _mm_storeu_ps(out + p * width + j, r0);
                _mm_storeu_ps(out + (p + 1) * width + j, r1);
                _mm_storeu_ps(out + (p + 2) * width + j, r2);
                _mm_storeu_ps(out + (p + 3) * width + j, r3);
            }
            for (; p < rows; ++p)
                for (size_t i = 0; i < 4; ++i) out[p * width + j + i] = s[i * stride + p];
        }
        for (; j < width; ++j)
            for (size_t p = 0; p < rows; ++p)
                out[p * width + j] = j < count ? from[j * stride + p] : 0.0f;
    }
}

// ----------------------------------------------------------------------------------------------
// product

// One block of a times columns [j0, j1) of b, all of c's rows i at c[i]. packed: b's block of k in
// panels; direct: b itself, rows direct_stride apart, for whole panels when it is not null. after:
// the panel that is read after this block's last, when not null. add and relu: see Tile.
template <bool transposed>
static void multiply_block(const float* a, size_t rows, size_t kc, const float* packed,
                           const float* direct, size_t direct_stride, size_t n, size_t j0,
                           size_t j1, float* const* c, const float* bias, bool accumulate,
                           const float* after = nullptr, const float* const* add = nullptr,
                           bool relu = false) {
    const size_t step = rows_per_tile(rows);
    const size_t lines = divide_up(ahead_lines, divide_up(rows, step));
    if (after == nullptr) after = packed + j0 * kc;
    for (size_t j = j0; j < j1; j += tile_cols) {
        Tile t = {.a = a,
                  .b = packed + j * kc,
                  .b_stride = panel_width(n, j),
                  .k = kc,
                  .c = c,
                  .col = j,
                  .cols = smaller(tile_cols, n - j),
                  .bias = bias,
                  .accumulate = accumulate,
                  .next = j + tile_cols < j1 ? packed + (j + tile_cols) * kc : after,
                  .next_lines = lines,
                  .add = add,
                  .relu = relu};
        if (direct != nullptr && t.cols == tile_cols) {
            t.b = direct + j;
            t.b_stride = direct_stride;
        }
        const size_t vectors = divide_up(t.cols, lanes);
        const TileKernel full = tile_kernel<transposed>(step, vectors);
        for (size_t i = 0; i < rows; i += step) {
            t.a = transposed ? a + i / step * kc * lanes : a + i * row_stride;
            t.c = c + i;
            t.add = add != nullptr ? add + i : nullptr;
            if (i + step <= rows)
                full(t);
            else
                tile_kernel<transposed>(rows - i, vectors)(t);
            t.next += kc / ahead_steps * lines * 16;
        }
    }
}

// Threads worth starting for this many multiply-adds.
static inline size_t product_parts(int threads, size_t m, size_t n, size_t k) {
    const double work = double(m) * double(n) * double(k) / 65536;
    return work < 2 ? 1 : work < double(threads) ? size_t(work) : size_t(threads);
}

static inline size_t product_scratch(size_t n, size_t k, int threads) {
    return sizeof(float) * (round_up(k * round_up(n, lanes), 16) +
                            size_t(threads) * (block_floats + spread_floats));
}

// b in panels, in the blocks of k that products use: block p0 at p0 * round_up(n, lanes) floats.
// pack_b(p0, p1, j0, j1, dst) writes rows [p0, p1), columns [j0, j1) of b into panels p1 - p0 high.
// Columns below direct_cols are left out.
template <class PackB>
static void pack_product(int threads, size_t n, size_t k, size_t direct_cols, const PackB& pack_b,
                         float* packed) {
    const size_t blocks = product_blocks(k), length = product_block_length(k);
    const size_t width = round_up(n, lanes);
    // Packed in units of several panels, whose rows are read along.
    const size_t unit = 8 * tile_cols, units = divide_up(n, unit);
    parallel_for(threads, blocks * units, 1, [&](size_t begin, size_t end) {
        for (size_t u = begin; u < end; ++u) {
            const size_t p0 = u / units * length, p1 = smaller(k, p0 + length);
            const size_t j = u % units * unit, j1 = smaller(n, j + unit);
            const size_t j0 = j < direct_cols ? smaller(direct_cols, j1) : j;
            if (p0 < p1 && j0 < j1) pack_b(p0, p1, j0, j1, packed + p0 * width + j0 * (p1 - p0));
        }
    });
}

// What a product multiplies, and where its rows go: c [m, n] = relu(a b (+ bias) (+ c) (+ add)).
// row(i) is where row i of c starts, add + (row(i) - row(0)) that of add. Where direct is not null,
// b lies there as it is, rows direct_stride apart, and its whole panels are used unpacked.
template <class Gather, class Row>
struct Product {
    size_t m, n, k;
    const Gather& gather_a;  // see pack_a
    const Row& row;
    const float* packed;
    const float* direct = nullptr;
    size_t direct_stride = 0;
    const float* bias = nullptr;
    bool accumulate = false;
    const float* add = nullptr;
    bool relu = false;
};

// Parts [first, last) of `parts`. own: block_floats, and spread_floats behind them when transposed.
template <bool transposed, class Gather, class Row>
static void multiply_share(const Product<Gather, Row>& x, size_t first, size_t last, size_t parts,
                           float* own) {
    const size_t blocks = product_blocks(x.k), length = product_block_length(x.k);
    const size_t width = round_up(x.n, lanes), panels = divide_up(x.n, tile_cols);
    // Blocks of rows, as even as possible over the parts; too few rows: columns are split too.
    size_t row_blocks = divide_up(x.m, block_rows), col_blocks = 1;
    if (row_blocks % parts != 0 && row_blocks < 8 * parts) {
        if (x.m >= parts * tile_rows * 4)
            row_blocks = round_up(row_blocks, parts);
        else
            col_blocks = smaller(parts, panels);
    }
    const size_t tiles = divide_up(x.m, tile_rows), tasks = row_blocks * col_blocks;
    float* c[block_rows];
    const float* add[block_rows];
    for (size_t task = tasks * first / parts; task < tasks * last / parts; ++task) {
        const size_t block_at = task / col_blocks, chunk = task % col_blocks;
        const size_t i0 = tiles * block_at / row_blocks * tile_rows;
        const size_t i1 = smaller(x.m, tiles * (block_at + 1) / row_blocks * tile_rows);
        const size_t j0 = panels * chunk / col_blocks * tile_cols;
        const size_t j1 = smaller(x.n, panels * (chunk + 1) / col_blocks * tile_cols);
        for (size_t i = i0; i < i1; ++i) {
            c[i - i0] = x.row(i);
            if (x.add != nullptr) add[i - i0] = x.add + (c[i - i0] - x.row(0));
        }
        for (size_t b = 0; b < blocks; ++b) {
            const size_t p0 = b * length, p1 = smaller(x.k, p0 + length);
            const size_t after =
                p1 < x.k ? p1 * width + j0 * smaller(length, x.k - p1) : j0 * smaller(length, x.k);
            const bool ends = b + 1 == blocks;
            pack_a<transposed>(x.gather_a, i0, i1, p0, p1, own + block_floats, own);
            multiply_block<transposed>(
                own, i1 - i0, p1 - p0, x.packed + p0 * width,
                x.direct != nullptr ? x.direct + p0 * x.direct_stride : nullptr, x.direct_stride,
                x.n, j0, j1, c, b == 0 ? x.bias : nullptr, x.accumulate || b > 0, x.packed + after,
                ends && x.add != nullptr ? add : nullptr, ends && x.relu);
        }
    }
}

// c [m, n] = a b (+ bias) (+ c), b packed first: see pack_product and Product.
template <bool transposed, class Gather, class PackB, class Row>
static void product(Queue& q, size_t m, size_t n, size_t k, const Gather& gather_a,
                    const PackB& pack_b, const float* direct_b, size_t direct_stride,
                    const float* bias, bool accumulate, const Row& row) {
    if (m == 0 || n == 0) return;
    const size_t parts = product_parts(q.threads, m, n, k);
    float* packed = reinterpret_cast<float*>(q.scratch);
    float* own = packed + round_up(k * round_up(n, lanes), 16);
    pack_product(int(parts), n, k, direct_b != nullptr ? n / tile_cols * tile_cols : 0, pack_b,
                 packed);
    const Product<Gather, Row> x = {.m = m,
                                    .n = n,
                                    .k = k,
                                    .gather_a = gather_a,
                                    .row = row,
                                    .packed = packed,
                                    .direct = direct_b,
                                    .direct_stride = direct_stride,
                                    .bias = bias,
                                    .accumulate = accumulate};
    parallel_for(int(parts), parts, 1, [&](size_t first, size_t last) {
        multiply_share<transposed>(x, first, last, parts,
                                   own + first * (block_floats + spread_floats));
    });
}

}  // namespace nc::kernels::NC_ISA
