// The definition of the spike kernels: packing, and the canonical sums as plain loops.
#include "kernels/families.h"

namespace nc::kernels {
namespace {

template <class F>
void pack(Queue&, const F* x, uint64_t* bits, size_t rows, size_t channels) {
    const size_t words = (channels + 63) / 64;
    for (size_t r = 0; r < rows; ++r) {
        for (size_t k = 0; k < words; ++k) bits[r * words + k] = 0;
        for (size_t c = 0; c < channels; ++c)
            if (x[r * channels + c] != 0) bits[r * words + c / 64] |= uint64_t(1) << c % 64;
    }
}

bool bit(const uint64_t* row, size_t c) {
    return row[c / 64] >> c % 64 & 1;
}

template <class F>
void unpack(Queue&, const uint64_t* bits, F value, F* x, size_t rows, size_t channels) {
    const size_t words = (channels + 63) / 64;
    for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < channels; ++c)
            x[r * channels + c] = bit(bits + r * words, c) ? value : F(0);
}

// Where the accumulator of output o starts; adding 0 turns a bias of -0 into +0.
template <class F>
F start(const F* bias, size_t o) {
    return bias != nullptr ? bias[o] + F(0) : F(0);
}

template <class F>
void linear_dense(Queue&, const F* x, const F* w, const F* bias, bool, F* y, size_t rows, size_t in,
                  size_t out) {
    for (size_t r = 0; r < rows; ++r)
        for (size_t o = 0; o < out; ++o) {
            F sum = start(bias, o);
            for (size_t i = 0; i < in; ++i) {
                const F term = x[r * in + i] * w[i * out + o];
                sum = sum + term;
            }
            y[r * out + o] = sum;
        }
}

template <class F>
void linear_event(Queue&, const uint64_t* bits, const F* w, const F* bias, F* y, size_t rows,
                  size_t groups, size_t channels, size_t out) {
    const size_t words = (channels + 63) / 64;
    for (size_t r = 0; r < rows; ++r)
        for (size_t o = 0; o < out; ++o) {
            F sum = start(bias, o);
            for (size_t g = 0; g < groups; ++g)
                for (size_t c = 0; c < channels; ++c)
                    if (bit(bits + (r * groups + g) * words, c))
                        sum = sum + w[(g * channels + c) * out + o];
            y[r * out + o] = sum;
        }
}

// Calls visit(y, x, ky, kx) for the kernel positions of output (oy, ox) that lie inside the image,
// by row, then column.
template <class Visit>
void for_each_tap(const ConvShape& s, size_t oy, size_t ox, Visit visit) {
    for (size_t ky = 0; ky < s.kh; ++ky)
        for (size_t kx = 0; kx < s.kw; ++kx) {
            const size_t y = oy * s.stride_h + ky * s.dilation_h;
            const size_t x = ox * s.stride_w + kx * s.dilation_w;
            if (y < s.pad_h || x < s.pad_w || y - s.pad_h >= s.h || x - s.pad_w >= s.w) continue;
            visit(y - s.pad_h, x - s.pad_w, ky, kx);
        }
}

// Calls term(n, y, x, weight tap, o) over every output and tap, and writes the sums.
template <class F, class Terms>
void conv(const F* bias, F* out, const ConvShape& s, Terms terms) {
    for (size_t n = 0; n < s.n; ++n)
        for (size_t oy = 0; oy < s.out_h(); ++oy)
            for (size_t ox = 0; ox < s.out_w(); ++ox)
                for (size_t o = 0; o < s.cout; ++o) {
                    F sum = start(bias, o);
                    for_each_tap(s, oy, ox, [&](size_t y, size_t x, size_t ky, size_t kx) {
                        terms(sum, (n * s.h + y) * s.w + x, ky * s.kw + kx, o);
                    });
                    out[((n * s.out_h() + oy) * s.out_w() + ox) * s.cout + o] = sum;
                }
}

template <class F>
void conv_dense(Queue&, const F* x, const F* w, const F* bias, bool, F* y, const ConvShape& s) {
    if (s.n == 0 || s.cout == 0) return;
    const size_t cin = s.cin / s.groups;
    conv(bias, y, s, [&](F& sum, size_t pixel, size_t tap, size_t o) {
        const size_t first = o / (s.cout / s.groups) * cin;
        for (size_t c = 0; c < cin; ++c) {
            const F term = x[pixel * s.cin + first + c] * w[(tap * cin + c) * s.cout + o];
            sum = sum + term;
        }
    });
}

template <class F>
void conv_event(Queue&, const uint64_t* bits, const F* w, const F* bias, F* y, const ConvShape& s) {
    if (s.n == 0 || s.cout == 0) return;
    const size_t words = (s.cin + 63) / 64;
    conv(bias, y, s, [&](F& sum, size_t pixel, size_t tap, size_t o) {
        for (size_t c = 0; c < s.cin; ++c)
            if (bit(bits + pixel * words, c)) sum = sum + w[(tap * s.cin + c) * s.cout + o];
    });
}

uint64_t count(Queue&, const uint64_t* bits, size_t words) {
    uint64_t n = 0;
    for (size_t i = 0; i < words; ++i)
        for (size_t b = 0; b < 64; ++b) n += bits[i] >> b & 1;
    return n;
}

size_t no_count_scratch() {
    return 0;
}
size_t no_split_scratch(size_t, size_t) {
    return 0;
}

}  // namespace

template <class F>
Spike<F> reference_spike() {
    return {.pack = pack<F>,
            .unpack = unpack<F>,
            .linear_dense = linear_dense<F>,
            .linear_event = linear_event<F>,
            .conv_dense = conv_dense<F>,
            .conv_event = conv_event<F>,
            .count = count,
            .count_scratch = no_count_scratch,
            .linear_split = linear_event<F>,
            .conv_split = conv_event<F>,
            .split_scratch = no_split_scratch};
}
template Spike<float> reference_spike<float>();
template Spike<double> reference_spike<double>();

}  // namespace nc::kernels
