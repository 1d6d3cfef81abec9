// Sums over events and neurons over time for one instruction set: the accumulators of a panel of
// outputs stay in registers while events are walked, membranes while time passes.
#include "kernels/families.h"
#include "kernels/neuron_math.h"
#include "kernels/spike_simd.h"

namespace nc::kernels::NC_ISA {

// ----------------------------------------------------------------------------------------------
// sums
static constexpr int most_vectors = 8;  // accumulators
static constexpr size_t panel = lanes == 16 ? 128 : 64;

// The kernel rows and columns of an output pixel that lie inside the image.
struct Window {
    size_t y, x;         // of the kernel's corner in the image; wrapped where it lies outside
    size_t left, right;  // columns of the image under the kernel (no dilation)
    size_t first_input;  // of column `left` in a kernel row
    Window(const ConvShape& s, size_t pixel) {
        y = pixel / s.out_w() * s.stride_h - s.pad_h;
        const size_t corner = pixel % s.out_w() * s.stride_w;  // in the padded image
        x = corner - s.pad_w;
        const size_t skipped = corner < s.pad_w ? s.pad_w - corner : 0;
        left = corner + skipped - s.pad_w;
        right = corner + s.kw < s.pad_w ? 0 : corner + s.kw - s.pad_w;
        if (right > s.w) right = s.w;
        if (left > right) left = right;
        first_input = skipped * s.cin;
    }
};

// The sums of `vectors` vectors of outputs from w and y on: what Stages::sums says, of one pixel.
template <int vectors, bool graded>
static void walk(const EventRows& in, const float* w, const float* bias, size_t width, float* y,
                 size_t y_step, const ConvShape& s, const Window& at, size_t from, size_t to) {
    for (size_t t = 0; t < in.steps; ++t, y += y_step) {
        Vec sum[vectors];
        const float* const begin = from > 0 ? y : bias;
        unrolled<vectors>([&](int k)
                              __attribute__((always_inline)) { sum[k] = load(begin + k * lanes); });
        // Adds the events of columns [left, right) of an image row; input: the first one's.
        const auto add = [&](size_t row, size_t left, size_t right, size_t input)
            __attribute__((always_inline)) {
            const uint32_t* const start = in.start + row * (s.w + 1);
            const float* const rows =
                w + (ptrdiff_t(input) - ptrdiff_t(left * s.cin)) * ptrdiff_t(width);
            const size_t last = start[right];
            for (size_t e = start[left]; e < last; ++e) {
                const float* const weights = rows + in.index[e] * width;
                if constexpr (graded) {
                    const Vec value = broadcast(in.value[e]);
                    unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                        sum[k] = sum[k] + value * load(weights + k * lanes);
                    });
                } else {
                    unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                        sum[k] = sum[k] + load(weights + k * lanes);
                    });
                }
            }
        };
        for (size_t ky = from; ky < to; ++ky) {
            const size_t iy = at.y + ky * s.dilation_h;
            if (iy >= s.h) continue;
            const size_t row = t * s.h + iy, input = ky * s.kw * s.cin;
            if (s.dilation_w == 1) {
                add(row, at.left, at.right, input + at.first_input);
                continue;
            }
            for (size_t kx = 0; kx < s.kw; ++kx) {
                const size_t ix = at.x + kx * s.dilation_w;
                if (ix < s.w) add(row, ix, ix + 1, input + kx * s.cin);
            }
        }
        unrolled<vectors>([&](int k)
                              __attribute__((always_inline)) { store(y + k * lanes, sum[k]); });
    }
}

using Walk = void (*)(const EventRows&, const float*, const float*, size_t, float*, size_t,
                      const ConvShape&, const Window&, size_t, size_t);

// The walk over a number of vectors known as it runs.
template <bool graded, int vectors = most_vectors>
static Walk pick_walk(size_t wanted) {
    if constexpr (vectors > 1)
        if (wanted < size_t(vectors)) return pick_walk<graded, vectors - 1>(wanted);
    return walk<vectors, graded>;
}

// ----------------------------------------------------------------------------------------------
// The other way round: each event is added to the outputs it reaches, in memory. An output still
// meets its inputs in order, for events are in order. Neither where a pixel's events end nor the
// time an addition takes matters then, which is most of a walk over few events or few outputs.

