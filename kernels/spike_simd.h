// What the spike family's vector files share: where a thread's share of a canonical sum lies.
// Everything is static, once per instruction set.
#pragma once

#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/parallel.h"

namespace nc::kernels::NC_ISA {

// As many weights as stay in a core's second cache while all outputs pass over them, in bytes.
static constexpr size_t slab_bytes = size_t(256) << 10;

// Starts the sums of outputs [first, last) of one row: adding 0 turns a bias of -0 into +0.
static inline void start_sums(const float* bias, float* y, size_t first, size_t last) {
    for (size_t o = first; o < last; ++o) y[o] = bias != nullptr ? bias[o] + 0.0f : 0.0f;
}

// An output pixel's corner in its image; padding makes it negative, which unsigned wraps to a
// position far behind the image, so that one comparison tells what is inside.
struct Pixel {
    size_t ox = 0, oy = 0, out_w = 1, out_h = 1;
    size_t image = 0;  // rows before this image
    size_t x = 0, y = 0;

    Pixel() = default;
    Pixel(const ConvShape& s, size_t p) : out_w(s.out_w()), out_h(s.out_h()) {
        ox = p % out_w;
        oy = p / out_w % out_h;
        image = p / out_w / out_h * s.h;
        x = ox * s.stride_w - s.pad_w;
        y = oy * s.stride_h - s.pad_h;
    }
    void next(const ConvShape& s) {
        x += s.stride_w;
        if (++ox < out_w) return;
        ox = 0;
        x = 0 - s.pad_w;
        y += s.stride_h;
        if (++oy < out_h) return;
        oy = 0;
        y = 0 - s.pad_h;
        image += s.h;
    }
};

// Calls body(first pixel, last pixel, first output, last output) on each thread's share: pixels, or
// outputs where there are too few pixels. A sum is never shared.
template <class Body>
static inline void parallel_sums(int threads, size_t pixels, size_t grain, size_t outputs,
                                 Body body) {
    if (pixels >= size_t(threads) * grain)
        parallel_for(threads, pixels, grain,
                     [&](size_t begin, size_t end) { body(begin, end, size_t(0), outputs); });
    else
        parallel_for(threads, outputs, 4 * lanes,
                     [&](size_t begin, size_t end) { body(size_t(0), pixels, begin, end); });
}

// Appends first + the index of every set bit to a list; returns its new length. Up to 16 more are
// written past the end.
static inline size_t append_events(uint32_t* list, size_t n, uint64_t word, uint32_t first) {
#if defined(__AVX512F__)
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (uint32_t c = 0; c < 64; c += 16) {
        const __mmask16 hit = __mmask16(word >> c);
        const __m512i index = _mm512_add_epi32(lane, _mm512_set1_epi32(int(first + c)));
        _mm512_storeu_si512(list + n, _mm512_maskz_compress_epi32(hit, index));
        n += size_t(__builtin_popcount(hit));
    }
    return n;
#elif defined(__BMI__)
    const size_t count = size_t(__builtin_popcountll(word));
    for (size_t done = 0; done < count; done += 8)
        for (size_t k = 0; k < 8; ++k) {  // past the last event: garbage, written over or ignored
            list[n + done + k] = first + uint32_t(_tzcnt_u64(word));
            word = _blsr_u64(word);
        }
    return n + count;
#else
    for (; word != 0; word &= word - 1) list[n++] = first + uint32_t(__builtin_ctzll(word));
    return n;
#endif
}

// stages_events_simd.cpp: fills in events, pooled, graded, expand.
void stages_events(Stages&);
// spike_dense_simd.cpp
decltype(Stages::dense) stages_dense();
decltype(Spike<float>::linear_dense) spike_linear_dense();
decltype(Spike<float>::conv_dense) spike_conv_dense();

}  // namespace nc::kernels::NC_ISA
