// The integer family for one instruction set: loops that the compiler makes vectors of, and no
// vector code by hand, for integers leave it no choice of order to preserve.
#include "kernels/families.h"
#include "kernels/isa.h"
#include "kernels/parallel.h"

namespace nc::kernels::NC_ISA {

static constexpr int32_t register_limit = 1 << 23;
static constexpr size_t block =
    512;  // elements whose state stays in the first cache; 8 words of spikes

// sign(x) * ((|x| * k) >> 12) for 0 <= k <= 4097 in 32 bits: |x| = high * 4096 + low, and high * k
// is whole.
static inline int32_t scaled(int32_t x, int32_t k) {
    const uint32_t magnitude = uint32_t(x < 0 ? -x : x);
    const uint32_t low = magnitude & 4095u, high = magnitude >> 12;
    const int32_t y = int32_t(high * uint32_t(k) + (low * uint32_t(k) >> 12));
    return x < 0 ? -y : y;
}

struct Block {
    int32_t u[block], v[block], threshold[block], bias[block];
    uint8_t spike[block];
};

// One step of n elements; returns the wraps and clips in the low and high half.
template <bool plain, bool strict, bool zero>
static uint64_t step(Block& b, const int32_t* a, size_t n, int32_t ku, int32_t kv) {
    uint32_t wraps = 0, clips = 0;
    for (size_t i = 0; i < n; ++i) {
        // plain: u forgets at once and v keeps all of itself, as IF does.
        int32_t u = plain ? a[i] * 64 : scaled(b.u[i], ku) + a[i] * 64;
        const bool over = u > register_limit, under = u <= -register_limit;
        wraps += uint32_t(over) + uint32_t(under);
        u += over ? -2 * register_limit : under ? 2 * register_limit : 0;
        int32_t v = (plain ? b.v[i] : scaled(b.v[i], kv)) + u + b.bias[i];
        const bool above = v >= register_limit, below = v <= -register_limit;
        clips += uint32_t(above) + uint32_t(below);
        v = above ? register_limit - 1 : below ? 1 - register_limit : v;
        const bool spike = strict ? v > b.threshold[i] : v >= b.threshold[i];
        b.u[i] = u;
        b.v[i] = !spike ? v : zero ? 0 : v - b.threshold[i];
        b.spike[i] = spike;
    }
    return wraps | uint64_t(clips) << 32;
}

using Step = uint64_t (*)(Block&, const int32_t*, size_t, int32_t, int32_t);
template <bool plain>
static Step step_for(const IntegerRule& rule) {
    const bool strict = rule.compare == Compare::greater, zero = rule.reset_to_zero;
    return strict ? (zero ? step<plain, true, true> : step<plain, true, false>)
                  : (zero ? step<plain, false, true> : step<plain, false, false>);
}

// 64 bytes of 0 or 1 to 64 bits.
static inline uint64_t packed(const uint8_t* spike, size_t n) {
    uint64_t word = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t eight;
        memcpy(&eight, spike + i, 8);
        word |= (eight * 0x0102040810204080u >> 56) << i;
    }
    for (; i < n; ++i) word |= uint64_t(spike[i]) << i;
    return word;
}

static void scan(Queue& queue, const IntegerRule& rule, const int32_t* threshold,
                 const int32_t* bias, const int32_t* a, int32_t* u, int32_t* v, uint64_t* bits,
                 int32_t* u_trace, int32_t* v_trace, uint64_t* events, const ScanShape& s) {
    const size_t words = (s.size + 63) / 64;
    const bool plain = rule.du == 4095 && rule.dv == 0;
    const Step one_step = plain ? step_for<true>(rule) : step_for<false>(rule);
    parallel_for(queue.threads, s.size, block, [&](size_t begin, size_t end) {
        Block b;
        uint64_t wraps = 0, clips = 0;
        for (size_t first = begin; first < end; first += block) {
            const size_t n = end - first < block ? end - first : block;
            memcpy(b.u, u + first, n * sizeof(int32_t));
            memcpy(b.v, v + first, n * sizeof(int32_t));
            for (size_t i = 0, p = first % s.params; i < n;
                 ++i, p = p + 1 == s.params ? 0 : p + 1) {
                b.threshold[i] = threshold[p];
                b.bias[i] = bias[p];
            }
            for (size_t t = 0; t < s.steps; ++t) {
                const size_t at = t * s.size + first;
                const uint64_t found = one_step(b, a + (s.constant_input ? first : at), n,
                                                4096 - (rule.du + 1), 4096 - rule.dv);
                wraps += found & 0xffffffffu;
                clips += found >> 32;
                if (bits != nullptr)
                    for (size_t i = 0; i < n; i += 64)
                        bits[t * words + (first + i) / 64] =
                            packed(b.spike + i, n - i < 64 ? n - i : 64);
                if (u_trace != nullptr) memcpy(u_trace + at, b.u, n * sizeof(int32_t));
                if (v_trace != nullptr) memcpy(v_trace + at, b.v, n * sizeof(int32_t));
            }
            memcpy(u + first, b.u, n * sizeof(int32_t));
            memcpy(v + first, b.v, n * sizeof(int32_t));
        }
        if (events != nullptr && wraps + clips > 0) {
#pragma omp atomic
            events[0] += wraps;
#pragma omp atomic
            events[1] += clips;
        }
    });
}

