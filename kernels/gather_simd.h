// What each output pixel of a convolution reads, gathered from the image while the left operand of
// a matrix product is packed (implicit gemm; Chetlur et al., 2014). Shared by conv_simd and
// analog_simd.
#pragma once

#include "kernels/gemm_core.h"

namespace nc::kernels::NC_ISA {

namespace {

// One axis of a gather: output position o and tap t read input position o * stride + first + t *
// step when that lies in [0, in), else 0.
struct Axis {
    size_t out, taps, in;
    ptrdiff_t stride, first, step;
};

// The matrix [images * y.out * x.out, y.taps * x.taps * channels] of what each output pixel reads.
// Input pixels are `pixel` floats apart, of which `channels` are read.
struct Gather {
    const float* image;
    size_t images, pixel, channels;
    Axis y, x;

    size_t rows() const { return images * y.out * x.out; }
    size_t length() const { return y.taps * x.taps * channels; }

    // As pack_a wants it. Elements next to each other in memory are copied as one run: a row of
    // taps where these are whole adjacent pixels, else one tap.
    void operator()(size_t r0, size_t r1, size_t e0, size_t e1, float* dst) const {
        if (e0 == e1) return;
        const bool joined = channels == pixel && x.step == 1;
        const size_t run_taps = joined ? 1 : x.taps;
        const size_t run = joined ? x.taps * channels : channels;
        const ptrdiff_t image_row = ptrdiff_t(x.in * pixel);
        const ptrdiff_t advance = x.stride * ptrdiff_t(pixel);
        for (size_t r = r0; r < r1;) {  // pixels of one output row
            const size_t ox = r % x.out, oy = r / x.out % y.out, n = r / x.out / y.out;
            const size_t count = smaller(x.out - ox, r1 - r);
            for (size_t s = e0 / run; s * run < e1; ++s) {
                const ptrdiff_t low = s * run < e0 ? ptrdiff_t(e0 - s * run) : 0;
                const ptrdiff_t high = ptrdiff_t(smaller(run, e1 - s * run));
                float* out = dst + ptrdiff_t(s * run) + low - ptrdiff_t(e0);
                const size_t ty = s / run_taps, tx = s % run_taps;
                const ptrdiff_t iy = ptrdiff_t(oy) * y.stride + y.first + ptrdiff_t(ty) * y.step;
                if (iy < 0 || iy >= ptrdiff_t(y.in)) {
                    for (size_t i = 0; i < count; ++i)
                        zero_over(out + i * row_stride, size_t(high - low));
                    continue;
                }
                const float* line = image + (n * y.in + size_t(iy)) * x.in * pixel;
                ptrdiff_t at = ptrdiff_t(ox) * x.stride + x.first + ptrdiff_t(tx) * x.step;
                at *= ptrdiff_t(pixel);
                // Pixels [inside, after) see nothing but the line; the loop over them is the hot
                // one.
                const size_t inside = at + low >= 0 ? 0 : steps(-(at + low), advance, count);
                const ptrdiff_t room = image_row - high - at;
                const size_t after = room < 0 ? inside : steps(room + 1, advance, count);
                const size_t length = size_t(high - low);
                size_t i = 0;
                for (; i < inside; ++i, at += advance, out += row_stride)
                    clipped(out, line, at, image_row, low, high);
                if (length < lanes)
                    for (; i < after; ++i, at += advance, out += row_stride)
                        store(out, load_partial(line + at + low, length));
                else
                    for (; i < after; ++i, at += advance, out += row_stride)
                        copy_over(out, line + at + low, length);
                for (; i < count; ++i, at += advance, out += row_stride)
                    clipped(out, line, at, image_row, low, high);
            }
            r += count;
            dst += count * row_stride;
        }
    }

    // The first of `count` steps of this length that reaches `distance`, or count.
    static size_t steps(ptrdiff_t distance, ptrdiff_t advance, size_t count) {
        return smaller(count, size_t((distance + advance - 1) / advance));
    }

    // A run [low, high) that starts at line[at]: what lies outside the line is 0.
    static void clipped(float* out, const float* line, ptrdiff_t at, ptrdiff_t image_row,
                        ptrdiff_t low, ptrdiff_t high) {
        const ptrdiff_t first = -at < low ? low : -at < high ? -at : high;
        const ptrdiff_t end = image_row - at < first  ? first
                              : image_row - at < high ? image_row - at
                                                      : high;
        zero_over(out, size_t(first - low));
        if (first < end) copy_over(out + (first - low), line + at + first, size_t(end - first));
        zero_over(out + (end - low), size_t(high - end));
    }
};

}  // namespace

static inline Axis forward_axis(size_t in, size_t out, size_t taps, size_t stride, size_t pad,
                                size_t dilation) {
    return {.out = out,
            .taps = taps,
            .in = in,
            .stride = ptrdiff_t(stride),
            .first = -ptrdiff_t(pad),
            .step = ptrdiff_t(dilation)};
}

static inline Gather forward_gather(const float* x, size_t group, const ConvShape& s) {
    const size_t channels = s.cin / s.groups;
    return {.image = x + group * channels,
            .images = s.n,
            .pixel = s.cin,
            .channels = channels,
            .y = forward_axis(s.h, s.out_h(), s.kh, s.stride_h, s.pad_h, s.dilation_h),
            .x = forward_axis(s.w, s.out_w(), s.kw, s.stride_w, s.pad_w, s.dilation_w)};
}

}  // namespace nc::kernels::NC_ISA
