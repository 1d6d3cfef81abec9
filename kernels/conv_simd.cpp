// Convolution and its gradients as matrix products whose left operand is gathered from the image
// while it is packed. Groups are products one after another.
#include "kernels/conv_sparse_simd.h"
#include "kernels/families.h"
#include "kernels/gather_simd.h"
#include "kernels/gemm_core.h"

namespace nc::kernels::NC_ISA {

// ----------------------------------------------------------------------------------------------
// forward: y [pixels, cout] = gather(x) [pixels, kh kw cin] w [kh kw cin, cout]

static void forward(Queue& q, const float* x, const float* w, const float* bias, float* y,
                    const ConvShape& s) {
    if (s.n == 0 || s.cout == 0) return;
    if (has_sparse_forward(s) && is_sparse(x, s)) return sparse_forward(q, x, w, bias, y, s);
    const size_t outs = s.cout / s.groups;
    for (size_t group = 0; group < s.groups; ++group) {
        const Gather gather = forward_gather(x, group, s);
        const float* weight = w + group * outs;
        float* out = y + group * outs;
        const auto pack_b = [=](size_t p0, size_t p1, size_t j0, size_t j1, float* dst) {
            pack_rows(weight + p0 * s.cout + j0, s.cout, p1 - p0, j1 - j0, p1 - p0, dst);
        };
        const auto row = [=](size_t i) { return out + i * s.cout; };
        product<false>(q, gather.rows(), outs, gather.length(), gather, pack_b, nullptr, 0,
                       bias != nullptr ? bias + group * outs : nullptr, false, row);
    }
}

static size_t forward_scratch(const ConvShape& s, int threads) {
    const size_t dense =
        product_scratch(s.cout / s.groups, s.kh * s.kw * (s.cin / s.groups), threads);
    const size_t sparse = sparse_forward_scratch(s, threads);
    return dense > sparse ? dense : sparse;
}

// ----------------------------------------------------------------------------------------------
// backward_input: the input pixels whose position has the same remainder by the stride read dy
// through the same taps, one pixel of dy apart: a product for each such phase of rows and columns,
// dx [pixels of the phase, cin] = gather(dy) [.., taps cout] w^T [taps cout, cin].

// The taps k of a phase, in ascending order of what they read: k = last - t * apart.
struct Phase {
    Axis axis;
    size_t last, apart;
};

static Phase phase_of(size_t phase, size_t in, size_t out, size_t taps, size_t stride, size_t pad,
                      size_t dilation) {
    Phase result = {.axis = {.out = phase < in ? (in - phase + stride - 1) / stride : 0,
                             .taps = 0,
                             .in = out,
                             .stride = 1,
                             .first = 0,
                             .step = 1},
                    .last = 0,
                    .apart = 1};
    // Position phase + t * stride reads dy at (phase + t * stride + pad - k * dilation) / stride.
    size_t previous = 0;
    for (size_t k = 0; k < taps; ++k) {
        const ptrdiff_t at = ptrdiff_t(phase + pad) - ptrdiff_t(k * dilation);
        if (at % ptrdiff_t(stride) != 0) continue;
        if (result.axis.taps > 0) {
            result.apart = k - previous;
            result.axis.step = ptrdiff_t(result.apart * dilation / stride);
        }
        ++result.axis.taps;
        result.axis.first = at / ptrdiff_t(stride);
        result.last = previous = k;
    }
    return result;
}

// Few input channels would leave most of a vector of dx idle, and every tap of the padding would be
// multiplied. There each output pixel is spread instead: [pixels, cout] w^T [cout, kh kw cin], rows
// of which are added to dx, one image after another by one thread.
static bool is_spread(const ConvShape& s) {
    return s.cin / s.groups < 8 && s.kh * s.kw > 1;
}

static size_t spread_width(const ConvShape& s) {
    return round_up(s.kh * s.kw * (s.cin / s.groups), lanes);
}

static void add_to(float* dst, const float* src, size_t n) {
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) store(dst + i, load(dst + i) + load(src + i));
    if (i < n) {
        const Vec sum = load_partial(dst + i, n - i) + load_partial(src + i, n - i);
        store_partial(dst + i, sum, n - i);
    }
}