// ----------------------------------------------------------------------------------------------
// sums: an output pixel's block of sums stays in registers or the first cache while inputs pass
static constexpr size_t columns = 64;

struct Sums {
    int32_t v[columns];
};

static inline void add_row(Sums& sums, const int8_t* w, size_t n) {
    if (n == columns) {  // a count the compiler knows
        for (size_t o = 0; o < columns; ++o) sums.v[o] += w[o];
    } else {
        for (size_t o = 0; o < n; ++o) sums.v[o] += w[o];
    }
}
static inline void add_row(Sums& sums, const int8_t* w, size_t n, int32_t x) {
    if (n == columns) {
        for (size_t o = 0; o < columns; ++o) sums.v[o] += x * w[o];
    } else {
        for (size_t o = 0; o < n; ++o) sums.v[o] += x * w[o];
    }
}

// An input pixel's contribution to outputs [first, first + n): w is the pixel's first weight row.
struct Events {
    const uint64_t* bits;
    size_t channels;
    void add(Sums& sums, size_t pixel, size_t, size_t, const int8_t* w, size_t stride,
             size_t n) const {
        const size_t words = (channels + 63) / 64;
        for (size_t k = 0; k < words; ++k)
            for (uint64_t word = bits[pixel * words + k]; word != 0; word &= word - 1)
                add_row(sums, w + (k * 64 + size_t(__builtin_ctzll(word))) * stride, n);
    }
};
struct Graded {
    const int16_t* x;
    size_t channels;
    void add(Sums& sums, size_t pixel, size_t begin, size_t count, const int8_t* w, size_t stride,
             size_t n) const {
        for (size_t c = 0; c < count; ++c) {
            const int32_t value = x[pixel * channels + begin + c];
            if (value != 0) add_row(sums, w + c * stride, n, value);
        }
    }
};

template <class Source>
static void linear(int threads, const Source& source, const int8_t* w, int32_t* y, size_t rows,
                   size_t groups, size_t channels, size_t out) {
    const size_t blocks = (out + columns - 1) / columns;
    parallel_for(threads, rows * blocks, 1, [&](size_t begin, size_t end) {
        for (size_t item = begin; item < end; ++item) {
            const size_t r = item / blocks, first = item % blocks * columns;
            const size_t n = out - first < columns ? out - first : columns;
            Sums sums = {};
            for (size_t g = 0; g < groups; ++g)
                source.add(sums, r * groups + g, 0, channels, w + g * channels * out + first, out,
                           n);
            memcpy(y + r * out + first, sums.v, n * sizeof(int32_t));
        }
    });
}

static void linear_event(Queue& queue, const uint64_t* bits, const int8_t* w, int32_t* y,
                         size_t rows, size_t groups, size_t channels, size_t out) {
    linear(queue.threads, Events{bits, channels}, w, y, rows, groups, channels, out);
}

static void linear_graded(Queue& queue, const int16_t* x, const int8_t* w, int32_t* y, size_t rows,
                          size_t in, size_t out) {
    linear(queue.threads, Graded{x, in}, w, y, rows, 1, in, out);
}

template <class Source>
static void conv(int threads, const Source& source, const int8_t* w, int32_t* y,
                 const ConvShape& s) {
    if (s.n == 0 || s.cout == 0) return;
    const size_t cin = s.cin / s.groups, per_group = s.cout / s.groups;
    const size_t out_h = s.out_h(), out_w = s.out_w();
    parallel_for(threads, s.n * out_h, 1, [&](size_t begin, size_t end) {
        for (size_t row = begin; row < end; ++row)
            for (size_t ox = 0; ox < out_w; ++ox)
                for (size_t first = 0; first < s.cout;) {
                    // Up to 64 outputs of one group.
                    const size_t group = first / per_group, left = (group + 1) * per_group - first;
                    const size_t n = left < columns ? left : columns;
                    Sums sums = {};
                    for (size_t ky = 0; ky < s.kh; ++ky) {
                        const size_t iy = row % out_h * s.stride_h + ky * s.dilation_h - s.pad_h;
                        if (iy >= s.h) continue;  // padding above wraps to beyond the image
                        for (size_t kx = 0; kx < s.kw; ++kx) {
                            const size_t ix = ox * s.stride_w + kx * s.dilation_w - s.pad_w;
                            if (ix >= s.w) continue;
                            source.add(sums, (row / out_h * s.h + iy) * s.w + ix, group * cin, cin,
                                       w + (ky * s.kw + kx) * cin * s.cout + first, s.cout, n);
                        }
                    }
                    memcpy(y + (row * out_w + ox) * s.cout + first, sums.v, n * sizeof(int32_t));
                    first += n;
                }
    });
}

static void conv_event(Queue& queue, const uint64_t* bits, const int8_t* w, int32_t* y,
                       const ConvShape& s) {
    conv(queue.threads, Events{bits, s.cin}, w, y, s);
}

static void conv_graded(Queue& queue, const int16_t* x, const int8_t* w, int32_t* y,
                        const ConvShape& s) {
    conv(queue.threads, Graded{x, s.cin}, w, y, s);
}

Integer integer() {
    return {.scan = scan,
            .linear_event = linear_event,
            .conv_event = conv_event,
            .linear_graded = linear_graded,
            .conv_graded = conv_graded};
}

}  // namespace nc::kernels::NC_ISA
