// Convolution on CUDA and its two gradients: the tiles of gemm_cuda.cuh, with an operand that is
// gathered from the image as it is loaded, so that no unfolded copy of it is ever in memory.
//
//   forward          y  [n oh ow, cout]       = patches of x [n oh ow, kh kw cin] w [kh kw cin,
//   cout] backward_input   dx [n h w, cin]          = patches of dy [n h w, kh kw cout] w' [kh kw
//   cout, cin] backward_weight  dw [kh kw cin, cout]     = (patches of x)' dy [n oh ow, cout], rows
//   split over blocks
//
// 2 n oh ow kh kw cin cout / groups flops each. With a stride an input pixel meets only the kernel
// positions of its residue modulo the stride: backward_input does each residue's pixels on their
// own, as a convolution without stride. A warp gathers runs of 8 or 16 channels (whole sectors of
// 32 bytes); each image is read from memory once, its kh kw uses find it in the caches. Groups are
// products of their own: a depthwise convolution uses one column of a tile's 32.
#include "kernels/gemm_cuda.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

// An image [n, h, w, c] seen from a grid of places [n, lines, columns] through a kernel of taps
// [taps_h, taps_w, channels]: place (j, i) with tap (a, b) is pixel (start_y + j stride_y + a
// step_y, ..).
struct Gather {
    const float* p;
    unsigned h, w, c;
    Divider lines, columns, taps_w, channels;
    int start_y, start_x, stride_y, stride_x, step_y, step_x;

    // Two parts of a pixel: of a place, and of a tap. Modulo 2^32 their sum is right where it is
    // inside.
    struct Part {
        int y, x;
        unsigned pixel, channel;
    };
    __device__ Part place(unsigned i) const {
        const unsigned row = columns(i), image = lines(row);
        const int y = start_y + int(row - image * lines.divisor) * stride_y;
        const int x = start_x + int(i - row * columns.divisor) * stride_x;
        return {y, x, (image * h + unsigned(y)) * w + unsigned(x), 0};
    }
    __device__ Part tap(unsigned i) const {
        const unsigned at = channels(i), row = taps_w(at);
        const int y = int(row) * step_y, x = int(at - row * taps_w.divisor) * step_x;
        return {y, x, unsigned(y) * w + unsigned(x), i - at * channels.divisor};
    }
    __device__ float at(const float* base, const Part& place, const Part& tap) const {
        if (unsigned(place.y + tap.y) >= h || unsigned(place.x + tap.x) >= w) return 0;  // padding
        return base[size_t(place.pixel + tap.pixel) * c + tap.channel];
    }
    __device__ const float* base(unsigned group) const { return p + group * channels.divisor; }
};

// Lines are places, terms are taps.
struct Patches : Gather {
    static constexpr bool along_terms = true;
    using Line = Part;
    __device__ Part line(unsigned i) const { return place(i); }
    __device__ Part term(unsigned k) const { return tap(k); }
};

// The same, transposed.
struct PatchesTransposed : Gather {
    static constexpr bool along_terms = false;
    using Line = Part;
    __device__ Part line(unsigned i) const { return tap(i); }
    __device__ Part term(unsigned k) const { return place(k); }
    __device__ float at(const float* base, const Part& tap, const Part& place) const {
        return Gather::at(base, place, tap);
    }
};

// Weights [kh, kw, ins, cout] as lines of inputs and terms of (some taps, a group's outputs).
struct WeightsTransposed {
    static constexpr bool along_terms = true;
    using Line = unsigned;
    const float* p;
    unsigned ins, cout, kw;
    Divider taps_w, outs;
    unsigned first_y, first_x, step_y, step_x;  // the taps used
    __device__ const float* base(unsigned group) const { return p + group * outs.divisor; }
    __device__ unsigned line(unsigned i) const { return i * cout; }
    __device__ size_t term(unsigned k) const {
        const unsigned at = outs(k), row = taps_w(at), col = at - row * taps_w.divisor;
        const unsigned tap = (first_y + row * step_y) * kw + first_x + col * step_x;
        return size_t(tap) * ins * cout + (k - at * outs.divisor);
    }
    __device__ float at(const float* base, unsigned line, size_t term) const {
        return base[term + line];
    }
};

