// Back-propagation through time for one instruction set: a tile's membranes are recomputed into a
// buffer that stays in the near caches, then their gradient runs back over it in registers.
#include "kernels/neuron_simd.h"

namespace nc::kernels::NC_ISA {

// A tile is a word of spikes, whole cache lines of every row: where rows lie a power of two apart,
// lines that wait for a second visit push each other out. Its vectors are kept in registers if they
// fit.
static constexpr size_t bptt_tile = 64;
static constexpr size_t vectors = bptt_tile / lanes;

// body(k) for every vector of a tile, as straight code where all fit, else two at a time.
template <class Body>
__attribute__((always_inline)) static inline void each_vector(Body body) {
    if constexpr (vectors <= 4) {
        unrolled<int(vectors)>([&](int k) __attribute__((always_inline)) { body(size_t(k)); });
    } else {
        for (size_t k = 0; k < vectors; k += 2) {
            body(k);
            body(k + 1);
        }
    }
}

// Elements ahead of the tile that are fetched meanwhile: a tile reads short pieces of three rows a
// step, too many for the hardware to follow.
static constexpr size_t ahead = 128;
template <bool write>
static inline void fetch(const float* p, size_t k) {
    if (k * sizeof(float) % 64 == 0) __builtin_prefetch(p + k + ahead, write);
}

struct Bptt {
    const Rule& rule;
    const Cyclic& theta;
    const Cyclic& v0;
    const Cyclic& amplitude;
    SlopeConstants<Vec> slope;
    bool amplitude_is_theta, v0_is_half_theta;
    const uint64_t* bits;
    size_t steps, words;
    bool constant_input;
};

// A tile's rows: x, dy and dx at its first element, and the distance from one step to the next.
struct Rows {
    const float* x;
    const float* dy;
    float* dx;
    size_t x_stride, stride;
};

// The slope of the usual surrogate, or of one looked up as it runs: a function for each of them
// costs more to compile than it gains.
template <bool atan>
static inline Vec slope_of(Surrogate surrogate, const SlopeConstants<Vec>& k, Vec a, Vec theta) {
    if constexpr (!atan) {
        switch (surrogate) {
            case Surrogate::triangle:
                return slope<Surrogate::triangle>(k, a, theta);
            case Surrogate::rectangle:
                return slope<Surrogate::rectangle>(k, a, theta);
            case Surrogate::sigmoid:
                return slope<Surrogate::sigmoid>(k, a, theta);
            case Surrogate::atan:
                break;
        }
    }
    return slope<Surrogate::atan>(k, a, theta);
}

// Elements [i, i + bptt_tile), whose parameters start at p. membrane [steps, bptt_tile]; dtheta
// [bptt_tile] receives each element's part, unless null.
template <bool leaky, Reset reset, bool atan>
static inline void bptt(const Bptt& s, const Rows& rows, size_t i, size_t p, float* membrane,
                        float* dtheta) {
    const Vec beta(s.rule.beta), value(s.rule.reset_value), zero(0.f), one(1.f);
    const SlopeConstants<Vec> constants = s.slope;
    const bool detach = s.rule.detach_reset, sum_dx = s.constant_input;
    const bool amplitude_is_theta = s.amplitude_is_theta, learn = dtheta != nullptr;
    const Surrogate surrogate = s.rule.surrogate;
    const size_t steps = s.steps, words = s.words;
    const size_t x_stride = rows.x_stride, stride = rows.stride;
    const float *const x_row = rows.x, *const dy = rows.dy;
    float* const dx = rows.dx;
    const uint64_t* const bits = s.bits + i / 64;
    Vec v[vectors], theta[vectors], amplitude[vectors];
    each_vector([&](size_t k) __attribute__((always_inline)) {
        theta[k] = s.theta.at<Vec>(p + k * lanes);
        amplitude[k] = s.amplitude.at<Vec>(p + k * lanes);
        v[k] = s.v0.at<Vec>(p + k * lanes);
    });
    for (size_t t = 0; t < steps; ++t) {
        const uint64_t spikes = bits[t * words];
        each_vector([&](size_t k) __attribute__((always_inline)) {
            const Vec x = load(x_row + t * x_stride + k * lanes);
            fetch<false>(x_row + t * x_stride, k * lanes);
            const Vec a = update<leaky>(v[k], x, beta);
            store(membrane + t * bptt_tile + k * lanes, a);
            v[k] = after_reset<reset>(a, mask_from_bits(uint32_t(spikes >> k * lanes)), theta[k],
                                      value);
        });
    }
    Vec dv[vectors], sum[vectors], dx_sum[vectors];
    each_vector([&](size_t k)
                    __attribute__((always_inline)) { dv[k] = sum[k] = dx_sum[k] = zero; });
    for (size_t t = steps; t-- > 0;) {
        const uint64_t spikes = bits[t * words];
        each_vector([&](size_t k) __attribute__((always_inline)) {
            const Vec a = load(membrane + t * bptt_tile + k * lanes);
            const Vec g = load(dy + t * stride + k * lanes);
            fetch<false>(dy + t * stride, k * lanes);
            fetch<true>(dx + t * stride, k * lanes);
            const Mask spike = mask_from_bits(uint32_t(spikes >> k * lanes));
            const Vec sigma = slope_of<atan>(surrogate, constants, a, theta[k]);
            // d(v_t) / d(s_t), and d(v_t) / d(a_t) but for the spike.
            const Vec jump = reset == Reset::subtract ? zero - theta[k] : value - a;
            Vec keep = reset == Reset::subtract ? one : select(spike, zero, one);
            if (!detach) keep = keep + jump * sigma;
            const Vec current = g * amplitude[k];
            const Vec da = current * sigma + dv[k] * keep;
            if (learn) {
                const Vec seen = detach ? current : current + jump * dv[k];
                sum[k] = sum[k] - sigma * seen;
                Vec direct = amplitude_is_theta ? g : zero;
                if constexpr (reset == Reset::subtract) direct = direct - dv[k];
                sum[k] = sum[k] + select(spike, direct, zero);
            }
            if (sum_dx)
                dx_sum[k] = dx_sum[k] + da;
            else
                store(dx + t * stride + k * lanes, da);
            dv[k] = leaky ? beta * da : da;
        });
    }
    each_vector([&](size_t k) __attribute__((always_inline)) {
        if (sum_dx) store(dx + k * lanes, dx_sum[k]);
        if (learn)
            store(dtheta + k * lanes, s.v0_is_half_theta ? sum[k] + dv[k] * Vec(0.5f) : sum[k]);
    });
}

using Tile = void (*)(const Bptt&, const Rows&, size_t, size_t, float*, float*);

template <bool leaky, Reset reset>
static Tile pick_surrogate(const Rule& rule) {
    return rule.surrogate == Surrogate::atan ? bptt<leaky, reset, true> : bptt<leaky, reset, false>;
}
template <bool leaky>
static Tile pick_reset(const Rule& rule) {
    return rule.reset == Reset::subtract ? pick_surrogate<leaky, Reset::subtract>(rule)
                                         : pick_surrogate<leaky, Reset::to_value>(rule);
}

// A thread's scratch: the membranes, a last tile's x, dy and dx filled up to a whole one, dtheta.
static size_t thread_scratch(size_t steps) {
    return (4 * steps + 1) * bptt_tile;
}
static size_t backward_scratch(const ScanShape& shape, bool dtheta, int threads) {
    const size_t parts = dtheta ? parts_size(shape.size, shape.params) : 0;
    return (thread_scratch(shape.steps) * size_t(threads > 1 ? threads : 1) + parts) *
           sizeof(float);
}

static void copy_rows(const float* from, size_t from_stride, float* to, size_t to_stride,
                      size_t rows, size_t n) {
    for (size_t r = 0; r < rows; ++r)
        memcpy(to + r * to_stride, from + r * from_stride, n * sizeof(float));
}

static void backward(Queue& queue, const Rule& rule, const float* theta, const float* v0,
                     const float* amplitude, bool amplitude_is_theta, bool v0_is_half_theta,
                     const float* x, const uint64_t* bits, const float* dy, float* dx,
                     float* dtheta, const ScanShape& shape) {
    const size_t size = shape.size, steps = shape.steps, params = shape.params;
    const Cyclic theta_table(theta, params), v0_table(v0, params),
        amplitude_table(amplitude, params);
    const float pi = 3.14159265358979323846f, alpha = rule.surrogate_width;
    const SlopeConstants<Vec> constants = {Vec(alpha), Vec(alpha / 2), Vec(1 / alpha),
                                           Vec(pi / 2 * alpha), rule.scale_width};
    const Bptt s = {rule,
                    theta_table,
                    v0_table,
                    amplitude_table,
                    constants,
                    amplitude_is_theta,
                    v0_is_half_theta,
                    bits,
                    steps,
                    (size + 63) / 64,
                    shape.constant_input};
    const bool learn = dtheta != nullptr, few = params <= few_params;
    const Tile run = rule.beta == 1 ? pick_reset<false>(rule) : pick_reset<true>(rule);
    const size_t x_stride = shape.constant_input ? 0 : size;
    const size_t x_rows = shape.constant_input ? 1 : steps;
    float* const scratch = reinterpret_cast<float*>(queue.scratch);
    float* const parts =
        scratch + thread_scratch(steps) * size_t(queue.threads > 1 ? queue.threads : 1);

    parallel_blocks(queue.threads, size, [&](size_t part, size_t begin, size_t end) {
        float* const membrane = scratch + part * thread_scratch(steps);
        float* const last_x = membrane + steps * bptt_tile;
        float* const last_dy = last_x + steps * bptt_tile;
        float* const last_dx = last_dy + steps * bptt_tile;
        float* const element = last_dx + steps * bptt_tile;
        for (size_t b = begin; b < end; ++b) {
            float* const sums = learn && few ? parts + b * (params + 64) : nullptr;
            if (learn && few) memset(sums, 0, (params + 64) * sizeof(float));
            const size_t stop = size - b * block < block ? size : (b + 1) * block;
            size_t p = b * block % params;
            const size_t p_step = bptt_tile % params;
            for (size_t i = b * block; i < stop; i += bptt_tile) {
                const size_t n = stop - i < bptt_tile ? stop - i : bptt_tile;
                float* const to = !learn ? nullptr : !few && n == bptt_tile ? parts + i : element;
                if (n == bptt_tile) {
                    run(s, {x + i, dy + i, dx + i, x_stride, size}, i, p, membrane, to);
                } else {
                    memset(last_x, 0, 2 * steps * bptt_tile * sizeof(float));
                    copy_rows(x + i, x_stride, last_x, bptt_tile, x_rows, n);
                    copy_rows(dy + i, size, last_dy, bptt_tile, steps, n);
                    run(s,
                        {last_x, last_dy, last_dx, shape.constant_input ? 0 : bptt_tile, bptt_tile},
                        i, p, membrane, to);
                    copy_rows(last_dx, bptt_tile, dx + i, size, x_rows, n);
                    if (learn && !few) memcpy(parts + i, element, n * sizeof(float));
                }
                if (learn && few)
                    for (size_t k = 0; k < bptt_tile; k += lanes)
                        store(sums + p + k, load(sums + p + k) + load(element + k));
                p += p_step;
                if (p >= params) p -= params;
            }
        }
    });
    if (learn) sum_parts(queue, parts, dtheta, size, params);
}

decltype(Neuron<float>::backward) neuron_backward() {
    return backward;
}
decltype(Neuron<float>::backward_scratch) neuron_backward_scratch() {
    return backward_scratch;
}

}  // namespace nc::kernels::NC_ISA