// Pixels [x, x + n) of an output row, their sums from y on.
struct RowPart {
    size_t oy, x, n;
    float* y;
    size_t y_step;
};

static constexpr size_t abreast = 4;

template <int vectors, bool graded>
static void scatter(const EventRows& in, const float* w, size_t width, const ConvShape& s,
                    const RowPart& part, size_t from, size_t to) {
    const size_t tap_stride = s.cin * width;
    const uint64_t inverse = (uint64_t(1) << 32) / s.cin + 1;  // index / cin by multiplying
    // Columns of the image under the part's kernels, from the padded image's to its own.
    const size_t first = part.x < s.pad_w ? 0 : part.x - s.pad_w;
    size_t last = part.x + part.n - 1 + s.kw;
    last = last < s.pad_w ? 0 : last - s.pad_w < s.w ? last - s.pad_w : s.w;
    if (first >= last) return;
    for (size_t ky = from; ky < to; ++ky) {
        const size_t iy = part.oy * s.stride_h + ky * s.dilation_h - s.pad_h;
        if (iy >= s.h) continue;
        const float* const taps = w + ky * s.kw * tap_stride;
        const auto add = [&](size_t e, float* sums) __attribute__((always_inline)) {
            const size_t x = size_t(in.index[e] * inverse >> 32);
            const float* const weights = taps + (in.index[e] - x * s.cin) * width;
            const Vec value = graded ? broadcast(in.value[e]) : Vec(1.f);
            const size_t o = x + s.pad_w - part.x;  // of tap 0; wraps left of the part
            float* const sum = sums + o * width;
            const auto tap = [&](size_t kx) __attribute__((always_inline)) {
                unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                    const Vec weight = load(weights + kx * tap_stride + k * lanes);
                    float* const to = sum - kx * width + k * lanes;
                    store(to, load(to) + (graded ? value * weight : weight));
                });
            };
            if (s.kw == 3 && o >= 2 && o < part.n) {
                tap(0);
                tap(1);
                tap(2);
                return;
            }
            for (size_t kx = 0; kx < s.kw; ++kx)
                if (o - kx < part.n) tap(kx);
        };
        // A few steps side by side: events of one pixel wait for each other's sums.
        for (size_t t = 0; t < in.steps; t += abreast) {
            const size_t steps = in.steps - t < abreast ? in.steps - t : abreast;
            size_t at[abreast] = {}, end[abreast] = {}, shared = SIZE_MAX;
            for (size_t g = 0; g < steps; ++g) {
                const uint32_t* const start = in.start + ((t + g) * s.h + iy) * (s.w + 1);
                at[g] = start[first];
                end[g] = start[last];
                if (end[g] - at[g] < shared) shared = end[g] - at[g];
            }
            float* const sums = part.y + t * part.y_step;
            if (steps == abreast)
                for (size_t i = 0; i < shared; ++i)
                    unrolled<int(abreast)>([&](int g) __attribute__((always_inline)) {
                        add(at[g]++, sums + size_t(g) * part.y_step);
                    });
            for (size_t g = 0; g < steps; ++g)
                for (; at[g] < end[g]; ++at[g]) add(at[g], sums + g * part.y_step);
        }
    }
}

using Scatter = void (*)(const EventRows&, const float*, size_t, const ConvShape&, const RowPart&,
                         size_t, size_t);

template <bool graded, int vectors = most_vectors>
static Scatter pick_scatter(size_t wanted) {
    if constexpr (vectors > 1)
        if (wanted < size_t(vectors)) return pick_scatter<graded, vectors - 1>(wanted);
    return scatter<vectors, graded>;
}

// Whether scattering is faster: cycles an output pixel and step, as measured with AVX2 and AVX-512.
static bool prefer_scatter(const EventRows& in, const ConvShape& s, size_t begin, size_t end,
                           size_t from, size_t to, size_t vectors) {
    if (s.stride_w != 1 || s.dilation_w != 1 || s.kw > 8 || end - begin < 4) return false;
    if (uint64_t(s.w * s.cin) * s.cin >= uint64_t(1) << 32) return false;
    size_t events = 0, rows = 0;
    for (size_t oy = begin / s.out_w(); oy <= (end - 1) / s.out_w(); ++oy, ++rows)
        for (size_t ky = from; ky < to; ++ky) {
            const size_t iy = oy * s.stride_h + ky * s.dilation_h - s.pad_h;
            if (iy >= s.h) continue;
            for (size_t t = 0; t < in.steps; ++t) {
                const uint32_t* const start = in.start + (t * s.h + iy) * (s.w + 1);
                events += start[s.w] - start[0];
            }
        }
    const double each = double(events * s.kw) / double(rows * s.w * in.steps);
    const double v = double(vectors), walked = 60 + (v > 8 ? v / 2 : 4) * each;
    return v + (1.3 * v + 2) * each < walked;
}