// A residue's pixels among all of the image's.
struct PixelRows {
    unsigned h, w, c;
    Divider lines, columns;
    unsigned start_y, start_x, stride_y, stride_x;
    __device__ size_t operator()(unsigned i) const {
        const unsigned row = columns(i), image = lines(row);
        const unsigned y = start_y + (row - image * lines.divisor) * stride_y;
        const unsigned x = start_x + (i - row * columns.divisor) * stride_x;
        return size_t((image * h + y) * w + x) * c;
    }
};

// Pixels are counted in 31 bits.
bool too_large(Queue& q, const ConvShape& s) {
    constexpr size_t most = size_t(1) << 31;
    const bool large = s.n * s.h * s.w >= most || s.n * s.out_h() * s.out_w() >= most;
    if (large && q.status == cudaSuccess) q.status = cudaErrorInvalidValue;
    return large;
}

// What the output's pixels see of x.
Gather input_of(const float* x, const ConvShape& s) {
    return {.p = x,
            .h = unsigned(s.h),
            .w = unsigned(s.w),
            .c = unsigned(s.cin),
            .lines = Divider(s.out_h()),
            .columns = Divider(s.out_w()),
            .taps_w = Divider(s.kw),
            .channels = Divider(s.cin / s.groups),
            .start_y = -int(s.pad_h),
            .start_x = -int(s.pad_w),
            .stride_y = int(s.stride_h),
            .stride_x = int(s.stride_w),
            .step_y = int(s.dilation_h),
            .step_x = int(s.dilation_w)};
}

struct Sizes {
    size_t m, n, k;
};
Sizes forward_sizes(const ConvShape& s) {
    return {s.n * s.out_h() * s.out_w(), s.cout / s.groups, s.kh * s.kw * (s.cin / s.groups)};
}
Sizes weight_sizes(const ConvShape& s) {
    const Sizes f = forward_sizes(s);
    return {f.k, f.n, f.m};
}

void forward(Queue& q, const float* x, const float* w, const float* bias, float* y,
             const ConvShape& s) {
    if (too_large(q, s)) return;
    const auto [m, n, k] = forward_sizes(s);
    const Matrix<false> weights = {w, unsigned(s.cout), unsigned(n)};
    multiply(q, Patches{input_of(x, s)}, weights, PlainRows{unsigned(s.cout)}, bias, false, y, m, n,
             k, s.groups);
}

void backward_weight(Queue& q, const float* x, const float* dy, float* dw, const ConvShape& s) {
    if (too_large(q, s)) return;
    const auto [m, n, k] = weight_sizes(s);
    const Matrix<false> gradients = {dy, unsigned(s.cout), unsigned(n)};
    multiply(q, PatchesTransposed{input_of(x, s)}, gradients, PlainRows{unsigned(s.cout)}, nullptr,
             false, dw, m, n, k, s.groups);
}

// One axis of backward_input for the pixels `residue`, residue + stride, ..: the kernel positions
// that meet them are first, first + step, ..; pixel number j meets position number a at output
// origin + j - a * reach.
struct Axis {
    size_t pixels, taps, first, step;
    long origin, reach;
};
Axis axis(size_t residue, size_t size, size_t kernel, size_t stride, size_t dilation, size_t pad) {
    Axis a = {.pixels = residue < size ? (size - residue + stride - 1) / stride : 0,
              .taps = 0,
              .first = kernel,
              .step = 1,
              .origin = 0,
              .reach = 0};
    while (a.step * dilation % stride != 0) ++a.step;
    for (size_t k = kernel; k-- > 0;)
        if ((residue + pad + k * (stride - 1) * dilation) % stride == 0) a.first = k;
    if (a.first == kernel) return a;
    a.taps = (kernel - a.first + a.step - 1) / a.step;
    a.origin = (long(residue + pad) - long(a.first * dilation)) / long(stride);
    a.reach = long(a.step * dilation / stride);
    return a;
}
Axis rows_axis(size_t residue, const ConvShape& s) {
    return axis(residue, s.h, s.kh, s.stride_h, s.dilation_h, s.pad_h);
}
Axis columns_axis(size_t residue, const ConvShape& s) {
    return axis(residue, s.w, s.kw, s.stride_w, s.dilation_w, s.pad_w);
}
Sizes input_sizes(const Axis& y, const Axis& x, const ConvShape& s) {
    return {s.n * y.pixels * x.pixels, s.cin / s.groups, y.taps * x.taps * (s.cout / s.groups)};
}

