// Sums of 8-bit weights for one instruction set: over events in 16-bit lanes, over all inputs four
// at a time, both carried over into 32 bits before they could overflow.
#include "kernels/families.h"
#include "kernels/stages_simd.h"

namespace nc::kernels::NC_ISA {

// ----------------------------------------------------------------------------------------------
// events
static size_t list(const uint64_t* bits, const PoolShape& s, const SpikeRows& to, size_t begin,
                   size_t end) {
    const size_t words = (to.c + 63) / 64;
    size_t count = 0;
    for (size_t r = begin; r < end; ++r) {
        uint32_t* const start = to.start + r * (to.w + 1);
        const size_t first = r * to.slots(), step = r / to.h, oy = r % to.h;
        size_t at = first;
        for (size_t x = 0; x < to.w; ++x) {
            start[x] = uint32_t(at);
            for (size_t ky = 0; ky < s.kh; ++ky)
                for (size_t kx = 0; kx < s.kw; ++kx) {
                    // Padding wraps to positions far behind the image.
                    const size_t iy = oy * s.stride_h + ky - s.pad_h;
                    const size_t ix = x * s.stride_w + kx - s.pad_w;
                    if (iy >= s.h || ix >= s.w) continue;
                    const uint64_t* const word = bits + ((step * s.h + iy) * s.w + ix) * words;
                    for (size_t k = 0; k < words; ++k)
                        if (word[k] != 0)
                            at = append_events(to.index, at, word[k], uint32_t(x * to.c + k * 64));
                }
        }
        start[to.w] = uint32_t(at);
        count += at - first;
    }
    return count;
}

static void count(const SpikeRows& from, uint8_t* x, size_t begin, size_t end) {
    const size_t c4 = (from.c + 3) / 4 * 4, row_bytes = from.w * c4;
    for (size_t r = begin; r < end; ++r) {
        uint8_t* const row = x + r * row_bytes;
        memset(row, 0, row_bytes);
        const uint32_t* const start = from.start + r * (from.w + 1);
        if (c4 == from.c) {
            for (size_t e = start[0]; e < start[from.w]; ++e) ++row[from.index[e]];
            continue;
        }
        for (size_t at = 0; at < from.w; ++at)
            for (size_t e = start[at]; e < start[at + 1]; ++e)
                ++row[from.index[e] + at * (c4 - from.c)];
    }
}

// ----------------------------------------------------------------------------------------------
// sums over events

// As many 16-bit sums as a vector holds; 16 of them in any case are one of these or two.
struct Narrow {
    static constexpr size_t outputs = lanes == 4 ? 8 : 16;
#if defined(__AVX2__)
    __m256i v = _mm256_setzero_si256();
    void add(const int16_t* w) {
        v = _mm256_add_epi16(v, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)));
    }
    // y += the sums, which start anew.
    void carry(int32_t* y) {
        auto* const to = reinterpret_cast<__m256i*>(y);
        const __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(v));
        const __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(v, 1));
        _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), low));
        _mm256_storeu_si256(to + 1, _mm256_add_epi32(_mm256_loadu_si256(to + 1), high));
        v = _mm256_setzero_si256();
    }
#else
    __m128i v = _mm_setzero_si128();
    void add(const int16_t* w) {
        v = _mm_add_epi16(v, _mm_loadu_si128(reinterpret_cast<const __m128i*>(w)));
    }
    void carry(int32_t* y) {
        auto* const to = reinterpret_cast<__m128i*>(y);
        const __m128i sign = _mm_srai_epi16(v, 15);
        const __m128i low = _mm_unpacklo_epi16(v, sign), high = _mm_unpackhi_epi16(v, sign);
        _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), low));
        _mm_storeu_si128(to + 1, _mm_add_epi32(_mm_loadu_si128(to + 1), high));
        v = _mm_setzero_si128();
    }
#endif
};

