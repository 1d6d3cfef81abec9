// Convolution and its two gradients, the definition: plain loops, double sums.
#include "kernels/families.h"

namespace nc::kernels {
namespace {

constexpr size_t block = 64;  // output channels summed at once, so that w and dy are read in order

// Where output position `out` looks with kernel position `k`; false in the padding.
bool source(size_t out, size_t k, size_t stride, size_t dilation, size_t pad, size_t size,
            size_t* in) {
    const size_t padded = out * stride + k * dilation;
    *in = padded - pad;
    return padded >= pad && padded - pad < size;
}

template <class F>
void forward(Queue& q, const F* x, const F* w, const F* bias, F* y, const ConvShape& s) {
    const size_t oh = s.out_h(), ow = s.out_w(), rows = s.n * oh * ow;
    const size_t gin = s.cin / s.groups, gout = s.cout / s.groups;
#pragma omp parallel for schedule(static) num_threads(q.threads)
    for (size_t row = 0; row < rows; ++row) {
        const size_t image = row / (oh * ow), oy = row / ow % oh, ox = row % ow;
        for (size_t group = 0; group < s.groups; ++group) {
            for (size_t o0 = 0; o0 < gout; o0 += block) {
                const size_t outs = gout - o0 < block ? gout - o0 : block;
                const size_t first = group * gout + o0;
                double sum[block] = {};
                for (size_t ky = 0; ky < s.kh; ++ky) {
                    size_t iy = 0, ix = 0;
                    if (!source(oy, ky, s.stride_h, s.dilation_h, s.pad_h, s.h, &iy)) continue;
                    for (size_t kx = 0; kx < s.kw; ++kx) {
                        if (!source(ox, kx, s.stride_w, s.dilation_w, s.pad_w, s.w, &ix)) continue;
                        const F* pixel = x + ((image * s.h + iy) * s.w + ix) * s.cin + group * gin;
                        const F* weight = w + (ky * s.kw + kx) * gin * s.cout + first;
                        for (size_t i = 0; i < gin; ++i)
                            for (size_t o = 0; o < outs; ++o)
                                sum[o] += double(pixel[i]) * double(weight[i * s.cout + o]);
                    }
                }
                for (size_t o = 0; o < outs; ++o) {
                    if (bias != nullptr) sum[o] += double(bias[first + o]);
                    y[row * s.cout + first + o] = F(sum[o]);
                }
            }
        }
    }
}

// Each input pixel gathers from the output pixels that looked at it.
template <class F>
void backward_input(Queue& q, const F* dy, const F* w, F* dx, const ConvShape& s) {
    const size_t oh = s.out_h(), ow = s.out_w(), rows = s.n * s.h * s.w;
    const size_t gin = s.cin / s.groups, gout = s.cout / s.groups;
#pragma omp parallel for schedule(static) num_threads(q.threads)
    for (size_t row = 0; row < rows; ++row) {
        const size_t image = row / (s.h * s.w), iy = row / s.w % s.h, ix = row % s.w;
        for (size_t group = 0; group < s.groups; ++group) {
            for (size_t i0 = 0; i0 < gin; i0 += block) {
                const size_t ins = gin - i0 < block ? gin - i0 : block;
                double sum[block] = {};
                for (size_t ky = 0; ky < s.kh; ++ky) {
                    const size_t py = iy + s.pad_h, ty = ky * s.dilation_h;
                    if (py < ty || (py - ty) % s.stride_h != 0) continue;
                    const size_t oy = (py - ty) / s.stride_h;
                    if (oy >= oh) continue;
                    for (size_t kx = 0; kx < s.kw; ++kx) {
                        const size_t px = ix + s.pad_w, tx = kx * s.dilation_w;
                        if (px < tx || (px - tx) % s.stride_w != 0) continue;
                        const size_t ox = (px - tx) / s.stride_w;
                        if (ox >= ow) continue;
                        const F* grad = dy + ((image * oh + oy) * ow + ox) * s.cout + group * gout;
                        const F* weight = w + ((ky * s.kw + kx) * gin + i0) * s.cout + group * gout;
                        for (size_t i = 0; i < ins; ++i) {
                            double dot = 0;
                            for (size_t o = 0; o < gout; ++o)
                                dot += double(grad[o]) * double(weight[i * s.cout + o]);
                            sum[i] += dot;
                        }
                    }
                }
                for (size_t i = 0; i < ins; ++i) dx[row * s.cin + group * gin + i0 + i] = F(sum[i]);
            }
        }
    }
}

template <class F>
void backward_weight(Queue& q, const F* x, const F* dy, F* dw, const ConvShape& s) {
    const size_t oh = s.out_h(), ow = s.out_w();
    const size_t gin = s.cin / s.groups, gout = s.cout / s.groups, rows = s.kh * s.kw * gin;
#pragma omp parallel for schedule(static) num_threads(q.threads)
    for (size_t row = 0; row < rows; ++row) {
        const size_t ky = row / gin / s.kw, kx = row / gin % s.kw, i = row % gin;
        for (size_t group = 0; group < s.groups; ++group) {
            for (size_t o0 = 0; o0 < gout; o0 += block) {
                const size_t outs = gout - o0 < block ? gout - o0 : block;
                const size_t first = group * gout + o0;
                double sum[block] = {};
                for (size_t image = 0; image < s.n; ++image) {
                    for (size_t oy = 0; oy < oh; ++oy) {
                        size_t iy = 0, ix = 0;
                        if (!source(oy, ky, s.stride_h, s.dilation_h, s.pad_h, s.h, &iy)) continue;
                        for (size_t ox = 0; ox < ow; ++ox) {
                            if (!source(ox, kx, s.stride_w, s.dilation_w, s.pad_w, s.w, &ix))
                                continue;
                            const double value = double(
                                x[((image * s.h + iy) * s.w + ix) * s.cin + group * gin + i]);
                            const F* grad = dy + ((image * oh + oy) * ow + ox) * s.cout + first;
                            for (size_t o = 0; o < outs; ++o) sum[o] += value * double(grad[o]);
                        }
                    }
                }
                for (size_t o = 0; o < outs; ++o) dw[row * s.cout + first + o] = F(sum[o]);
            }
        }
    }
}

size_t no_scratch(const ConvShape&, int) {
    return 0;
}

}  // namespace

template <class F>
Conv<F> reference_conv() {
    return {.forward = forward<F>,
            .backward_input = backward_input<F>,
            .backward_weight = backward_weight<F>,
            .forward_scratch = no_scratch,
            .backward_input_scratch = no_scratch,
            .backward_weight_scratch = no_scratch};
}
template Conv<float> reference_conv<float>();
template Conv<double> reference_conv<double>();

}  // namespace nc::kernels
