// The image family of one instruction set: each row of the crop is gathered as bytes, flipped if
// need be, then converted by vectors with scale and shift repeated along it.
#include "kernels/families.h"
#include "kernels/loops_simd.h"

namespace nc::kernels::NC_ISA {

// lanes bytes as floats.
static inline Vec load_bytes(const uint8_t* p) {
#if defined(__AVX512F__)
    return Vec(_mm512_cvtepi32_ps(
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
#elif defined(__AVX2__)
    return Vec(_mm256_cvtepi32_ps(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))));
#else
    int32_t four;
    memcpy(&four, p, sizeof(four));
    const __m128i zero = _mm_setzero_si128();
    const __m128i bytes = _mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero);
    return Vec(_mm_cvtepi32_ps(_mm_unpacklo_epi16(bytes, zero)));
#endif
}

// Values converted at a time: as many whole pixels as fit.
constexpr static size_t run = 256;

struct Factors {
    float scale[run], shift[run];
};

// out = bytes * scale + shift for one run; bytes has room for a vector more.
static inline void convert(const uint8_t* bytes, const Factors& f, float* out, size_t count) {
    vector_loop(0, count, [&](auto io, size_t i) {
        io.store(out + i, load_bytes(bytes + i) * load(f.scale + i) + load(f.shift + i));
    });
}

// Output pixels [from, from + count) of row y of a sample's crop, as bytes.
static inline void gather(const uint8_t* image, const Augment& a, int64_t y, int64_t from,
                          int64_t count, int64_t h, int64_t w, size_t c, uint8_t* out) {
    if (y < 0 || y >= h) {
        memset(out, 0, size_t(count) * c);
        return;
    }
    const uint8_t* row = image + size_t(y * w) * c;
    if (a.flip == 0) {
        const int64_t x = a.x + from;
        const int64_t first = x < 0 ? (-x < count ? -x : count) : 0;
        const int64_t room = w - x < count ? w - x : count;
        const int64_t last = room > first ? room : first;
        memset(out, 0, size_t(first) * c);
        if (last > first)
            memcpy(out + size_t(first) * c, row + size_t(x + first) * c, size_t(last - first) * c);
        memset(out + size_t(last) * c, 0, size_t(count - last) * c);
        return;
    }
    for (int64_t i = 0; i < count; ++i, out += c) {
        const int64_t x = a.x + w - 1 - (from + i);
        if (x < 0 || x >= w)
            memset(out, 0, c);
        else
            for (size_t k = 0; k < c; ++k) out[k] = row[size_t(x) * c + k];
    }
}

static inline void augment_sample(const uint8_t* images, const Augment& a, const Factors& f,
                                  float* out, int64_t h, int64_t w, size_t c) {
    const uint8_t* image = images + size_t(a.source) * size_t(h * w) * c;
    uint8_t bytes[run + lanes] = {};
    const int64_t pixels = int64_t(run / c);
    for (int64_t oy = 0; oy < h; ++oy) {
        float* row = out + size_t(oy * w) * c;
        for (int64_t ox = 0; ox < w; ox += pixels) {
            const int64_t count = w - ox < pixels ? w - ox : pixels;
            gather(image, a, a.y + oy, ox, count, h, w, c, bytes);
            convert(bytes, f, row + size_t(ox) * c, size_t(count) * c);
        }
        if (oy < a.cut_y0 || oy >= a.cut_y1) continue;
        const int64_t x0 = a.cut_x0 > 0 ? a.cut_x0 : 0, x1 = a.cut_x1 < w ? a.cut_x1 : w;
        if (x0 < x1) memset(row + size_t(x0) * c, 0, size_t(x1 - x0) * c * sizeof(float));
    }
}

static void augment(Queue& q, const uint8_t* images, const Augment* samples, const float* scale,
                    const float* shift, float* out, size_t n, size_t h, size_t w, size_t c) {
    if (c == 0 || h == 0 || w == 0) return;
    if (c > run) {  // no picture has that many channels
        reference_image<float>().augment(q, images, samples, scale, shift, out, n, h, w, c);
        return;
    }
    Factors f;
    for (size_t i = 0; i < run; ++i) {
        f.scale[i] = scale[i % c];
        f.shift[i] = shift[i % c];
    }
    const size_t size = h * w * c;
    parallel_for(q.threads, n, 16384 / size + 1, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i)
            augment_sample(images, samples[i], f, out + i * size, int64_t(h), int64_t(w), c);
    });
}

Image<float> image() {
    return {.augment = augment};
}

}  // namespace nc::kernels::NC_ISA