#if defined(__AVX512F__)
struct Wide {
    static constexpr size_t outputs = 32;
    __m512i v = _mm512_setzero_si512();
    void add(const int16_t* w) { v = _mm512_add_epi16(v, _mm512_loadu_si512(w)); }
    void carry(int32_t* y) {
        const __m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(v));
        const __m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(v, 1));
        _mm512_storeu_si512(y, _mm512_add_epi32(_mm512_loadu_si512(y), low));
        _mm512_storeu_si512(y + 16, _mm512_add_epi32(_mm512_loadu_si512(y + 16), high));
        v = _mm512_setzero_si512();
    }
};
#else
using Wide = Narrow;
#endif

static constexpr size_t most_added = 32767 / 127;  // events before sums are carried over

// The sums of `vectors` vectors of outputs from w and y on: what IntegerStages::sums says, of one
// pixel.
template <class Sums, int vectors>
static void walk(const SpikeRows& in, const int16_t* w, const int32_t* bias, size_t width,
                 int32_t* y, size_t y_step, const ConvShape& s, const Window& at, size_t from,
                 size_t to) {
    for (size_t t = 0; t < in.steps; ++t, y += y_step) {
        Sums sum[vectors];
        size_t room = most_added;
        if (from == 0) memcpy(y, bias, vectors * Sums::outputs * sizeof(int32_t));
        const auto carry = [&]() __attribute__((always_inline)) {
            unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                sum[k].carry(y + size_t(k) * Sums::outputs);
            });
            room = most_added;
        };
        // Adds the events of columns [left, right) of an image row; input: the first one's.
        const auto add = [&](size_t row, size_t left, size_t right, size_t input)
            __attribute__((always_inline)) {
            const uint32_t* const start = in.start + row * (s.w + 1);
            const int16_t* const rows =
                w + (ptrdiff_t(input) - ptrdiff_t(left * s.cin)) * ptrdiff_t(width);
            size_t e = start[left];
            const size_t last = start[right];
            while (e < last) {
                if (room == 0) carry();
                const size_t stop = last - e < room ? last : e + room;
                room -= stop - e;
                for (; e < stop; ++e) {
                    const int16_t* const weights = rows + in.index[e] * width;
                    unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                        sum[k].add(weights + size_t(k) * Sums::outputs);
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
        carry();
    }
}

using Walk = void (*)(const SpikeRows&, const int16_t*, const int32_t*, size_t, int32_t*, size_t,
                      const ConvShape&, const Window&, size_t, size_t);

// The walk over a number of vectors known as it runs.
template <class Sums, int vectors>
static Walk pick_walk(size_t wanted) {
    if constexpr (vectors > 1)
        if (wanted < size_t(vectors)) return pick_walk<Sums, vectors - 1>(wanted);
    return walk<Sums, vectors>;
}

static void sums(const SpikeRows& in, const int16_t* w, const int32_t* bias, size_t width,
                 int32_t* y, const ConvShape& s, size_t begin, size_t end, size_t from, size_t to) {
    const size_t y_step = (end - begin) * width;
    for (size_t o = 0; o < width;) {
        constexpr size_t most = 4;
        size_t vectors = (width - o) / Wide::outputs;
        if (vectors > most) vectors = most;
        const bool wide = vectors > 0;
        if (!wide) vectors = (width - o) / Narrow::outputs;
        const Walk add = wide ? pick_walk<Wide, int(most)>(vectors) : pick_walk<Narrow, 2>(vectors);
        for (size_t p = begin; p < end; ++p)
            add(in, w + o, bias + o, width, y + (p - begin) * width + o, y_step, s, Window(s, p),
                from, to);
        o += vectors * (wide ? Wide::outputs : Narrow::outputs);
    }
}

// ----------------------------------------------------------------------------------------------
// sums over all inputs
static constexpr int pixels = 6;                          // in a tile
static constexpr int vectors_many = lanes == 16 ? 4 : 2;  // outputs of a tile
static constexpr size_t most_runs = 32;
static constexpr size_t longest_run = 512;     // bytes
static const uint8_t zeros[longest_run] = {};  // what padding reads

// `lanes` outputs, each the sum over four inputs at a time: bytes times bytes added in pairs to 16
// bits, of which no pair of 2 * 127 * 128 leaves them.
struct Fours {
#if defined(__AVX512F__)
    __m512i v = _mm512_setzero_si512();
    static __m512i inputs(int32_t x) {
        return _mm512_set1_epi32(x);
    }
    static __m512i weights(const int8_t* w) {
        return _mm512_loadu_si512(w);
    }
    void add(__m512i x, __m512i w) {
        v = _mm512_add_epi16(v, _mm512_maddubs_epi16(x, w));
    }
    void carry(int32_t* y) {
        const __m512i sum = _mm512_madd_epi16(v, _mm512_set1_epi16(1));
        _mm512_storeu_si512(y, _mm512_add_epi32(_mm512_loadu_si512(y), sum));
        v = _mm512_setzero_si512();
    }
#elif defined(__AVX2__)
    __m256i v = _mm256_setzero_si256();
    static __m256i inputs(int32_t x) {
        return _mm256_set1_epi32(x);
    }
    static __m256i weights(const int8_t* w) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
    }
    void add(__m256i x, __m256i w) {
        v = _mm256_add_epi16(v, _mm256_maddubs_epi16(x, w));
    }
    void carry(int32_t* y) {
        auto* const to = reinterpret_cast<__m256i*>(y);
        const __m256i sum = _mm256_madd_epi16(v, _mm256_set1_epi16(1));
        _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), sum));
        v = _mm256_setzero_si256();
    }
