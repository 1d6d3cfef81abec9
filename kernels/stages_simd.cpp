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
                 const ConvShape& s, const Window& at, size_t from, size_t to) {
    for (size_t t = 0; t < in.steps; ++t, y += width) {
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

using Walk = void (*)(const EventRows&, const float*, const float*, size_t, float*,
                      const ConvShape&, const Window&, size_t, size_t);

// The walk over a number of vectors known as it runs.
template <bool graded, int vectors = most_vectors>
static Walk pick_walk(size_t wanted) {
    if constexpr (vectors > 1)
        if (wanted < size_t(vectors)) return pick_walk<graded, vectors - 1>(wanted);
    return walk<vectors, graded>;
}

static void sums(const EventRows& in, const float* w, const float* bias, size_t width, float* y,
                 const ConvShape& s, size_t begin, size_t end, size_t from, size_t to) {
    alignas(64) float start[2 * panel];  // adding 0 turns a bias of -0 into +0
    for (size_t o = 0; o < width; ++o) start[o] = bias[o] + 0.0f;
    for (size_t o = 0; o < width; o += most_vectors * lanes) {
        const size_t left = (width - o) / lanes;
        const size_t vectors = left < most_vectors ? left : most_vectors;
        const Walk add = in.value != nullptr ? pick_walk<true>(vectors) : pick_walk<false>(vectors);
        for (size_t p = begin; p < end; ++p)
            add(in, w + o, start + o, width, y + (p - begin) * in.steps * width + o, s,
                Window(s, p), from, to);
    }
}

// ----------------------------------------------------------------------------------------------
// neurons
//
// `count` vectors of neurons of one pixel from channel c on; returns how many spikes there were.
template <bool leaky, Compare compare, Reset reset, int count>
static size_t fire_tile(const NeuronRule<float>& rule, const Firing& f, size_t pixel, size_t c) {
    float* const membrane = f.v + pixel * f.v_pixel + c;
    const float* const thetas = f.theta + pixel * f.theta_pixel + c;
    Vec v[count], theta[count], gate_scale[count];
    unrolled<count>([&](int k) __attribute__((always_inline)) {
        v[k] = load(membrane + k * lanes);
        theta[k] = load(thetas + k * lanes);
        if (f.gate != nullptr) gate_scale[k] = load(f.gate_scale + c + k * lanes);
    });
    const Vec beta(rule.beta), value(rule.reset_value), zero(0.f);
    const size_t channels = f.channels - c;
    const uint64_t valid = channels < count * lanes ? (uint64_t(1) << channels) - 1 : ~uint64_t(0);
    const float* x = f.x + pixel * f.x_pixel + c;
    const float* term = f.term != nullptr ? f.term + pixel * f.term_pixel + c : nullptr;
    size_t word = pixel * f.bits_pixel + c / 64, spikes = 0;
    for (size_t t = 0; t < f.steps; ++t, word += f.bits_step, x += f.x_step) {
        const uint64_t gate = f.gate != nullptr ? f.gate[word] >> c % 64 : 0;
        uint64_t fired = 0;
        unrolled<count>([&](int k) __attribute__((always_inline)) {
            Vec in = load(x + k * lanes);
            if (term != nullptr) in = in + load(term + t * f.term_step + k * lanes);
            if (f.gate != nullptr)
                in = in + select(mask_from_bits(uint32_t(gate >> k * lanes)), gate_scale[k],
                                 zero * gate_scale[k]);
            const Vec a = update<leaky>(v[k], in, beta);
            const Mask spike = threshold<compare>(a, theta[k]);
            fired |= uint64_t(mask_bits(spike)) << k * lanes;
            v[k] = after_reset<reset>(a, spike, theta[k], value);
        });
        fired &= valid;
        spikes += size_t(__builtin_popcountll(fired));
        uint64_t* const to = f.bits + word;
        *to = c % 64 == 0 ? fired : *to | fired << c % 64;
    }
    unrolled<count>([&](int k)
                        __attribute__((always_inline)) { store(membrane + k * lanes, v[k]); });
    return spikes;
}

template <bool leaky, Compare compare, Reset reset>
static size_t fire_pixels(const NeuronRule<float>& rule, const Firing& f) {
    size_t spikes = 0;
    for (size_t p = 0; p < f.pixels; ++p)
        for (size_t c = 0; c < f.channels;) {
            const size_t left = (f.channels - c + 15) / 16 * 16 / lanes;
            if (left >= 4) {
                spikes += fire_tile<leaky, compare, reset, 4>(rule, f, p, c);
                c += 4 * lanes;
            } else if (left >= 2) {
                spikes += fire_tile<leaky, compare, reset, 2>(rule, f, p, c);
                c += 2 * lanes;
            } else {
                spikes += fire_tile<leaky, compare, reset, 1>(rule, f, p, c);
                c += lanes;
            }
        }
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
