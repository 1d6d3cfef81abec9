// The definition of the stages of a network in integers: counted spikes, sums, neurons over time.
#include "kernels/stages.h"

namespace nc::kernels {
namespace {

bool bit(const uint64_t* words, size_t c) {
    return words[c / 64] >> c % 64 & 1;
}

size_t list(const uint64_t* bits, const PoolShape& s, const SpikeRows& to, size_t begin,
            size_t end) {
    const size_t words = (to.c + 63) / 64;
    size_t count = 0;
    for (size_t r = begin; r < end; ++r) {
        const size_t step = r / to.h, oy = r % to.h;
        size_t at = r * to.slots();
        for (size_t x = 0; x < to.w; ++x) {
            to.start[r * (to.w + 1) + x] = uint32_t(at);
            for (size_t k = 0; k < s.kh * s.kw; ++k) {
                const size_t iy = oy * s.stride_h + k / s.kw, ix = x * s.stride_w + k % s.kw;
                if (iy < s.pad_h || iy - s.pad_h >= s.h || ix < s.pad_w || ix - s.pad_w >= s.w)
                    continue;
                const size_t pixel = (step * s.h + iy - s.pad_h) * s.w + ix - s.pad_w;
                for (size_t c = 0; c < to.c; ++c)
                    if (bit(bits + pixel * words, c)) to.index[at++] = uint32_t(x * to.c + c);
            }
        }
        to.start[r * (to.w + 1) + to.w] = uint32_t(at);
        count += at - r * to.slots();
    }
    return count;
}

void count(const SpikeRows& from, uint8_t* x, size_t begin, size_t end) {
    const size_t c4 = (from.c + 3) / 4 * 4;
    for (size_t r = begin; r < end; ++r) {
        uint8_t* const row = x + r * from.w * c4;
        for (size_t i = 0; i < from.w * c4; ++i) row[i] = 0;
        for (size_t e = r * from.slots(); e < from.start[r * (from.w + 1) + from.w]; ++e)
            ++row[from.index[e] / from.c * c4 + from.index[e] % from.c];
    }
}

// Calls body(kernel row and column, image row and column) for the part of output pixel p's kernel
// rows [from, to) that lies inside the image.
template <class Body>
void under_kernel(const ConvShape& s, size_t p, size_t from, size_t to, Body body) {
    for (size_t ky = from; ky < to; ++ky)
        for (size_t kx = 0; kx < s.kw; ++kx) {
            const size_t iy = p / s.out_w() * s.stride_h + ky * s.dilation_h;
            const size_t ix = p % s.out_w() * s.stride_w + kx * s.dilation_w;
            if (iy < s.pad_h || iy - s.pad_h >= s.h) continue;
            if (ix < s.pad_w || ix - s.pad_w >= s.w) continue;
            body(ky, kx, iy - s.pad_h, ix - s.pad_w);
        }
}

void sums(const SpikeRows& in, const int16_t* w, const int32_t* bias, size_t width, int32_t* y,
          const ConvShape& s, size_t begin, size_t end, size_t from, size_t to) {
    for (size_t p = begin; p < end; ++p)
        for (size_t t = 0; t < in.steps; ++t)
            for (size_t o = 0; o < width; ++o) {
                int32_t& sum = y[(t * (end - begin) + p - begin) * width + o];
                if (from == 0) sum = bias[o];
                under_kernel(s, p, from, to, [&](size_t ky, size_t kx, size_t iy, size_t ix) {
                    const uint32_t* const pixel = in.start + (t * s.h + iy) * (s.w + 1) + ix;
                    for (size_t e = pixel[0]; e < pixel[1]; ++e)
                        sum += w[((ky * s.kw + kx) * s.cin + in.index[e] - ix * s.cin) * width + o];
                });
            }
}

void dense(const uint8_t* x, const int8_t* w, const int32_t* bias, size_t, int32_t* y,
           const ConvShape& s, size_t begin, size_t end, size_t first, size_t last) {
    const size_t c4 = (s.cin + 3) / 4 * 4, width = (s.cout + 15) / 16 * 16;
    const size_t image = s.out_h() * s.out_w();
    for (size_t p = begin; p < end; ++p)
        for (size_t o = first; o < last; ++o) {
            int32_t sum = bias[o];
            under_kernel(s, p % image, 0, s.kh, [&](size_t ky, size_t kx, size_t iy, size_t ix) {
                const uint8_t* const in = x + ((p / image * s.h + iy) * s.w + ix) * c4;
                for (size_t c = 0; c < c4; ++c) {
                    const size_t row = (ky * s.kw + kx) * c4 + c;
                    sum += in[c] * w[(row / 4 * width + o) * 4 + row % 4];
                }
            });
            y[p * width + o] = sum;
        }
}

// Towards zero.
int32_t decayed(int32_t v, int32_t dv) {
    const int64_t magnitude = (v < 0 ? -int64_t(v) : int64_t(v)) * (4096 - dv) >> 12;
    return int32_t(v < 0 ? -magnitude : magnitude);
}

size_t fire(const IntegerRule& rule, const IntegerFiring& f) {
    size_t count = 0;
    for (size_t p = 0; p < f.pixels; ++p)
        for (size_t t = 0; t < f.steps; ++t)
            for (size_t c = 0; c < f.channels; ++c) {
                const size_t word = p * f.bits_pixel + t * f.bits_step + c / 64;
                int32_t x = f.x[p * f.x_pixel + t * f.x_step + c];
                if (f.term != nullptr) x += f.term[p * f.term_pixel + t * f.term_step + c];
                if (f.gate != nullptr && bit(f.gate + word - c / 64, c)) x += f.gate_scale[c];
                const int32_t theta = f.theta[p * f.theta_pixel + c];
                int32_t& v = f.v[p * f.v_pixel + c];
                v = rule.dv == 0 ? v + x : decayed(v, rule.dv) + x * 64;
                const bool spike = rule.compare == Compare::greater ? v > theta : v >= theta;
                if (spike) v = rule.reset_to_zero ? 0 : v - theta;
                if (c % 64 == 0) f.bits[word] = 0;
                f.bits[word] |= uint64_t(spike) << c % 64;
                count += spike;
            }
    return count;
}

// An addition counts one.
double sums_cost(const ConvShape& s, Adding, size_t, size_t events) {
    return double(events) * double(s.cout);
}

double dense_cost(const ConvShape& s, Adding, size_t steps, size_t) {
    return double(steps * s.h * s.w * s.cin) * double(s.cout);
}

}  // namespace

IntegerStages reference_integer_stages() {
    return {.list = list, .count = count, .sums = sums, .dense = dense, .fire = fire};
}

StageCosts reference_stage_costs() {
    return {.sums = sums_cost, .dense = dense_cost};
}

}  // namespace nc::kernels