#else
    __m128i v = _mm_setzero_si128();  // in 32 bits: SSE2 has no products of bytes
    static __m128i inputs(int32_t x) {
        return _mm_unpacklo_epi8(_mm_set1_epi32(x), _mm_setzero_si128());
    }
    static __m128i weights(const int8_t* w) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(w));
    }
    void add(__m128i x, __m128i w) {
        const __m128i low = _mm_madd_epi16(x, _mm_srai_epi16(_mm_unpacklo_epi8(w, w), 8));
        const __m128i high = _mm_madd_epi16(x, _mm_srai_epi16(_mm_unpackhi_epi8(w, w), 8));
        const __m128 a = _mm_castsi128_ps(low), b = _mm_castsi128_ps(high);
        const __m128i even = _mm_castps_si128(_mm_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0)));
        const __m128i odd = _mm_castps_si128(_mm_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
        v = _mm_add_epi32(v, _mm_add_epi32(even, odd));
    }
    void carry(int32_t* y) {
        auto* const to = reinterpret_cast<__m128i*>(y);
        _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), v));
        v = _mm_setzero_si128();
    }
#endif
};

// Inputs that lie side by side under a kernel, for every pixel of a tile, and their weights.
struct Run {
    const uint8_t* x[pixels];
    const int8_t* w;
    size_t fours;
};

// y [count pixels of y_stride, vectors] += the runs' x w; most: fours before sums are carried over.
template <int count, int vectors>
static void dense_tile(const Run* runs, size_t run_count, size_t w_stride, size_t most, int32_t* y,
                       size_t y_stride) {
    Fours sum[count * vectors];
    const auto carry = [&]() __attribute__((always_inline)) {
        unrolled<count>([&](int p) __attribute__((always_inline)) {
            unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                sum[p * vectors + k].carry(y + size_t(p) * y_stride + size_t(k) * lanes);
            });
        });
    };
    size_t room = most;
    for (const Run* run = runs; run < runs + run_count; ++run) {
        const uint8_t* x[count];
        unrolled<count>([&](int p) __attribute__((always_inline)) { x[p] = run->x[p]; });
        const int8_t* w = run->w;
        for (size_t i = 0; i < run->fours;) {
            if (room == 0) {
                carry();
                room = most;
            }
            const size_t stop = run->fours - i < room ? run->fours : i + room;
            room -= stop - i;
            for (; i < stop; ++i, w += w_stride) {
                decltype(Fours::weights(w)) weight[vectors];
                unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                    weight[k] = Fours::weights(w + size_t(k) * lanes * 4);
                });
                unrolled<count>([&](int p) __attribute__((always_inline)) {
                    int32_t four;
                    memcpy(&four, x[p] + i * 4, 4);
                    const auto input = Fours::inputs(four);
                    unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                        sum[p * vectors + k].add(input, weight[k]);
                    });
                });
            }
        }
    }
    carry();
}

