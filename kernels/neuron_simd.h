// What the neuron family's vector files share: parameters repeated along the elements, and sums
// over the elements that share one. Everything is static, once per instruction set.
#pragma once

#include "kernels/isa.h"
#include "kernels/neuron_math.h"
#include "kernels/parallel.h"

namespace nc::kernels::NC_ISA {

using Rule = NeuronRule<float>;
using kernels::select;

template <class V>
static constexpr size_t width = sizeof(V) / sizeof(float);

template <class V>
static inline V get(const float* p) {
    if constexpr (width<V> == 1)
        return *p;
    else
        return load(p);
}
static inline void store(float* p, float v) {
    *p = v;
}
static inline uint32_t mask_bits(bool m) {
    return m;
}
static inline float floor_of(float x) {
    return floorf(x);
}
static inline Vec floor_of(Vec x) {
    return xsimd::floor(x);
}

// A table of parameters of which element i uses i % params. Short ones are repeated in a buffer so
// that 64 elements from any of them on can be loaded; long ones wrap by single loads.
class Cyclic {
 public:
    static constexpr size_t short_params = 1024;

    Cyclic(const float* p, size_t params) : p_(p), params_(params), end_(params) {
        if (params == 0 || params > short_params || p == nullptr) return;
        for (size_t i = 0; i < params + 64; ++i) buffer_[i] = p[i % params];
        p_ = buffer_;
        end_ = params + 64;
    }
    template <class V>
    V at(size_t i) const {  // i < params + 64
        if (i + width<V> <= end_) return get<V>(p_ + i);
        alignas(64) float wrapped[width<V>];
        for (size_t k = 0; k < width<V>; ++k) wrapped[k] = p_[(i + k) % params_];
        return get<V>(wrapped);
    }

 private:
    const float* p_;
    size_t params_, end_;
    float buffer_[short_params + 64];
};

// ----------------------------------------------------------------------------------------------
// sums over the elements that share a parameter
//
// A kernel leaves each element's part in blocks of a constant size. Few parameters: every block
// has a row of sums, [blocks, params + 64], the last 64 columns being those that ran over. Many:
// the parts themselves are the rows, [size / params, params]. Rows are then added in order.
static constexpr size_t block = 1024;
static constexpr size_t few_params = 256;

static inline size_t block_count(size_t size) {
    return (size + block - 1) / block;
}
static inline size_t parts_size(size_t size, size_t params) {
    return params <= few_params ? block_count(size) * (params + 64) : size;
}

static inline void sum_parts(const Queue& queue, float* parts, float* out, size_t size,
                             size_t params) {
    const bool few = params <= few_params;
    const size_t rows = few ? block_count(size) : (size + params - 1) / params;
    const size_t stride = few ? params + 64 : params;
    const size_t end = few ? rows * stride : size;
    parallel_for(queue.threads, few ? rows : 0, 64, [&](size_t first, size_t last) {
        for (size_t r = first; r < last; ++r)
            for (size_t c = params; c < stride; ++c)
                parts[r * stride + c % params] += parts[r * stride + c];
    });
    parallel_for(queue.threads, params, 64, [&](size_t first, size_t last) {
        for (size_t c = first; c < last; c += 64) {
            double sums[64] = {};
            const size_t n = last - c < 64 ? last - c : 64;
            for (size_t at = c; at < end; at += stride)
                for (size_t k = 0; k < n && at + k < end; ++k) sums[k] += double(parts[at + k]);
            for (size_t k = 0; k < n; ++k) out[c + k] = float(sums[k]);
        }
    });
}

// Calls body(part, begin, end) once for each thread's share of the blocks.
template <class Body>
static inline void parallel_blocks(int threads, size_t size, Body body) {
    const size_t parts = threads > 1 ? size_t(threads) : 1, blocks = block_count(size);
    parallel_for(threads, parts, 1, [&](size_t first, size_t last) {
        for (size_t part = first; part < last; ++part)
            body(part, blocks * part / parts, blocks * (part + 1) / parts);
    });
}

// neuron_backward_simd.cpp
decltype(Neuron<float>::backward) neuron_backward();
decltype(Neuron<float>::backward_scratch) neuron_backward_scratch();

}  // namespace nc::kernels::NC_ISA
