// One instruction set's vectors: compiled once per set with NC_ISA naming the namespace (sse2,
// avx2, avx512). Wraps what xsimd 8.1 lacks or gets wrong; everything is static, so no copy
// compiled for one set can be linked into another's.
#pragma once

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <xsimd/xsimd.hpp>

namespace nc::kernels::NC_ISA {

#if defined(__AVX512F__)
using Arch = xsimd::avx512bw;
#elif defined(__AVX2__)
using Arch = xsimd::fma3<xsimd::avx2>;
#else
using Arch = xsimd::sse2;
#endif

using Vec = xsimd::batch<float, Arch>;
using Mask = xsimd::batch_bool<float, Arch>;
static constexpr size_t lanes = Vec::size;  // 4, 8 or 16

// Whether fma() is one instruction; without it, fma() is never called where it would change bits.
#if defined(__FMA__)
static constexpr bool has_fma = true;
#else
static constexpr bool has_fma = false;
#endif

static inline Vec load(const float* p) {
    return Vec::load_unaligned(p);
}
static inline void store(float* p, Vec v) {
    v.store_unaligned(p);
}
static inline Vec broadcast(float x) {
    return Vec(x);
}
static inline Vec select(Mask m, Vec a, Vec b) {
    return xsimd::select(m, a, b);
}

// The first n lanes of p, the others 0; and the store of the first n lanes. n < lanes.
#if defined(__AVX512F__)
static inline Vec load_partial(const float* p, size_t n) {
    return Vec(_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1u), p));
}
static inline void store_partial(float* p, Vec v, size_t n) {
    _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1u), v);
}
#elif defined(__AVX2__)
static inline __m256i first_lanes(size_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline Vec load_partial(const float* p, size_t n) {
    return Vec(_mm256_maskload_ps(p, first_lanes(n)));
}
static inline void store_partial(float* p, Vec v, size_t n) {
    _mm256_maskstore_ps(p, first_lanes(n), v);
}
#else
static inline Vec load_partial(const float* p, size_t n) {
    alignas(64) float tmp[lanes] = {};
    for (size_t i = 0; i < n; ++i) tmp[i] = p[i];
    return Vec::load_aligned(tmp);
}
static inline void store_partial(float* p, Vec v, size_t n) {
    alignas(64) float tmp[lanes];
    v.store_aligned(tmp);
    for (size_t i = 0; i < n; ++i) p[i] = tmp[i];
}
#endif

// By ==: the != of this xsimd is false for NaN on AVX.
static inline Mask is_nan(Vec v) {
    return ~(v == v);
}

// a * b + c: fused where the set has it, else rounded twice.
static inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
    return Vec(_mm512_fmadd_ps(a, b, c));
#elif defined(__FMA__)
    return Vec(_mm256_fmadd_ps(a, b, c));
#else
    return a * b + c;
#endif
}

// Sum of the lanes in a fixed order: halves, quarters, ...
static inline float reduce_add(Vec v) {
    alignas(64) float tmp[lanes];
    v.store_aligned(tmp);
    for (size_t half = lanes / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; ++i) tmp[i] += tmp[i + half];
    return tmp[0];
}

// Bit i is lane i of the mask; and back.
static inline uint32_t mask_bits(Mask m) {
#if defined(__AVX512F__)
    return uint32_t(__mmask16(m));
#elif defined(__AVX2__)
    return uint32_t(_mm256_movemask_ps(m));
#else
    return uint32_t(_mm_movemask_ps(m));
#endif
}
static inline Mask mask_from_bits(uint32_t bits) {
#if defined(__AVX512F__)
    return Mask(__mmask16(bits));
#elif defined(__AVX2__)
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i hit = _mm256_and_si256(_mm256_set1_epi32(int(bits)), lane);
    return Mask(_mm256_castsi256_ps(_mm256_cmpeq_epi32(hit, lane)));
#else
    const __m128i lane = _mm_setr_epi32(1, 2, 4, 8);
    const __m128i hit = _mm_and_si128(_mm_set1_epi32(int(bits)), lane);
    return Mask(_mm_castsi128_ps(_mm_cmpeq_epi32(hit, lane)));
#endif
}

// body(0) .. body(n - 1) as straight code, so that arrays indexed by it become registers; g++ 12
// leaves them in memory when it unrolls a loop itself.
template <int n, class Body>
__attribute__((always_inline)) static inline void unrolled(Body body) {
    if constexpr (n > 1) unrolled<n - 1>(body);
    body(n - 1);
}

}  // namespace nc::kernels::NC_ISA
