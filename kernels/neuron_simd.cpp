// The forward scans and QCFS of one instruction set: a scan keeps a tile's membranes in registers
// over all steps and packs its spikes.
#include "kernels/neuron_simd.h"
#include "kernels/families.h"

namespace nc::kernels::NC_ISA {

static constexpr int unroll = 4;                // vectors in a tile
static constexpr size_t tile = unroll * lanes;  // divides 64, the elements of a word

// ----------------------------------------------------------------------------------------------
// forward
struct Scan {
    const Rule& rule;
    const Cyclic& theta;
    const Cyclic& v0;
    const Cyclic& amplitude;
    const float* x;
    float* v;
    float* y;
    uint64_t* bits;
    size_t steps, size, words, x_stride;
};

// `count` vectors of elements from i on, whose parameters start at p.
template <bool leaky, Compare compare, Reset reset, class V, int count>
static inline void scan_tile(const Scan& s, size_t i, size_t p) {
    V v[count], theta[count], amplitude[count];
    unrolled<count>([&](int k) __attribute__((always_inline)) {
        theta[k] = s.theta.at<V>(p + k * width<V>);
        amplitude[k] = s.amplitude.at<V>(p + k * width<V>);
        v[k] = s.v != nullptr ? get<V>(s.v + i + k * width<V>) : s.v0.at<V>(p + k * width<V>);
    });
    const V beta(s.rule.beta), value(s.rule.reset_value), zero(0.f);
    for (size_t t = 0; t < s.steps; ++t) {
        const float* x = s.x + t * s.x_stride + i;
        uint64_t spikes = 0;
        unrolled<count>([&](int k) __attribute__((always_inline)) {
            const V a = update<leaky>(v[k], get<V>(x + k * width<V>), beta);
            const auto spike = threshold<compare>(a, theta[k]);
            spikes |= uint64_t(mask_bits(spike)) << k * width<V>;
            v[k] = after_reset<reset>(a, spike, theta[k], value);
            if (s.y != nullptr)
                store(s.y + t * s.size + i + k * width<V>, select(spike, amplitude[k], zero));
        });
        if (s.bits == nullptr) continue;
        uint64_t* word = s.bits + t * s.words + i / 64;
        if constexpr (count * width<V> == tile)
            memcpy(reinterpret_cast<char*>(word) + i % 64 / 8, &spikes, tile / 8);
        else
            *word |= spikes << i % 64;
    }
    if (s.v != nullptr)
        unrolled<count>([&](int k) __attribute__((always_inline)) {
            store(s.v + i + k * width<V>, v[k]);
        });
}

// The elements of words [begin, end).
template <bool leaky, Compare compare, Reset reset>
static void scan_words(const Scan& s, size_t params, size_t begin, size_t end) {
    size_t p = begin * 64 % params;
    const size_t p_step = 64 % params;
    for (size_t word = begin; word < end; ++word) {
        size_t i = word * 64;
        const size_t stop = s.size - i < 64 ? s.size : i + 64;
        if (stop - i == 64) {
            for (size_t k = 0; k < 64; k += tile)
                scan_tile<leaky, compare, reset, Vec, unroll>(s, i + k, p + k);
        } else {
            if (s.bits != nullptr)
                for (size_t t = 0; t < s.steps; ++t) s.bits[t * s.words + word] = 0;
            size_t q = p;
            for (; i + lanes <= stop; i += lanes, q += lanes)
                scan_tile<leaky, compare, reset, Vec, 1>(s, i, q);
            for (; i < stop; ++i, ++q) scan_tile<leaky, compare, reset, float, 1>(s, i, q);
        }
        p += p_step;
        if (p >= params) p -= params;
    }
}

template <bool leaky, Compare compare>
static void scan_reset(const Scan& s, size_t params, size_t begin, size_t end) {
    if (s.rule.reset == Reset::subtract)
        scan_words<leaky, compare, Reset::subtract>(s, params, begin, end);
    else
        scan_words<leaky, compare, Reset::to_value>(s, params, begin, end);
}

template <bool leaky>
static void scan_compare(const Scan& s, size_t params, size_t begin, size_t end) {
    if (s.rule.compare == Compare::greater_equal)
        scan_reset<leaky, Compare::greater_equal>(s, params, begin, end);
    else
        scan_reset<leaky, Compare::greater>(s, params, begin, end);
}

// The neuron that also sends negative spikes, and the two-phase one: oracles, so their rule is
// looked up as they run.
template <class V>
static void signed_tile(const Scan& s, size_t i, size_t p) {
    const V theta = s.theta.at<V>(p), amplitude = s.amplitude.at<V>(p);
    const V beta(s.rule.beta), value(s.rule.reset_value), zero(0.f), one(1.f);
    V v = s.v != nullptr ? get<V>(s.v + i) : s.v0.at<V>(p);
    V sent = zero;  // positive minus negative spikes
    for (size_t t = 0; t < s.steps; ++t) {
        const V a = update<true>(v, get<V>(s.x + t * s.x_stride + i), beta);
        const auto up = s.rule.compare == Compare::greater
                            ? threshold<Compare::greater>(a, theta)
                            : threshold<Compare::greater_equal>(a, theta);
        const auto down = (a < zero) & (sent > zero) & !up;
        const V fallen = s.rule.reset == Reset::subtract ? a - theta : value;
        v = select(up, fallen, select(down, a + theta, a));
        sent = sent + select(up, one, select(down, zero - one, zero));
        if (s.y != nullptr)
            store(s.y + t * s.size + i, select(up, amplitude, select(down, -amplitude, zero)));
    }
    if (s.v != nullptr) store(s.v + i, v);
}

template <class V>
static void exact_tile(const Scan& s, size_t i, size_t p) {
    const V theta = s.theta.at<V>(p), amplitude = s.amplitude.at<V>(p), zero(0.f);
    V sum = zero;
    for (size_t t = 0; t < s.steps; ++t) sum = sum + get<V>(s.x + t * s.x_stride + i);
    const V wanted = floor_of(sum / theta + V(0.5f));
    for (size_t t = 0; t < s.steps && s.y != nullptr; ++t)
        store(s.y + t * s.size + i, select(V(float(t)) < wanted, amplitude, zero));
}

static void forward(Queue& queue, const Rule& rule, const float* theta, const float* v0,
                    const float* amplitude, const float* x, float* v, float* y, uint64_t* bits,
                    const ScanShape& shape) {
    if (shape.size == 0) return;
    const Cyclic theta_table(theta, shape.params), v0_table(v0, shape.params),
        amplitude_table(amplitude, shape.params);
    const size_t words = (shape.size + 63) / 64;
    const Scan s = {rule,        theta_table, v0_table, amplitude_table,
                    x,           v,           y,        bits,
                    shape.steps, shape.size,  words,    shape.constant_input ? 0 : shape.size};
    if (rule.spiking != Spiking::plain) {
        const bool exact = rule.spiking == Spiking::exact;
        parallel_for(queue.threads, shape.size, 1024, [&](size_t begin, size_t end) {
            size_t i = begin;
            for (; i + lanes <= end; i += lanes)
                (exact ? exact_tile<Vec> : signed_tile<Vec>)(s, i, i % shape.params);
            for (; i < end; ++i)
                (exact ? exact_tile<float> : signed_tile<float>)(s, i, i % shape.params);
        });
        return;
    }
    parallel_for(queue.threads, words, 8, [&](size_t begin, size_t end) {
        (rule.beta == 1 ? scan_compare<false> : scan_compare<true>)(s, shape.params, begin, end);
    });
}

// ----------------------------------------------------------------------------------------------
// QCFS
template <class V>
static inline V level(V ratio, V lambda, V levels) {
    const V zero(0.f), one(1.f);
    const V clipped = select(ratio < zero, zero, select(ratio > one, one, ratio));
    return lambda * floor_of(levels * clipped + V(0.5f)) / levels;
}

template <class V>
static inline void qcfs_at(const float* x, const Cyclic& lambda, float levels, float* y, size_t i,
                           size_t p) {
    const V l = lambda.at<V>(p);
    store(y + i, level(get<V>(x + i) / l, l, V(levels)));
}

static void qcfs(Queue& queue, const float* x, const float* lambda, int levels, float* y,
                 size_t size, size_t params) {
    const Cyclic table(lambda, params);
    parallel_for(queue.threads, size, 1024, [&](size_t begin, size_t end) {
        size_t i = begin, p = begin % params;
        const size_t step = lanes % params;
        for (; i + lanes <= end; i += lanes) {
            qcfs_at<Vec>(x, table, float(levels), y, i, p);
            p += step;
            if (p >= params) p -= params;
        }
        for (; i < end; ++i, ++p) qcfs_at<float>(x, table, float(levels), y, i, p);
    });
}

static size_t qcfs_backward_scratch(size_t size, size_t params) {
    return parts_size(size, params) * sizeof(float);
}

// dx, and into part this element's share of dlambda.
template <class V>
static inline void qcfs_slope(const float* x, const float* dy, const Cyclic& lambda, float levels,
                              float* dx, size_t i, size_t p, V* part) {
    const V zero(0.f), one(1.f), l = lambda.at<V>(p), g = get<V>(dy + i);
    const V ratio = get<V>(x + i) / l;
    const auto inside = (ratio >= zero) & (ratio <= one);
    store(dx + i, select(inside, g, zero));
    *part = g * (level(ratio, l, V(levels)) / l - select(inside, ratio, zero));
}

static void qcfs_backward(Queue& queue, const float* x, const float* lambda, int levels,
                          const float* dy, float* dx, float* dlambda, size_t size, size_t params) {
    const Cyclic table(lambda, params);
    const bool learn = dlambda != nullptr, few = params <= few_params;
    float* const parts = reinterpret_cast<float*>(queue.scratch);
    parallel_blocks(queue.threads, size, [&](size_t, size_t begin, size_t end) {
        for (size_t b = begin; b < end; ++b) {
            float* const sums = learn && few ? parts + b * (params + 64) : nullptr;
            if (learn && few) memset(sums, 0, (params + 64) * sizeof(float));
            const size_t stop = size - b * block < block ? size : (b + 1) * block;
            size_t i = b * block, p = i % params;
            const size_t step = lanes % params;
            for (; i + lanes <= stop; i += lanes) {
                Vec part;
                qcfs_slope<Vec>(x, dy, table, float(levels), dx, i, p, &part);
                if (learn && few) store(sums + p, load(sums + p) + part);
                if (learn && !few) store(parts + i, part);
                p += step;
                if (p >= params) p -= params;
            }
            for (; i < stop; ++i, ++p) {
                float part;
                qcfs_slope<float>(x, dy, table, float(levels), dx, i, p, &part);
                if (learn && few) sums[p] += part;
                if (learn && !few) parts[i] = part;
            }
        }
    });
    if (learn) sum_parts(queue, parts, dlambda, size, params);
}

Neuron<float> neuron() {
    return {.forward = forward,
            .backward = neuron_backward(),
            .backward_scratch = neuron_backward_scratch(),
            .qcfs = qcfs,
            .qcfs_backward = qcfs_backward,
            .qcfs_backward_scratch = qcfs_backward_scratch};
}

}  // namespace nc::kernels::NC_ISA
