// The definition of the integer family: one element and one step at a time, products in 64 bits.
#include "kernels/families.h"

namespace nc::kernels {
namespace {

constexpr int64_t register_limit = int64_t(1) << 23;

int64_t decayed(int64_t x, int64_t d) {
    const int64_t magnitude = ((x < 0 ? -x : x) * (4096 - d)) >> 12;
    return x < 0 ? -magnitude : magnitude;
}

void scan(Queue&, const IntegerRule& rule, const int32_t* threshold, const int32_t* bias,
          const int32_t* a, int32_t* u, int32_t* v, uint64_t* bits, int32_t* u_trace,
          int32_t* v_trace, uint64_t* events, const ScanShape& s) {
    const size_t words = (s.size + 63) / 64;
    if (bits != nullptr)
        for (size_t i = 0; i < s.steps * words; ++i) bits[i] = 0;
    for (size_t i = 0; i < s.size; ++i) {
        const size_t p = i % s.params;
        int64_t current = u[i], voltage = v[i];
        for (size_t t = 0; t < s.steps; ++t) {
            const int64_t sum = a[(s.constant_input ? 0 : t * s.size) + i];
            current = decayed(current, rule.du + 1) + sum * 64;
            if (current > register_limit || current <= -register_limit) {
                current += current > 0 ? -2 * register_limit : 2 * register_limit;
                if (events != nullptr) ++events[0];
            }
            voltage = decayed(voltage, rule.dv) + current + bias[p];
            if (voltage >= register_limit || voltage <= -register_limit) {
                voltage = voltage > 0 ? register_limit - 1 : 1 - register_limit;
                if (events != nullptr) ++events[1];
            }
            const bool spike =
                rule.compare == Compare::greater ? voltage > threshold[p] : voltage >= threshold[p];
            if (spike) voltage = rule.reset_to_zero ? 0 : voltage - threshold[p];
            if (spike && bits != nullptr) bits[t * words + i / 64] |= uint64_t(1) << i % 64;
            if (u_trace != nullptr) u_trace[t * s.size + i] = int32_t(current);
            if (v_trace != nullptr) v_trace[t * s.size + i] = int32_t(voltage);
        }
        u[i] = int32_t(current);
        v[i] = int32_t(voltage);
    }
}

// y [rows, out] = sums over inputs: value(row, input) times its weight.
template <class Value>
void linear(const int8_t* w, int32_t* y, size_t rows, size_t in, size_t out, Value value) {
    for (size_t r = 0; r < rows; ++r)
        for (size_t o = 0; o < out; ++o) {
            int32_t sum = 0;
            for (size_t i = 0; i < in; ++i) sum += int32_t(value(r, i)) * w[i * out + o];
            y[r * out + o] = sum;
        }
}

void linear_event(Queue&, const uint64_t* bits, const int8_t* w, int32_t* y, size_t rows,
                  size_t groups, size_t channels, size_t out) {
    const size_t words = (channels + 63) / 64;
    linear(w, y, rows, groups * channels, out, [&](size_t r, size_t i) {
        const size_t g = i / channels, c = i % channels;
        return bits[(r * groups + g) * words + c / 64] >> c % 64 & 1;
    });
}

void linear_graded(Queue&, const int16_t* x, const int8_t* w, int32_t* y, size_t rows, size_t in,
                   size_t out) {
    linear(w, y, rows, in, out, [&](size_t r, size_t i) { return x[r * in + i]; });
}

template <class Value>
void conv(const int8_t* w, int32_t* y, const ConvShape& s, Value value) {
    if (s.n == 0 || s.cout == 0) return;
    const size_t cin = s.cin / s.groups, per_group = s.cout / s.groups;
    for (size_t n = 0; n < s.n; ++n)
        for (size_t oy = 0; oy < s.out_h(); ++oy)
            for (size_t ox = 0; ox < s.out_w(); ++ox)
                for (size_t o = 0; o < s.cout; ++o) {
                    int32_t sum = 0;
                    for (size_t ky = 0; ky < s.kh; ++ky)
                        for (size_t kx = 0; kx < s.kw; ++kx) {
                            const size_t iy = oy * s.stride_h + ky * s.dilation_h;
                            const size_t ix = ox * s.stride_w + kx * s.dilation_w;
                            if (iy < s.pad_h || iy - s.pad_h >= s.h) continue;
                            if (ix < s.pad_w || ix - s.pad_w >= s.w) continue;
                            const size_t pixel = (n * s.h + iy - s.pad_h) * s.w + ix - s.pad_w;
                            for (size_t c = 0; c < cin; ++c)
                                sum += int32_t(value(pixel, o / per_group * cin + c)) *
                                       w[((ky * s.kw + kx) * cin + c) * s.cout + o];
                        }
                    y[((n * s.out_h() + oy) * s.out_w() + ox) * s.cout + o] = sum;
                }
}

void conv_event(Queue&, const uint64_t* bits, const int8_t* w, int32_t* y, const ConvShape& s) {
    const size_t words = (s.cin + 63) / 64;
    conv(w, y, s,
         [&](size_t pixel, size_t c) { return bits[pixel * words + c / 64] >> c % 64 & 1; });
}

void conv_graded(Queue&, const int16_t* x, const int8_t* w, int32_t* y, const ConvShape& s) {
    conv(w, y, s, [&](size_t pixel, size_t c) { return x[pixel * s.cin + c]; });
}

}  // namespace

Integer reference_integer() {
    return {.scan = scan,
            .linear_event = linear_event,
            .conv_event = conv_event,
            .linear_graded = linear_graded,
            .conv_graded = conv_graded};
}

}  // namespace nc::kernels