// Adds the products of output pixel (oy, ox) of an image to what it read; dx is the image's.
static void spread_pixel(const float* products, size_t oy, size_t ox, float* dx,
                         const ConvShape& s) {
    const size_t ins = s.cin / s.groups;
    const bool joined = s.groups == 1 && s.dilation_w == 1;
    const size_t run_taps = joined ? 1 : s.kw;
    const ptrdiff_t run = ptrdiff_t(joined ? s.kw * ins : ins), line = ptrdiff_t(s.w * s.cin);
    for (size_t ky = 0; ky < s.kh; ++ky) {
        const ptrdiff_t iy = ptrdiff_t(oy * s.stride_h + ky * s.dilation_h) - ptrdiff_t(s.pad_h);
        for (size_t t = 0; t < run_taps; ++t, products += run) {
            if (iy < 0 || iy >= ptrdiff_t(s.h)) continue;
            const ptrdiff_t ix = ptrdiff_t(ox * s.stride_w + t * s.dilation_w) - ptrdiff_t(s.pad_w);
            const ptrdiff_t at = ix * ptrdiff_t(s.cin);
            const ptrdiff_t low = at < 0 ? -at : 0, high = line - at < run ? line - at : run;
            if (low < high) add_to(dx + iy * line + at + low, products + low, size_t(high - low));
        }
    }
}

static void spread_input(Queue& q, const float* dy, const float* w, float* dx, const ConvShape& s) {
    const size_t ins = s.cin / s.groups, outs = s.cout / s.groups;
    const size_t n = s.kh * s.kw * ins, width = spread_width(s), pixels = s.out_h() * s.out_w();
    const size_t blocks = product_blocks(outs), length = product_block_length(outs);
    const size_t parts = product_parts(q.threads, s.n * pixels, n, outs);
    float* packed = reinterpret_cast<float*>(q.scratch);
    float* own = packed + round_up(outs * width, 16);
    const size_t own_floats = block_floats + block_rows * width;
    for (size_t group = 0; group < s.groups; ++group) {
        for (size_t p0 = 0; p0 < outs; p0 += length) {
            const size_t count = smaller(length, outs - p0);
            pack_columns(w + group * outs + p0, s.cout, count, n, count, 0, packed + p0 * width);
        }
        const auto gather = [=](size_t r0, size_t r1, size_t e0, size_t e1, float* dst) {
            for (size_t r = r0; r < r1; ++r, dst += row_stride)
                copy_over(dst, dy + r * s.cout + group * outs + e0, e1 - e0);
        };
        parallel_for(int(parts), parts, 1, [&](size_t first, size_t last) {
            float* block = own + first * own_floats;
            float* products = block + block_floats;
            float* c[block_rows];
            for (size_t i = 0; i < block_rows; ++i) c[i] = products + i * width;
            for (size_t image = s.n * first / parts; image < s.n * last / parts; ++image) {
                float* out = dx + image * s.h * s.w * s.cin;
                if (group == 0) memset(out, 0, s.h * s.w * s.cin * sizeof(float));
                for (size_t i0 = 0; i0 < pixels; i0 += block_rows) {
                    const size_t i1 = smaller(pixels, i0 + block_rows);
                    for (size_t b = 0; b < blocks; ++b) {
                        const size_t p0 = b * length, p1 = smaller(outs, p0 + length);
                        pack_a<false>(gather, image * pixels + i0, image * pixels + i1, p0, p1,
                                      nullptr, block);
                        multiply_block<false>(block, i1 - i0, p1 - p0, packed + p0 * width, nullptr,
                                              0, n, 0, n, c, nullptr, b > 0);
                    }
                    for (size_t i = i0; i < i1; ++i)
                        spread_pixel(c[i - i0], i / s.out_w(), i % s.out_w(), out + group * ins, s);
                }
            }
        });
    }
}

