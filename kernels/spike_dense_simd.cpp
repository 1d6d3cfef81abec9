// The canonical sums over every input for one instruction set: a tile of output pixels by outputs
// in registers, inputs in order, the weights in panels that stay in the first cache.
#include "kernels/spike_simd.h"

namespace nc::kernels::NC_ISA {

static constexpr int pixels = 6;                          // in a tile
static constexpr int vectors_many = lanes == 16 ? 4 : 2;  // outputs of a tile
static constexpr int vectors_one = 8;                     // outputs of one pixel alone
static constexpr size_t longest_run = 512;                // inputs
static constexpr size_t most_runs = 32;
static constexpr size_t panel_floats = 8192;  // weights that stay in the first cache
static const float zeros[longest_run] = {};   // what padding reads

// Inputs that lie side by side under a kernel, for every pixel of a tile, and their weights.
struct Run {
    const float* x[pixels];
    const float* w;
    size_t n;
};

// y [count pixels of y_stride, vectors] += the runs' x w, weights in rows of w_stride; the last
// vector has `last` lanes unless whole.
template <int count, int vectors, bool whole, bool fused>
static void dense_tile(const Run* runs, size_t run_count, size_t w_stride, float* y,
                       size_t y_stride, size_t last) {
    const auto get = [&](const float* p, int k) __attribute__((always_inline)) {
        return whole || k + 1 < vectors ? load(p + k * lanes) : load_partial(p + k * lanes, last);
    };
    Vec sum[count * vectors];
    unrolled<count>([&](int p) __attribute__((always_inline)) {
        unrolled<vectors>([&](int k) __attribute__((always_inline)) {
            sum[p * vectors + k] = get(y + size_t(p) * y_stride, k);
        });
    });
    for (const Run* run = runs; run < runs + run_count; ++run) {
        const float* x[count];
        unrolled<count>([&](int p) __attribute__((always_inline)) { x[p] = run->x[p]; });
        const float* w = run->w;
        const size_t n = run->n;
        for (size_t i = 0; i < n; ++i, w += w_stride) {
            Vec weight[vectors];
            unrolled<vectors>([&](int k) __attribute__((always_inline)) { weight[k] = get(w, k); });
            unrolled<count>([&](int p) __attribute__((always_inline)) {
                const Vec input = broadcast(x[p][i]);
                unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                    Vec& s = sum[p * vectors + k];
                    if constexpr (fused)
                        s = fma(input, weight[k], s);
                    else
                        s = s + input * weight[k];
                });
            });
        }
    }
    unrolled<count>([&](int p) __attribute__((always_inline)) {
        unrolled<vectors>([&](int k) __attribute__((always_inline)) {
            float* const to = y + size_t(p) * y_stride + k * lanes;
            if (whole || k + 1 < vectors)
                store(to, sum[p * vectors + k]);
            else
                store_partial(to, sum[p * vectors + k], last);
        });
    });
}

using DenseTile = void (*)(const Run*, size_t, size_t, float*, size_t, size_t);

// The tile of `count` pixels for a number of vectors known as it runs.
template <int count, int vectors, bool fused>
static DenseTile pick_tile(int wanted, bool whole) {
    if constexpr (vectors > 1)
        if (wanted < vectors) return pick_tile<count, vectors - 1, fused>(wanted, whole);
    return whole ? dense_tile<count, vectors, true, fused>
                 : dense_tile<count, vectors, false, fused>;
}

// One group of a convolution: its first input, its inputs per tap, and a panel of its outputs:
// `width` of them, their sums from y on, their weights in rows of w_stride from input `from` on.
struct Panel {
    const float* x;
    size_t cin;
    const float* w;
    size_t w_stride;
    float* y;
    size_t width;
    size_t from, to;  // inputs of the kernel's flat [kh, kw, cin]
};

// The panel's sums of `count` pixels.
template <int count>
static void add_inputs(const Panel& g, const ConvShape& s, DenseTile tile, const Pixel* at,
                       float* y) {
    const size_t row_inputs = s.kw * g.cin, tail = g.width % lanes;
    // Where no pixel of the tile meets the left or right border, the inputs under a kernel row are
    // one run.
    bool inside = s.groups == 1 && s.dilation_w == 1;
    for (int k = 0; k < count; ++k) inside = inside && at[k].x < s.w && s.w - at[k].x >= s.kw;
    Run runs[most_runs];
    size_t run_count = 0, ky = g.from / row_inputs, k_in_row = g.from % row_inputs;
    size_t kx = k_in_row / g.cin, c = k_in_row % g.cin;
    for (size_t k = g.from; k < g.to;) {
        const size_t left = inside ? row_inputs - kx * g.cin - c : g.cin - c;
        size_t n = left < g.to - k ? left : g.to - k;
        if (n > longest_run) n = longest_run;
        Run& run = runs[run_count];
        bool any = false;
        for (int p = 0; p < count; ++p) {
            const size_t iy = at[p].y + ky * s.dilation_h, ix = at[p].x + kx * s.dilation_w;
            const bool in = iy < s.h && ix < s.w;
            run.x[p] = in ? g.x + ((at[p].image + iy) * s.w + ix) * s.cin + c : zeros;
            any = any || in;
        }
        run.w = g.w + (k - g.from) * g.w_stride;
        run.n = n;
        run_count += any;
        if (run_count == most_runs) {
            tile(runs, run_count, g.w_stride, y, s.cout, tail);
            run_count = 0;
        }
        k += n;
        c += n;
        while (c >= g.cin) c -= g.cin, ++kx;
        while (kx >= s.kw) kx -= s.kw, ++ky;
    }
    if (run_count > 0) tile(runs, run_count, g.w_stride, y, s.cout, tail);
}