static void sums(const EventRows& in, const float* w, const float* bias, size_t width, float* y,
                 const ConvShape& s, size_t begin, size_t end, size_t from, size_t to) {
    if (begin == end) return;
    alignas(64) float start[2 * panel];  // adding 0 turns a bias of -0 into +0
    for (size_t o = 0; o < width; ++o) start[o] = bias[o] + 0.0f;
    const size_t y_step = (end - begin) * width;
    const bool graded = in.value != nullptr;
    const bool scattered = prefer_scatter(in, s, begin, end, from, to, width / lanes);
    for (size_t o = 0; o < width; o += most_vectors * lanes) {
        const size_t left = (width - o) / lanes;
        const size_t vectors = left < most_vectors ? left : most_vectors;
        if (!scattered) {
            const Walk add = graded ? pick_walk<true>(vectors) : pick_walk<false>(vectors);
            for (size_t p = begin; p < end; ++p)
                add(in, w + o, start + o, width, y + (p - begin) * width + o, y_step, s,
                    Window(s, p), from, to);
            continue;
        }
        if (from == 0)
            for (size_t row = 0; row < (end - begin) * in.steps; ++row)
                for (size_t k = 0; k < vectors * lanes; k += lanes)
                    store(y + row * width + o + k, load(start + o + k));
        const Scatter add = graded ? pick_scatter<true>(vectors) : pick_scatter<false>(vectors);
        for (size_t p = begin; p < end;) {
            const size_t x = p % s.out_w(), n = end - p < s.out_w() - x ? end - p : s.out_w() - x;
            add(in, w + o, width, s, {p / s.out_w(), x, n, y + (p - begin) * width + o, y_step},
                from, to);
            p += n;
        }
    }
}

// ----------------------------------------------------------------------------------------------
// neurons
//
// `count` vectors of neurons from channel c on, of `group` pixels side by side, so that one's
// additions fill the time another's take; returns how many spikes there were.
template <bool leaky, Compare compare, Reset reset, int group, int count>
static size_t fire_tile(const NeuronRule<float>& rule, const Firing& f, size_t pixel, size_t c) {
    float* const membrane = f.v + pixel * f.v_pixel + c;
    const float* const thetas = f.theta + pixel * f.theta_pixel + c;
    const bool gated = f.gate != nullptr;
    Vec v[group * count], theta[group * count], gate_scale[count];
    unrolled<count>([&](int k) __attribute__((always_inline)) {
        if (gated) gate_scale[k] = load(f.gate_scale + c + k * lanes);
        unrolled<group>([&](int g) __attribute__((always_inline)) {
            v[g * count + k] = load(membrane + size_t(g) * f.v_pixel + k * lanes);
            theta[g * count + k] = load(thetas + size_t(g) * f.theta_pixel + k * lanes);
        });
    });
    const Vec beta(rule.beta), value(rule.reset_value), zero(0.f);
    const size_t channels = f.channels - c, shift = c % 64;
    const uint64_t valid = channels < count * lanes ? (uint64_t(1) << channels) - 1 : ~uint64_t(0);
    const float* x = f.x + pixel * f.x_pixel + c;
    const float* term = f.term != nullptr ? f.term + pixel * f.term_pixel + c : nullptr;
    // Copies, for all the compiler knows a spike may be stored over f.
    const size_t steps = f.steps, x_pixel = f.x_pixel, x_step = f.x_step, bits_pixel = f.bits_pixel,
                 bits_step = f.bits_step, term_pixel = f.term_pixel, term_step = f.term_step;
    uint64_t* bits = f.bits + pixel * bits_pixel + c / 64;
    const uint64_t* gate = gated ? f.gate + pixel * bits_pixel + c / 64 : nullptr;
    size_t spikes = 0;
    for (size_t t = 0; t < steps; ++t) {
        unrolled<group>([&](int g) __attribute__((always_inline)) {
            const uint64_t open = gated ? gate[size_t(g) * bits_pixel] >> shift : 0;
            uint64_t fired = 0;
            unrolled<count>([&](int k) __attribute__((always_inline)) {
                Vec in = load(x + size_t(g) * x_pixel + k * lanes);
                if (term != nullptr) in = in + load(term + size_t(g) * term_pixel + k * lanes);
                if (gated)
                    in = in + select(mask_from_bits(uint32_t(open >> k * lanes)), gate_scale[k],
                                     zero * gate_scale[k]);
                Vec& membrane_of = v[g * count + k];
                const Vec a = update<leaky>(membrane_of, in, beta), limit = theta[g * count + k];
                const Mask spike = threshold<compare>(a, limit);
                fired |= uint64_t(mask_bits(spike)) << k * lanes;
                membrane_of = after_reset<reset>(a, spike, limit, value);
            });
            fired &= valid;
            spikes += size_t(__builtin_popcountll(fired));
            uint64_t* const to = bits + size_t(g) * bits_pixel;
            *to = shift == 0 ? fired : *to | fired << shift;
        });
        x += x_step;
        bits += bits_step;
        if (gated) gate += bits_step;
        if (term != nullptr) term += term_step;
    }
    unrolled<group * count>([&](int k) __attribute__((always_inline)) {
        store(membrane + size_t(k / count) * f.v_pixel + k % count * lanes, v[k]);
    });
    return spikes;
}

