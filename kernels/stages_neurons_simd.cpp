// Neurons over time for one instruction set, in floats and in integers: membranes stay in registers
// while time passes.
#include "kernels/families.h"
#include "kernels/neuron_math.h"
#include "kernels/stages_simd.h"

namespace nc::kernels::NC_ISA {

// Integers beside the floats of isa.h: as many lanes, the same names.
using IVec = xsimd::batch<int32_t, Arch>;
using IMask = xsimd::batch_bool<int32_t, Arch>;
static_assert(IVec::size == lanes);

static inline IVec load(const int32_t* p) {
    return IVec::load_unaligned(p);
}
static inline void store(int32_t* p, IVec v) {
    v.store_unaligned(p);
}
static inline IVec select(IMask m, IVec a, IVec b) {
    return xsimd::select(m, a, b);
}
static inline uint32_t mask_bits(IMask m) {
#if defined(__AVX512F__)
    return uint32_t(__mmask16(m));
#elif defined(__AVX2__)
    return uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(m)));
#else
    return uint32_t(_mm_movemask_ps(_mm_castsi128_ps(m)));
#endif
}
static inline void mask_from_bits(uint32_t bits, Mask* out) {
    *out = mask_from_bits(bits);
}
static inline void mask_from_bits(uint32_t bits, IMask* out) {
#if defined(__AVX512F__)
    *out = IMask(__mmask16(bits));
#elif defined(__AVX2__)
    *out = IMask(_mm256_castps_si256(mask_from_bits(bits)));
#else
    *out = IMask(_mm_castps_si128(mask_from_bits(bits)));
#endif
}

// What neurons of either kind hold and do: V their vector, M its comparisons'.
struct FloatNeurons {
    using Value = float;
    using Firing = kernels::Firing;
    using V = Vec;
    using M = Mask;
    Vec beta, reset_value;
    explicit FloatNeurons(const NeuronRule<float>& rule)
        : beta(rule.beta), reset_value(rule.reset_value) {}
    template <bool leaky>
    Vec step(Vec v, Vec x) const {
        return update<leaky>(v, x, beta);
    }
};
struct IntegerNeurons {
    using Value = int32_t;
    using Firing = IntegerFiring;
    using V = IVec;
    using M = IMask;
    IVec reset_value = IVec(0);
    template <bool leaky>
    static IVec step(IVec v, IVec x) {
        static_assert(!leaky);
        return v + x;
    }
};