static void backward_input(Queue& q, const float* dy, const float* w, float* dx,
                           const ConvShape& s) {
    if (s.n == 0 || s.cin == 0) return;
    if (is_spread(s)) return spread_input(q, dy, w, dx, s);
    const size_t ins = s.cin / s.groups, outs = s.cout / s.groups;
    for (size_t group = 0; group < s.groups; ++group)
        for (size_t phase = 0; phase < s.stride_h * s.stride_w; ++phase) {
            const size_t py = phase / s.stride_w, px = phase % s.stride_w;
            const Phase y = phase_of(py, s.h, s.out_h(), s.kh, s.stride_h, s.pad_h, s.dilation_h);
            const Phase x = phase_of(px, s.w, s.out_w(), s.kw, s.stride_w, s.pad_w, s.dilation_w);
            const Gather gather = {.image = dy + group * outs,
                                   .images = s.n,
                                   .pixel = s.cout,
                                   .channels = outs,
                                   .y = y.axis,
                                   .x = x.axis};
            if (gather.rows() == 0) continue;
            // Row p of b: tap p / outs, output channel p % outs.
            const auto pack_b = [=](size_t p0, size_t p1, size_t j0, size_t j1, float* dst) {
                for (size_t p = p0; p < p1;) {
                    const size_t tap = p / outs, o = p % outs, count = smaller(outs - o, p1 - p);
                    const size_t ky = y.last - tap / x.axis.taps * y.apart;
                    const size_t kx = x.last - tap % x.axis.taps * x.apart;
                    pack_columns(w + ((ky * s.kw + kx) * ins + j0) * s.cout + group * outs + o,
                                 s.cout, count, j1 - j0, p1 - p0, p - p0, dst);
                    p += count;
                }
            };
            const auto row = [=](size_t i) {
                const size_t ix = px + i % x.axis.out * s.stride_w;
                const size_t iy = py + i / x.axis.out % y.axis.out * s.stride_h;
                const size_t n = i / x.axis.out / y.axis.out;
                return dx + ((n * s.h + iy) * s.w + ix) * s.cin + group * ins;
            };
            product<false>(q, gather.rows(), ins, gather.length(), gather, pack_b, nullptr, 0,
                           nullptr, false, row);
        }
}

static size_t backward_input_scratch(const ConvShape& s, int threads) {
    if (!is_spread(s))
        return product_scratch(s.cin / s.groups, s.kh * s.kw * (s.cout / s.groups), threads);
    return sizeof(float) * (round_up(s.cout / s.groups * spread_width(s), 16) +
                            size_t(threads) * (block_floats + block_rows * spread_width(s)));
}

// ----------------------------------------------------------------------------------------------
// backward_weight: dw [kh kw cin, cout] = gather(x)^T [kh kw cin, pixels] dy [pixels, cout]. Pixels
// are many and outputs few: they are cut into a number of slots that depends on the shape alone,
// each summed on its own, and the slots added in order.

static constexpr size_t weight_cols =
    8 * tile_cols;  // of dw at once, so that dy's block stays near

struct WeightSplit {
    size_t m, n, k, slots, col_blocks, partial_floats;
};

static WeightSplit weight_split(const ConvShape& s) {
    WeightSplit split = {.m = s.kh * s.kw * (s.cin / s.groups),
                         .n = s.cout / s.groups,
                         .k = s.n == 0 ? 0 : s.n * s.out_h() * s.out_w(),
                         .slots = 1,
                         .col_blocks = 1,
                         .partial_floats = 0};
    split.col_blocks = divide_up(split.n, weight_cols);
    const size_t blocks = divide_up(split.m, 256) * divide_up(split.n, 256);  // of any table's size
    if (blocks < 8) split.slots = smaller(8, divide_up(split.k, 1024));
    if (split.slots == 0) split.slots = 1;
    split.partial_floats = split.slots > 1 ? split.slots * round_up(split.m * split.n, 16) : 0;
    return split;
}