void backward_input(Queue& q, const float* dy, const float* w, float* dx, const ConvShape& s) {
    if (too_large(q, s)) return;
    const size_t outs = s.cout / s.groups;
    for (size_t ry = 0; ry < s.stride_h; ++ry)
        for (size_t rx = 0; rx < s.stride_w; ++rx) {
            const Axis y = rows_axis(ry, s), x = columns_axis(rx, s);
            const auto [m, n, k] = input_sizes(y, x, s);
            const Gather from = {.p = dy,
                                 .h = unsigned(s.out_h()),
                                 .w = unsigned(s.out_w()),
                                 .c = unsigned(s.cout),
                                 .lines = Divider(y.pixels),
                                 .columns = Divider(x.pixels),
                                 .taps_w = Divider(x.taps),
                                 .channels = Divider(outs),
                                 .start_y = int(y.origin),
                                 .start_x = int(x.origin),
                                 .stride_y = 1,
                                 .stride_x = 1,
                                 .step_y = -int(y.reach),
                                 .step_x = -int(x.reach)};
            const WeightsTransposed weights = {.p = w,
                                               .ins = unsigned(n),
                                               .cout = unsigned(s.cout),
                                               .kw = unsigned(s.kw),
                                               .taps_w = Divider(x.taps),
                                               .outs = Divider(outs),
                                               .first_y = unsigned(y.first),
                                               .first_x = unsigned(x.first),
                                               .step_y = unsigned(y.step),
                                               .step_x = unsigned(x.step)};
            const PixelRows pixels = {.h = unsigned(s.h),
                                      .w = unsigned(s.w),
                                      .c = unsigned(s.cin),
                                      .lines = Divider(y.pixels),
                                      .columns = Divider(x.pixels),
                                      .start_y = unsigned(ry),
                                      .start_x = unsigned(rx),
                                      .stride_y = unsigned(s.stride_h),
                                      .stride_x = unsigned(s.stride_w)};
            multiply(q, Patches{from}, weights, pixels, nullptr, false, dx, m, n, k, s.groups);
        }
}

size_t forward_scratch(const ConvShape& s, int) {
    const auto [m, n, k] = forward_sizes(s);
    return product_scratch(m, n, k, s.groups);
}
size_t backward_weight_scratch(const ConvShape& s, int) {
    const auto [m, n, k] = weight_sizes(s);
    return product_scratch(m, n, k, s.groups);
}
size_t backward_input_scratch(const ConvShape& s, int) {
    size_t most = 0;
    for (size_t ry = 0; ry < s.stride_h; ++ry)
        for (size_t rx = 0; rx < s.stride_w; ++rx) {
            const auto [m, n, k] = input_sizes(rows_axis(ry, s), columns_axis(rx, s), s);
            const size_t bytes = product_scratch(m, n, k, s.groups);
            if (bytes > most) most = bytes;
        }
    return most;
}

}  // namespace

Conv<float> conv() {
    return {.forward = forward,
            .backward_input = backward_input,
            .backward_weight = backward_weight,
            .forward_scratch = forward_scratch,
            .backward_input_scratch = backward_input_scratch,
            .backward_weight_scratch = backward_weight_scratch};
}

}  // namespace nc::kernels::NC_CUDA