// The panel's sums of pixels [begin, end): tiles of `count`, then smaller ones of what is left.
template <int count, bool fused>
static void add_panel(const Panel& g, const ConvShape& s, Pixel next, size_t begin, size_t end) {
    if (end - begin >= count) {
        constexpr int most = count == 1 ? vectors_one : vectors_many;
        const DenseTile tile =
            pick_tile<count, most, fused>(int((g.width + lanes - 1) / lanes), g.width % lanes == 0);
        for (; end - begin >= count; begin += count) {
            Pixel at[count];
            for (int k = 0; k < count; ++k) {
                at[k] = next;
                next.next(s);
            }
            add_inputs<count>(g, s, tile, at, g.y + begin * s.cout);
        }
    }
    if constexpr (count > 1)
        add_panel<(count == pixels ? 4 : count / 2), fused>(g, s, next, begin, end);
}

// Outputs [first, last) of pixels [begin, end) of a group with these first input, weight, bias,
// sum.
template <bool fused>
static void conv_share(const float* x, const float* w, const float* bias, float* y,
                       const ConvShape& s, size_t begin, size_t end, size_t first, size_t last) {
    const size_t cin = s.cin / s.groups, inputs = s.kh * s.kw * cin;
    const size_t most = (end - begin > 1 ? vectors_many : vectors_one) * lanes;
    // Weights that many tiles read are gathered from their rows.
    const bool gather = end - begin >= 4 * pixels && s.cout > most;
    // All outputs' weights of a slab of inputs stay in the second cache, a panel's in the first.
    const size_t fitting = slab_bytes / (s.cout * sizeof(float));
    size_t slab = panel_floats / most;
    if (gather && fitting < slab) slab = fitting < 64 ? 64 : fitting;
    for (size_t p = begin; p < end; ++p) start_sums(bias, y + p * s.cout, first, last);
    alignas(64) float gathered[panel_floats];
    for (size_t from = 0; from < inputs; from += slab)
        for (size_t o = first; o < last; o += most) {
            const size_t width = last - o < most ? last - o : most;
            Panel g = {x,
                       cin,
                       w + from * s.cout + o,
                       s.cout,
                       y + o,
                       width,
                       from,
                       from + slab < inputs ? from + slab : inputs};
            if (gather) {
                for (size_t k = from; k < g.to; ++k)
                    memcpy(gathered + (k - from) * most, w + k * s.cout + o, width * sizeof(float));
                g.w = gathered;
                g.w_stride = most;
            }
            add_panel<pixels, fused>(g, s, Pixel(s, begin), begin, end);
        }
}

static void conv_dense(Queue& queue, const float* x, const float* w, const float* bias, bool binary,
                       float* y, const ConvShape& s) {
    if (s.n == 0 || s.cout == 0) return;
    const size_t cin = s.cin / s.groups, cout = s.cout / s.groups;
    for (size_t group = 0; group < s.groups; ++group)
        parallel_sums(queue.threads, s.n * s.out_h() * s.out_w(), pixels, cout,
                      [&](size_t begin, size_t end, size_t first, size_t last) {
                          (binary
                               ? conv_share<has_fma>
                               : conv_share<false>)(x + group * cin, w + group * cout,
                                                    bias != nullptr ? bias + group * cout : nullptr,
                                                    y + group * cout, s, begin, end, first, last);
                      });
}

// A linear layer is a convolution of single pixels.
static void linear_dense(Queue& queue, const float* x, const float* w, const float* bias,
                         bool binary, float* y, size_t rows, size_t in, size_t out) {
    conv_dense(queue, x, w, bias, binary, y,
               {.n = rows, .h = 1, .w = 1, .cin = in, .kh = 1, .kw = 1, .cout = out});
}

static void dense_range(const float* x, const float* w, const float* bias, bool binary, float* y,
                        const ConvShape& s, size_t begin, size_t end, size_t first, size_t last) {
    if (begin == end || first == last) return;
    const size_t cin = s.cin / s.groups, cout = s.cout / s.groups;
    for (size_t group = 0; group < s.groups; ++group)
        (binary ? conv_share<has_fma>
                : conv_share<false>)(x + group * cin, w + group * cout,
                                     bias != nullptr ? bias + group * cout : nullptr,
                                     y + group * cout, s, begin, end, first, last);
}

decltype(Stages::dense) stages_dense() {
    return dense_range;
}
decltype(Spike<float>::linear_dense) spike_linear_dense() {
    return linear_dense;
}
decltype(Spike<float>::conv_dense) spike_conv_dense() {
    return conv_dense;
}

}  // namespace nc::kernels::NC_ISA