// All channels of `group` pixels, four vectors at a time and then what is left.
template <bool leaky, Compare compare, Reset reset, int group>
static size_t fire_group(const NeuronRule<float>& rule, const Firing& f, size_t pixel) {
    constexpr int most = 4 / group;
    size_t spikes = 0;
    for (size_t c = 0; c < f.channels;) {
        const size_t left = (f.channels - c + 15) / 16 * 16 / lanes;
        if (left >= size_t(most)) {
            spikes += fire_tile<leaky, compare, reset, group, most>(rule, f, pixel, c);
            c += size_t(most) * lanes;
        } else if (most > 2 && left >= 2) {
            spikes += fire_tile<leaky, compare, reset, group, 2>(rule, f, pixel, c);
            c += 2 * lanes;
        } else {
            spikes += fire_tile<leaky, compare, reset, group, 1>(rule, f, pixel, c);
            c += lanes;
        }
    }
    return spikes;
}

template <bool leaky, Compare compare, Reset reset>
static size_t fire_pixels(const NeuronRule<float>& rule, const Firing& f) {
    const size_t vectors = (f.channels + 15) / 16 * 16 / lanes;
    size_t spikes = 0, p = 0;
    if (vectors == 1)
        for (; p + 4 <= f.pixels; p += 4)
            spikes += fire_group<leaky, compare, reset, 4>(rule, f, p);
    if (vectors <= 2)
        for (; p + 2 <= f.pixels; p += 2)
            spikes += fire_group<leaky, compare, reset, 2>(rule, f, p);
    for (; p < f.pixels; ++p) spikes += fire_group<leaky, compare, reset, 1>(rule, f, p);
    return spikes;
}

template <bool leaky, Compare compare>
static size_t fire_reset(const NeuronRule<float>& rule, const Firing& f) {
    return rule.reset == Reset::subtract ? fire_pixels<leaky, compare, Reset::subtract>(rule, f)
                                         : fire_pixels<leaky, compare, Reset::to_value>(rule, f);
}

template <bool leaky>
static size_t fire_compare(const NeuronRule<float>& rule, const Firing& f) {
    return rule.compare == Compare::greater_equal
               ? fire_reset<leaky, Compare::greater_equal>(rule, f)
               : fire_reset<leaky, Compare::greater>(rule, f);
}

static size_t fire(const NeuronRule<float>& rule, const Firing& f) {
    return rule.beta == 1 ? fire_compare<false>(rule, f) : fire_compare<true>(rule, f);
}

Stages stages() {
    Stages s = {.panel = panel,
                .events = nullptr,
                .pooled = nullptr,
                .graded = nullptr,
                .expand = nullptr,
                .sums = sums,
                .dense = stages_dense(),
                .fire = fire};
    stages_events(s);
    return s;
}

}  // namespace nc::kernels::NC_ISA
