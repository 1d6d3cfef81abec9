// Convolutions of a compiled analog network, vectorised: as one product with weights packed ahead,
// or by Winograd's minimal filtering (Lavin & Gray, 2016), a product for each of its positions.
#include "kernels/families.h"
#include "kernels/gather_simd.h"
#include "kernels/gemm_core.h"

namespace nc::kernels::NC_ISA {

// ----------------------------------------------------------------------------------------------
// direct

static size_t direct_floats(const ConvShape& s) {
    return s.groups * (s.kh * s.kw * (s.cin / s.groups)) * round_up(s.cout / s.groups, lanes);
}

static void pack_direct(const float* w, float* packed, const ConvShape& s) {
    const size_t outs = s.cout / s.groups, k = s.kh * s.kw * (s.cin / s.groups);
    for (size_t group = 0; group < s.groups; ++group) {
        const float* weight = w + group * outs;
        const auto pack_b = [=](size_t p0, size_t p1, size_t j0, size_t j1, float* dst) {
            pack_rows(weight + p0 * s.cout + j0, s.cout, p1 - p0, j1 - j0, p1 - p0, dst);
        };
        pack_product(1, outs, k, 0, pack_b, packed + group * k * round_up(outs, lanes));
    }
}

static size_t direct_scratch() {
    return block_floats * sizeof(float);
}

static void direct(const float* x, const float* packed, const ConvEnd& end, float* y,
                   const ConvShape& s, float* own, size_t part, size_t parts) {
    const size_t outs = s.cout / s.groups, k = s.kh * s.kw * (s.cin / s.groups);
    const auto multiply = [&](const auto& gather, size_t group) {
        float* out = y + group * outs;
        const auto row = [=](size_t i) { return out + i * s.cout; };
        const Product<std::decay_t<decltype(gather)>, decltype(row)> product = {
            .m = s.n * s.out_h() * s.out_w(),
            .n = outs,
            .k = k,
            .gather_a = gather,
            .row = row,
            .packed = packed + group * k * round_up(outs, lanes),
            .bias = end.bias != nullptr ? end.bias + group * outs : nullptr,
            .add = end.add != nullptr ? end.add + group * outs : nullptr,
            .relu = end.relu};
        multiply_share<false>(product, part, part + 1, parts, own);
    };
    const bool every_pixel = s.kh == 1 && s.kw == 1 && s.stride_h == 1 && s.stride_w == 1 &&
                             s.pad_h == 0 && s.pad_w == 0 && s.groups == 1;
    if (every_pixel) {  // the image is the matrix
        multiply(
            [=](size_t r0, size_t r1, size_t e0, size_t e1, float* dst) {
                for (size_t r = r0; r < r1; ++r, dst += row_stride) {
                    if (r + 2 < r1)
                        for (size_t e = e0; e < e1; e += 16) prefetch(x + (r + 2) * k + e);
                    copy_over(dst, x + r * k + e0, e1 - e0);
                }
            },
            0);
        return;
    }
    for (size_t group = 0; group < s.groups; ++group) multiply(forward_gather(x, group, s), group);
}

// ----------------------------------------------------------------------------------------------
// Winograd: y = A' [(G w G') . (B' x B)] A for tiles of M x M outputs, which read M + 2 x M + 2
// inputs. The transforms are exact but for rounding; their constants are those of Lavin & Gray.

// One dimension of B'.
template <size_t M>
__attribute__((always_inline)) static inline void input_line(const Vec* d, size_t step, Vec* out) {
    if constexpr (M == 2) {
        out[0] = d[0] - d[2 * step];
        out[1 * step] = d[step] + d[2 * step];
        out[2 * step] = d[2 * step] - d[step];
        out[3 * step] = d[step] - d[3 * step];
    } else {
        const Vec two = broadcast(2), four = broadcast(4), five = broadcast(5);
        const Vec even = fma(broadcast(-4), d[2 * step], d[4 * step]);
        const Vec odd = fma(broadcast(-4), d[step], d[3 * step]);
        const Vec sum = d[4 * step] - d[2 * step], twice = two * (d[3 * step] - d[step]);
        out[0] = fma(four, d[0], d[4 * step] - five * d[2 * step]);
        out[1 * step] = even + odd;
        out[2 * step] = even - odd;
        out[3 * step] = sum + twice;
        out[4 * step] = sum - twice;
        out[5 * step] = fma(four, d[step], d[5 * step] - five * d[3 * step]);
    }
}

// One dimension of A'.
template <size_t M>
__attribute__((always_inline)) static inline void output_line(const Vec* m, size_t step, Vec* out) {
    if constexpr (M == 2) {
        out[0] = m[0] + m[step] + m[2 * step];
        out[step] = m[step] - m[2 * step] - m[3 * step];
    } else {
        const Vec s = m[step] + m[2 * step], d = m[step] - m[2 * step];
        const Vec p = m[3 * step] + m[4 * step], q = m[3 * step] - m[4 * step];
        out[0] = m[0] + s + p;
        out[1 * step] = fma(broadcast(2), q, d);
        out[2 * step] = fma(broadcast(4), p, s);
        out[3 * step] = fma(broadcast(8), q, d) + m[5 * step];
    }
}

// G, in double.
template <size_t M>
static void weight_line(const double* g, double* out) {
    if constexpr (M == 2) {
        out[0] = g[0];
        out[1] = (g[0] + g[1] + g[2]) / 2;
        out[2] = (g[0] - g[1] + g[2]) / 2;
        out[3] = g[2];
    } else {
        out[0] = g[0] / 4;
        out[1] = -(g[0] + g[1] + g[2]) / 6;
        out[2] = -(g[0] - g[1] + g[2]) / 6;
        out[3] = (g[0] + 2 * g[1] + 4 * g[2]) / 24;
        out[4] = (g[0] - 2 * g[1] + 4 * g[2]) / 24;
        out[5] = g[2];
    }
}

// How the work is laid out. Tiles are taken in rounds; each has the transformed inputs [blocks of
// cin][position][tile][row_stride], then the products [position][tile][width]. Positions lie an odd
// number of cache lines apart, so that one element of all of them does not fall into one set.
struct Rounds {
    size_t edge, positions;                  // of a tile's inputs
    size_t down, across, tiles;              // over all images
    size_t blocks, length;                   // of input channels
    size_t width;                            // of products, whole vectors
    size_t rounds, chunks;                   // tasks: rounds x chunks of columns
    size_t most;                             // tiles of a round
    size_t v_position, v_block, m_position;  // floats between them
};

static constexpr size_t most_tiles = 4 * tile_rows;  // of a round
static_assert(most_tiles <= block_rows);

template <size_t M>
static Rounds rounds_of(const ConvShape& s, size_t parts) {
    Rounds r = {};
    r.edge = M + 2;
    r.positions = r.edge * r.edge;
    r.down = divide_up(s.out_h(), M);
    r.across = divide_up(s.out_w(), M);
    r.tiles = s.n * r.down * r.across;
    r.blocks = s.cin == 0 ? 1 : divide_up(s.cin, block_k);
    r.length = round_up(divide_up(s.cin, r.blocks), lanes);
    r.width = round_up(s.cout, lanes);
    r.rounds = divide_up(r.tiles, most_tiles);
    r.chunks = 1;
    if (r.rounds % parts != 0 && r.rounds < 8 * parts) {
        if (r.tiles >= parts * tile_rows * 2)
            r.rounds = round_up(r.rounds, parts);
        else
            r.chunks = smaller(parts, divide_up(s.cout, tile_cols));
    }
    r.most = smaller(most_tiles, r.tiles);
    r.v_position = round_up(r.most * row_stride, 32) + 16;
    r.v_block = r.positions * r.v_position;
    r.m_position = round_up(r.most * r.width, 32) + 16;
    return r;
}

static_assert(block_k % lanes == 0 && block_k + lanes <= row_stride);

template <size_t M>
static size_t winograd_floats(const ConvShape& s) {
    return (M + 2) * (M + 2) * s.cin * round_up(s.cout, lanes);
}

// As product's panels, for each position and block of input channels.
template <size_t M>
static void pack_winograd(const float* w, float* packed, const ConvShape& s) {
    constexpr size_t edge = M + 2;
    const Rounds r = rounds_of<M>(s, 1);
    for (size_t i = 0; i < s.cin; ++i) {
        const size_t p0 = i / r.length * r.length, kc = smaller(r.length, s.cin - p0);
        for (size_t o = 0; o < r.width; ++o) {
            double rows[3][edge], u[edge][edge] = {};
            for (size_t kx = 0; o < s.cout && kx < 3; ++kx) {
                double g[3];
                for (size_t ky = 0; ky < 3; ++ky)
                    g[ky] = double(w[((ky * 3 + kx) * s.cin + i) * s.cout + o]);
                weight_line<M>(g, rows[kx]);
            }
            for (size_t y = 0; o < s.cout && y < edge; ++y) {
                const double g[3] = {rows[0][y], rows[1][y], rows[2][y]};
                weight_line<M>(g, u[y]);
            }
            const size_t j = o / tile_cols * tile_cols;
            float* out = packed + p0 * r.width + j * kc + (i - p0) * panel_width(s.cout, j) + o - j;
            for (size_t at = 0; at < r.positions; ++at)
                out[at * s.cin * r.width] = float(u[at / edge][at % edge]);
        }
    }
}

template <size_t M>
static size_t winograd_scratch(const ConvShape& s) {
    const Rounds r = rounds_of<M>(s, 1);
    return sizeof(float) *
           (r.blocks * r.v_block + r.positions * r.m_position + round_up(s.cin, 16) + 16);
}

// B' x B of one tile, whose first input pixel is (y, x) of an image; what lies outside reads zeros.
template <size_t M>
static void input_tile(const float* image, ptrdiff_t y, ptrdiff_t x, const ConvShape& s,
                       const float* zeros, const Rounds& r, float* v) {
    constexpr size_t edge = M + 2;
    const float* pixel[edge * edge];
    for (size_t i = 0; i < edge; ++i)
        for (size_t j = 0; j < edge; ++j) {
            const ptrdiff_t iy = y + ptrdiff_t(i), ix = x + ptrdiff_t(j);
            const bool inside = iy >= 0 && iy < ptrdiff_t(s.h) && ix >= 0 && ix < ptrdiff_t(s.w);
            pixel[i * edge + j] = inside ? image + (size_t(iy) * s.w + size_t(ix)) * s.cin : zeros;
        }
    for (size_t c = 0; c < s.cin; c += lanes) {
        const size_t count = smaller(lanes, s.cin - c);
        Vec d[edge * edge], t[edge * edge];
        if (count == lanes)
            unrolled<edge * edge>([&](size_t i) __attribute__((always_inline)) {
                d[i] = load(pixel[i] + c);
            });
        else
            for (size_t i = 0; i < edge * edge; ++i) d[i] = load_partial(pixel[i] + c, count);
        unrolled<edge>([&](size_t j)
                           __attribute__((always_inline)) { input_line<M>(d + j, edge, t + j); });
        float* out = v + c / r.length * r.v_block + c % r.length;
        unrolled<edge>([&](size_t i) __attribute__((always_inline)) {
            Vec line[edge];
            input_line<M>(t + i * edge, 1, line);
            unrolled<edge>([&](size_t j) __attribute__((always_inline)) {
                store(out + (i * edge + j) * r.v_position, line[j]);
            });
        });
    }
}

// A' m A of one tile's columns [j0, j1), which are outputs (y, x) on of an image of y's.
template <size_t M>
static void output_tile(const float* m, size_t image, size_t y, size_t x, const ConvShape& s,
                        const Rounds& r, const ConvEnd& end, float* out, size_t j0, size_t j1) {
    constexpr size_t edge = M + 2;
    const size_t oh = s.out_h(), ow = s.out_w();
    for (size_t c = j0; c < j1; c += lanes) {
        const size_t count = smaller(lanes, j1 - c);
        Vec t[M * edge];
        unrolled<edge>([&](size_t j) __attribute__((always_inline)) {
            Vec column[edge];
            unrolled<edge>([&](size_t i) __attribute__((always_inline)) {
                column[i] = load(m + (i * edge + j) * r.m_position + c);
            });
            Vec sums[M];
            output_line<M>(column, 1, sums);
            unrolled<M>([&](size_t i)
                            __attribute__((always_inline)) { t[i * edge + j] = sums[i]; });
        });
        const bool whole = count == lanes;
        Vec bias = broadcast(0);
        if (end.bias != nullptr)
            bias = whole ? load(end.bias + c) : load_partial(end.bias + c, count);
        for (size_t i = 0; i < M && y + i < oh; ++i) {
            Vec line[M];
            output_line<M>(t + i * edge, 1, line);
            for (size_t j = 0; j < M && x + j < ow; ++j) {
                const size_t at = ((image * oh + y + i) * ow + x + j) * s.cout + c;
                Vec sum = end.bias != nullptr ? line[j] + bias : line[j];
                if (end.add != nullptr)
                    sum = sum + (whole ? load(end.add + at) : load_partial(end.add + at, count));
                if (end.relu) sum = not_negative(sum);
                if (whole)
                    store(out + at, sum);
                else
                    store_partial(out + at, sum, count);
            }
        }
    }
}

template <size_t M>
static void winograd(const float* x, const float* packed, const ConvEnd& end, float* y,
                     const ConvShape& s, float* own, size_t part, size_t parts) {
    const Rounds r = rounds_of<M>(s, parts);
    float* v = own;
    float* m = v + r.blocks * r.v_block;
    float* zeros = m + r.positions * r.m_position;
    zero_over(zeros, s.cin);
    const size_t tasks = r.rounds * r.chunks, panels = divide_up(s.cout, tile_cols);
    size_t transformed = SIZE_MAX;  // the round whose inputs are in v
    float* c[most_tiles];
    for (size_t task = tasks * part / parts; task < tasks * (part + 1) / parts; ++task) {
        const size_t round = task / r.chunks, chunk = task % r.chunks;
        const size_t first = r.tiles * round / r.rounds, last = r.tiles * (round + 1) / r.rounds;
        const size_t j0 = panels * chunk / r.chunks * tile_cols;
        const size_t j1 = smaller(s.cout, panels * (chunk + 1) / r.chunks * tile_cols);
        for (size_t tile = first; tile < last && transformed != round; ++tile) {
            const size_t image = tile / r.across / r.down;
            const ptrdiff_t ty = ptrdiff_t(tile / r.across % r.down * M) - ptrdiff_t(s.pad_h);
            const ptrdiff_t tx = ptrdiff_t(tile % r.across * M) - ptrdiff_t(s.pad_w);
            input_tile<M>(x + image * s.h * s.w * s.cin, ty, tx, s, zeros, r,
                          v + (tile - first) * row_stride);
        }
        transformed = round;
        const float* u = packed;
        for (size_t at = 0; at < r.positions; ++at) {
            for (size_t tile = first; tile < last; ++tile)
                c[tile - first] = m + at * r.m_position + (tile - first) * r.width;
            for (size_t b = 0; b < r.blocks; ++b) {
                const size_t p0 = b * r.length, kc = smaller(r.length, s.cin - p0);
                // The same columns of the next block, or of the first.
                const bool more = at + 1 < r.positions || b + 1 < r.blocks;
                const size_t next = b + 1 < r.blocks ? smaller(r.length, s.cin - p0 - kc)
                                                     : smaller(r.length, s.cin);
                const float* after = (more ? u + kc * r.width : packed) + j0 * next;
                multiply_block<false>(v + b * r.v_block + at * r.v_position, last - first, kc, u,
                                      nullptr, 0, s.cout, j0, j1, c, nullptr, b > 0, after);
                u += kc * r.width;
            }
        }
        for (size_t tile = first; tile < last; ++tile)
            output_tile<M>(m + (tile - first) * r.width, tile / r.across / r.down,
                           tile / r.across % r.down * M, tile % r.across * M, s, r, end, y, j0, j1);
    }
}

// ----------------------------------------------------------------------------------------------

static size_t packed_floats(ConvMethod method, const ConvShape& s) {
    return method == ConvMethod::direct      ? direct_floats(s)
           : method == ConvMethod::winograd2 ? winograd_floats<2>(s)
                                             : winograd_floats<4>(s);
}

static void pack(ConvMethod method, const float* w, float* packed, const ConvShape& s) {
    if (method == ConvMethod::direct) return pack_direct(w, packed, s);
    if (method == ConvMethod::winograd2) return pack_winograd<2>(w, packed, s);
    pack_winograd<4>(w, packed, s);
}

static size_t scratch(ConvMethod method, const ConvShape& s) {
    return method == ConvMethod::direct      ? direct_scratch()
           : method == ConvMethod::winograd2 ? winograd_scratch<2>(s)
                                             : winograd_scratch<4>(s);
}

static void conv(ConvMethod method, const float* x, const float* packed, const ConvEnd& end,
                 float* y, const ConvShape& s, char* own, size_t part, size_t parts) {
    if (s.n == 0 || s.cout == 0) return;
    float* mine = reinterpret_cast<float*>(own);
    if (method == ConvMethod::direct) return direct(x, packed, end, y, s, mine, part, parts);
    if (method == ConvMethod::winograd2)
        return winograd<2>(x, packed, end, y, s, mine, part, parts);
    winograd<4>(x, packed, end, y, s, mine, part, parts);
}

Analog analog() {
    return {.packed_floats = packed_floats, .pack = pack, .scratch = scratch, .conv = conv};
}

}  // namespace nc::kernels::NC_ISA
