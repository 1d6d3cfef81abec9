// The canonical sums over every input for one instruction set: a tile of output pixels by outputs
// in registers, inputs in order, the weights in slabs that stay in the second cache.
#include "kernels/spike_simd.h"

namespace nc::kernels::NC_ISA {

static constexpr int pixels = 6;                          // in a tile, or 1
static constexpr int vectors_many = lanes == 16 ? 4 : 2;  // outputs of a tile of 6
static constexpr int vectors_one = 8;                     // outputs of a tile of 1
static constexpr size_t longest_run = 1024;               // inputs
static const float zeros[longest_run] = {};               // what padding reads

// y [count pixels of y_stride, vectors] += x [pixels][n] w [n rows of w_stride]; the last vector
// has `last` lanes unless whole.
template <int count, int vectors, bool whole, bool fused>
static void dense_tile(const float* const* x, size_t n, const float* w, size_t w_stride, float* y,
                       size_t y_stride, size_t last) {
    const auto get = [&](const float* p, int k) __attribute__((always_inline)) {
        return whole || k + 1 < vectors ? load(p + k * lanes) : load_partial(p + k * lanes, last);
    };
    const float* row[count];
    Vec sum[count * vectors];
    unrolled<count>([&](int p) __attribute__((always_inline)) {
        row[p] = x[p];
        unrolled<vectors>([&](int k) __attribute__((always_inline)) {
            sum[p * vectors + k] = get(y + size_t(p) * y_stride, k);
        });
    });
    for (size_t i = 0; i < n; ++i, w += w_stride) {
        Vec weight[vectors];
        unrolled<vectors>([&](int k) __attribute__((always_inline)) { weight[k] = get(w, k); });
        unrolled<count>([&](int p) __attribute__((always_inline)) {
            const Vec input = broadcast(row[p][i]);
            unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                Vec& s = sum[p * vectors + k];
                if constexpr (fused)
                    s = fma(input, weight[k], s);
                else
                    s = s + input * weight[k];
            });
        });
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

using DenseTile = void (*)(const float* const*, size_t, const float*, size_t, float*, size_t,
                           size_t);

// The tile of `count` pixels for a number of vectors known as it runs.
template <int count, int vectors, bool fused>
static DenseTile pick_tile(int wanted, bool whole) {
    if constexpr (vectors > 1)
        if (wanted < vectors) return pick_tile<count, vectors - 1, fused>(wanted, whole);
    return whole ? dense_tile<count, vectors, true, fused>
                 : dense_tile<count, vectors, false, fused>;
}

// Outputs [first, last) of `count` pixels.
template <int count, bool fused>
static void add_inputs(const float* const* x, size_t n, const float* w, size_t w_stride, float* y,
                       size_t y_stride, size_t first, size_t last) {
    constexpr int most = count == 1 ? vectors_one : vectors_many;
    while (first < last) {
        const size_t vectors = (last - first + lanes - 1) / lanes;
        const size_t now = vectors < most ? vectors : most;
        const size_t tail = (last - first) % lanes;
        pick_tile<count, most, fused>(int(now), now < vectors || tail == 0)(
            x, n, w + first, w_stride, y + first, y_stride, tail);
        first += now * lanes;
    }
}

// One group of a convolution: its first input, weight and output, and its sizes; outputs
// [first, last) of it.
struct Group {
    const float* x;
    const float* w;
    float* y;
    size_t cin, first, last;
};

// Inputs [from, to) of a kernel's flat [kh, kw, cin] added to `count` pixels from p on.
template <int count, bool fused>
static void add_slab(const Group& g, const ConvShape& s, size_t p, const Pixel* at, size_t from,
                     size_t to) {
    const size_t row_inputs = s.kw * g.cin;
    // Where no pixel of the tile meets the left or right border, the inputs under a kernel row are
    // one run.
    bool inside = s.groups == 1 && s.dilation_w == 1;
    for (int k = 0; k < count; ++k) inside = inside && at[k].x < s.w && s.w - at[k].x >= s.kw;
    const size_t longest = inside ? row_inputs : g.cin;
    size_t ky = from / row_inputs, k_in_row = from % row_inputs;
    while (from < to) {
        const size_t kx = k_in_row / g.cin, c = k_in_row % g.cin;
        size_t n = longest - (inside ? k_in_row : c);
        if (n > to - from) n = to - from;
        if (n > longest_run) n = longest_run;
        const float* x[count];
        bool any = false;
        for (int k = 0; k < count; ++k) {
            const size_t iy = at[k].y + ky * s.dilation_h, ix = at[k].x + kx * s.dilation_w;
            const bool in = iy < s.h && ix < s.w;
            x[k] = in ? g.x + ((at[k].image + iy) * s.w + ix) * s.cin + c : zeros;
            any = any || in;
        }
        if (any)
            add_inputs<count, fused>(x, n, g.w + from * s.cout, s.cout, g.y + p * s.cout, s.cout,
                                     g.first, g.last);
        from += n;
        k_in_row += n;
        if (k_in_row == row_inputs) k_in_row = 0, ++ky;
    }
}

template <bool fused>
static void conv_share(const Group& g, const float* bias, const ConvShape& s, size_t begin,
                       size_t end) {
    const size_t inputs = s.kh * s.kw * g.cin;
    const size_t fitting = slab_bytes / (s.cout * sizeof(float));
    const size_t slab = fitting < 64 ? 64 : fitting;
    for (size_t p = begin; p < end; ++p) start_sums(bias, g.y + p * s.cout, g.first, g.last);
    for (size_t from = 0; from < inputs; from += slab) {
        const size_t to = from + slab < inputs ? from + slab : inputs;
        Pixel next(s, begin);
        size_t p = begin;
        for (; p + pixels <= end; p += pixels) {
            Pixel at[pixels];
            for (int k = 0; k < pixels; ++k) {
                at[k] = next;
                next.next(s);
            }
            add_slab<pixels, fused>(g, s, p, at, from, to);
        }
        for (; p < end; ++p, next.next(s)) add_slab<1, fused>(g, s, p, &next, from, to);
    }
}

static void conv_dense(Queue& queue, const float* x, const float* w, const float* bias, bool binary,
                       float* y, const ConvShape& s) {
    if (s.n == 0 || s.cout == 0) return;
    const size_t cin = s.cin / s.groups, cout = s.cout / s.groups;
    for (size_t group = 0; group < s.groups; ++group)
        parallel_sums(
            queue.threads, s.n * s.out_h() * s.out_w(), pixels, cout,
            [&](size_t begin, size_t end, size_t first, size_t last) {
                const Group g = {
                    x + group * cin, w + group * cout, y + group * cout, cin, first, last};
                const float* const b = bias != nullptr ? bias + group * cout : nullptr;
                (has_fma && binary ? conv_share<true> : conv_share<false>)(g, b, s, begin, end);
            });
}

// A linear layer is a convolution of single pixels.
static void linear_dense(Queue& queue, const float* x, const float* w, const float* bias,
                         bool binary, float* y, size_t rows, size_t in, size_t out) {
    conv_dense(queue, x, w, bias, binary, y,
               {.n = rows, .h = 1, .w = 1, .cin = in, .kh = 1, .kw = 1, .cout = out});
}

decltype(Spike<float>::linear_dense) spike_linear_dense() {
    return linear_dense;
}
decltype(Spike<float>::conv_dense) spike_conv_dense() {
    return conv_dense;
}

}  // namespace nc::kernels::NC_ISA