// `count` vectors of neurons from channel c on, of `group` pixels side by side, so that one's
// additions fill the time another's take; returns how many spikes there were.
template <bool leaky, Compare compare, Reset reset, int group, int count, class N>
static size_t fire_tile(const N& rule, const typename N::Firing& f, size_t pixel, size_t c) {
    using Value = typename N::Value;
    using V = typename N::V;
    Value* const membrane = f.v + pixel * f.v_pixel + c;
    const Value* const thetas = f.theta + pixel * f.theta_pixel + c;
    const bool gated = f.gate != nullptr;
    V v[group * count], theta[group * count], gate_scale[count];
    unrolled<count>([&](int k) __attribute__((always_inline)) {
        gate_scale[k] = gated ? load(f.gate_scale + c + k * lanes) : V(Value(0));
        unrolled<group>([&](int g) __attribute__((always_inline)) {
            v[g * count + k] = load(membrane + size_t(g) * f.v_pixel + k * lanes);
            theta[g * count + k] = load(thetas + size_t(g) * f.theta_pixel + k * lanes);
        });
    });
    const V zero(Value(0));
    const size_t channels = f.channels - c, shift = c % 64;
    const uint64_t valid = channels < count * lanes ? (uint64_t(1) << channels) - 1 : ~uint64_t(0);
    const Value* x = f.x + pixel * f.x_pixel + c;
    const Value* term = f.term != nullptr ? f.term + pixel * f.term_pixel + c : nullptr;
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
                V in = load(x + size_t(g) * x_pixel + k * lanes);
                if (term != nullptr) in = in + load(term + size_t(g) * term_pixel + k * lanes);
                if (gated) {
                    typename N::M set;
                    mask_from_bits(uint32_t(open >> k * lanes), &set);
                    in = in + select(set, gate_scale[k], zero * gate_scale[k]);
                }
                V& membrane_of = v[g * count + k];
                const V a = rule.template step<leaky>(membrane_of, in);
                const V limit = theta[g * count + k];
                const auto spike = threshold<compare>(a, limit);
                fired |= uint64_t(mask_bits(spike)) << k * lanes;
                membrane_of = after_reset<reset>(a, spike, limit, rule.reset_value);
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
template <bool leaky, Compare compare, Reset reset, int group, class N>
static size_t fire_group(const N& rule, const typename N::Firing& f, size_t pixel) {
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

template <bool leaky, Compare compare, Reset reset, class N>
static size_t fire_pixels(const N& rule, const typename N::Firing& f) {
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

template <bool leaky, class N>
static size_t fire_as(const N& rule, Compare compare, Reset reset, const typename N::Firing& f) {
    constexpr Compare at = Compare::greater_equal, above = Compare::greater;
    constexpr Reset subtract = Reset::subtract, to_value = Reset::to_value;
    if (compare == at)
        return reset == subtract ? fire_pixels<leaky, at, subtract>(rule, f)
                                 : fire_pixels<leaky, at, to_value>(rule, f);
    return reset == subtract ? fire_pixels<leaky, above, subtract>(rule, f)
                             : fire_pixels<leaky, above, to_value>(rule, f);
}

static size_t fire(const NeuronRule<float>& rule, const Firing& f) {
    const FloatNeurons neurons(rule);
    return rule.beta == 1 ? fire_as<false>(neurons, rule.compare, rule.reset, f)
                          : fire_as<true>(neurons, rule.compare, rule.reset, f);
}

// sign(v) * ((|v| * keep) >> 12) in 32 bits: |v| = high * 4096 + low, and high * keep is whole.
static inline int32_t decayed(int32_t v, uint32_t keep) {
    const uint32_t magnitude = v < 0 ? 0u - uint32_t(v) : uint32_t(v);
    const uint32_t low = magnitude & 4095u, high = magnitude >> 12;
    const auto left = int32_t(high * keep + (low * keep >> 12));
    return v < 0 ? -left : left;
}

// LIF in integers: loops that the compiler makes vectors of, 64 channels at a time.
static size_t fire_leaky(const IntegerRule& rule, const IntegerFiring& f) {
    const uint32_t keep = uint32_t(4096 - rule.dv);
    const bool strict = rule.compare == Compare::greater, zero = rule.reset_to_zero;
    size_t spikes = 0;
    for (size_t p = 0; p < f.pixels; ++p)
        for (size_t c = 0; c < f.channels; c += 64) {
            const size_t n = f.channels - c < 64 ? f.channels - c : 64;
            int32_t* const v = f.v + p * f.v_pixel + c;
            const int32_t* const theta = f.theta + p * f.theta_pixel + c;
            for (size_t t = 0; t < f.steps; ++t) {
                const size_t word = p * f.bits_pixel + t * f.bits_step + c / 64;
                const int32_t* const x = f.x + p * f.x_pixel + t * f.x_step + c;
                int32_t in[64];
                memcpy(in, x, n * sizeof(int32_t));
                if (f.term != nullptr) {
                    const int32_t* const term = f.term + p * f.term_pixel + t * f.term_step + c;
                    for (size_t i = 0; i < n; ++i) in[i] += term[i];
                }
                if (f.gate != nullptr)
                    for (size_t i = 0; i < n; ++i)
                        in[i] += (f.gate[word] >> i & 1) != 0 ? f.gate_scale[c + i] : 0;
                uint64_t fired = 0;
                for (size_t i = 0; i < n; ++i) {
                    const int32_t a = decayed(v[i], keep) + in[i] * 64;
                    const bool spike = strict ? a > theta[i] : a >= theta[i];
                    v[i] = !spike ? a : zero ? 0 : a - theta[i];
                    fired |= uint64_t(spike) << i;
                }
                f.bits[word] = fired;
                spikes += size_t(__builtin_popcountll(fired));
            }
        }
    return spikes;
}

static size_t integer_fire(const IntegerRule& rule, const IntegerFiring& f) {
    if (rule.dv != 0) return fire_leaky(rule, f);
    const Reset reset = rule.reset_to_zero ? Reset::to_value : Reset::subtract;
    return fire_as<false>(IntegerNeurons(), rule.compare, reset, f);
}

decltype(Stages::fire) stages_fire() {
    return fire;
}
decltype(IntegerStages::fire) integer_stages_fire() {
    return integer_fire;
}

}  // namespace nc::kernels::NC_ISA