using DenseTile = void (*)(const Run*, size_t, size_t, size_t, int32_t*, size_t);

template <int count, int vectors = vectors_many>
static DenseTile pick_tile(size_t wanted) {
    if constexpr (vectors > 1)
        if (wanted < size_t(vectors)) return pick_tile<count, vectors - 1>(wanted);
    return dense_tile<count, vectors>;
}

// A share of a layer: its inputs and a panel of its outputs.
struct Share {
    const uint8_t* x;
    const int8_t* w;
    size_t c4, width, most;
    int32_t* y;
    size_t vectors;
};

// The sums of `count` pixels.
template <int count>
static void add_inputs(const Share& g, const ConvShape& s, DenseTile tile, const Pixel* at,
                       int32_t* y) {
    // Where no pixel meets the left or right border, the inputs under a kernel row are one run.
    bool inside = s.dilation_w == 1;
    for (int k = 0; k < count; ++k) inside = inside && at[k].x < s.w && s.w - at[k].x >= s.kw;
    const size_t columns = inside ? 1 : s.kw, bytes = (inside ? s.kw : 1) * g.c4;
    Run runs[most_runs];
    size_t run_count = 0;
    for (size_t ky = 0; ky < s.kh; ++ky)
        for (size_t kx = 0; kx < columns; ++kx)
            for (size_t c = 0; c < bytes; c += longest_run) {
                Run& run = runs[run_count];
                bool any = false;
                for (int p = 0; p < count; ++p) {
                    const size_t iy = at[p].y + ky * s.dilation_h, ix = at[p].x + kx * s.dilation_w;
                    const bool in = iy < s.h && ix < s.w;
                    run.x[p] = in ? g.x + ((at[p].image + iy) * s.w + ix) * g.c4 + c : zeros;
                    any = any || in;
                }
                run.w = g.w + ((ky * s.kw + kx) * g.c4 + c) * g.width;
                run.fours = (bytes - c < longest_run ? bytes - c : longest_run) / 4;
                run_count += any;
                if (run_count == most_runs) {
                    tile(runs, run_count, g.width * 4, g.most, y, g.width);
                    run_count = 0;
                }
            }
    if (run_count > 0) tile(runs, run_count, g.width * 4, g.most, y, g.width);
}

// The sums of pixels [begin, end): tiles of `count`, then smaller ones of what is left.
template <int count>
static void add_pixels(const Share& g, const ConvShape& s, Pixel next, size_t begin, size_t end) {
    const DenseTile tile = pick_tile<count>(g.vectors);
    for (; end - begin >= count; begin += count) {
        Pixel at[count];
        for (int k = 0; k < count; ++k) {
            at[k] = next;
            next.next(s);
        }
        add_inputs<count>(g, s, tile, at, g.y + begin * g.width);
    }
    if constexpr (count > 1) add_pixels<(count == pixels ? 4 : count / 2)>(g, s, next, begin, end);
}

static void dense(const uint8_t* x, const int8_t* w, const int32_t* bias, size_t most, int32_t* y,
                  const ConvShape& s, size_t begin, size_t end, size_t first, size_t last) {
    if (begin == end || first == last) return;
    const size_t width = (s.cout + 15) / 16 * 16;
    for (size_t p = begin; p < end; ++p)
        memcpy(y + p * width + first, bias + first, (last - first) * sizeof(int32_t));
    // A four adds at most 2 * 127 * most to a lane.
    const size_t fours = 129 / (most < 1 ? 1 : most);
    for (size_t o = first; o < last; o += vectors_many * lanes) {
        const size_t left = (last - o) / lanes;
        add_pixels<pixels>({x, w + o * 4, (s.cin + 3) / 4 * 4, width, fours < 1 ? 1 : fours, y + o,
                            left < vectors_many ? left : vectors_many},
                           s, Pixel(s, begin), begin, end);
    }
}

IntegerStages integer_stages() {
    return {
        .list = list, .count = count, .sums = sums, .dense = dense, .fire = integer_stages_fire()};
}

}  // namespace nc::kernels::NC_ISA