static void backward_weight(Queue& q, const float* x, const float* dy, float* dw,
                            const ConvShape& s) {
    if (has_sparse_backward_weight(s) && is_sparse(x, s))
        return sparse_backward_weight(q, x, dy, dw, s);
    const WeightSplit split = weight_split(s);
    const size_t m = split.m, n = split.n, slots = split.slots, col_blocks = split.col_blocks;
    if (m == 0 || n == 0) return;
    const size_t parts = product_parts(q.threads, m, n, split.k);
    const size_t row_blocks =
        slots * col_blocks < parts ? smaller(parts, divide_up(m, tile_rows)) : 1;
    const size_t block_step = smaller(block_rows, round_up(divide_up(m, row_blocks), tile_rows));
    float* partial = reinterpret_cast<float*>(q.scratch);
    float* own = partial + split.partial_floats;
    const size_t own_floats = block_floats + spread_floats + block_k * weight_cols;
    const size_t tasks = slots * col_blocks * row_blocks;

    for (size_t group = 0; group < s.groups; ++group) {
        const Gather gather = forward_gather(x, group, s);
        float* weight = dw + group * n;
        parallel_for(int(parts), parts, 1, [&](size_t first, size_t last) {
            float* c[block_rows];
            float* block = own + first * own_floats;
            float* spread = block + block_floats;
            float* packed = spread + spread_floats;
            for (size_t task = tasks * first / parts; task < tasks * last / parts; ++task) {
                const size_t slot = task / row_blocks / col_blocks;
                const size_t i0 = task % row_blocks * m / row_blocks;
                const size_t i1 = (task % row_blocks + 1) * m / row_blocks;
                const size_t j0 = task / row_blocks % col_blocks * weight_cols;
                const size_t cols = smaller(weight_cols, n - j0);
                const size_t k0 = split.k * slot / slots, k1 = split.k * (slot + 1) / slots;
                const size_t length = product_block_length(k1 - k0);
                for (size_t p0 = k0; p0 < k1 || p0 == k0; p0 += length > 0 ? length : 1) {
                    const size_t p1 = smaller(k1, p0 + length);
                    pack_rows(dy + p0 * s.cout + group * n + j0, s.cout, p1 - p0, cols, p1 - p0,
                              packed);
                    for (size_t i = i0; i < i1; i += block_step) {
                        const size_t end = smaller(i1, i + block_step);
                        for (size_t r = i; r < end; ++r)
                            c[r - i] = slots > 1 ? partial + slot * round_up(m * n, 16) + r * n + j0
                                                 : weight + r * s.cout + j0;
                        pack_a<true>(gather, i, end, p0, p1, spread, block);
                        multiply_block<true>(block, end - i, p1 - p0, packed, nullptr, 0, cols, 0,
                                             cols, c, nullptr, p0 > k0);
                    }
                }
            }
        });
        if (slots == 1) continue;
        parallel_for(int(parts), m, 16, [&](size_t begin, size_t end) {
            for (size_t i = begin; i < end; ++i)
                for (size_t j = 0; j < n; j += lanes) {
                    const size_t count = smaller(lanes, n - j);
                    const float* from = partial + i * n + j;
                    Vec sum = broadcast(0);
                    for (size_t slot = 0; slot < slots; ++slot, from += round_up(m * n, 16))
                        sum = sum + (count == lanes ? load(from) : load_partial(from, count));
                    if (count == lanes)
                        store(weight + i * s.cout + j, sum);
                    else
                        store_partial(weight + i * s.cout + j, sum, count);
                }
        });
    }
}

static size_t backward_weight_scratch(const ConvShape& s, int threads) {
    const size_t dense =
        sizeof(float) * (weight_split(s).partial_floats +
                         size_t(threads) * (block_floats + spread_floats + block_k * weight_cols));
    const size_t sparse = sparse_backward_weight_scratch(s, threads);
    return dense > sparse ? dense : sparse;
}

Conv<float> conv() {
    return {.forward = forward,
            .backward_input = backward_input,
            .backward_weight = backward_weight,
            .forward_scratch = forward_scratch,
            .backward_input_scratch = backward_input_scratch,
            .backward_weight_scratch = backward_weight_scratch};
}

}  // namespace nc::kernels::NC_ISA
