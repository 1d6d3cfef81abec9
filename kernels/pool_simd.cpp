// The pool family of one instruction set: vectors along channels. Fewer channels than lanes: a
// vector then also holds what follows in memory, and the next pixel's store overwrites the excess.
#include "kernels/families.h"
#include "kernels/loops_simd.h"

namespace nc::kernels::NC_ISA {

using Int = xsimd::batch<int32_t, Arch>;

// Calls body(Whole or Part, j) for the vectors of c channels. room: a whole vector may be read and
// written although c < lanes. A last vector that is not full overlaps the one before.
template <class Body>
static inline void channel_loop(size_t c, bool room, Body body) {
    if (c < lanes) {
        if (room)
            body(Whole{}, size_t(0));
        else
            body(Part{c}, size_t(0));
        return;
    }
    size_t j = 0;
    for (; j + lanes <= c; j += lanes) body(Whole{}, j);
    if (j < c) body(Whole{}, c - lanes);
}

// The part [first, last) of a window at output o that is not padding, in input coordinates.
struct Range {
    size_t first, last;
};
static inline Range window(size_t o, size_t stride, size_t kernel, size_t pad, size_t size) {
    const size_t begin = o * stride, end = begin + kernel;
    return {begin > pad ? begin - pad : 0, end - pad < size ? end - pad : size};
}

// Moves r, the outputs whose windows hold input i, on from those of a smaller i.
static inline void advance(Range& r, size_t i, size_t stride, size_t kernel, size_t pad,
                           size_t outputs) {
    while (r.last < outputs && r.last * stride <= i + pad) ++r.last;
    while (r.first < r.last && r.first * stride + kernel <= i + pad) ++r.first;
}

// Rows of `floats` floats that are worth a thread's while.
static inline size_t row_grain(size_t floats) {
    return 16384 / (floats + 1) + 1;
}

// Calls body(roomy, y window, x window, image, output offset) for each output pixel.
template <class Body>
static inline void for_outputs(int threads, const PoolShape& s, Body body) {
    const size_t oh = s.out_h(), ow = s.out_w(), inputs = s.n * s.h * s.w * s.c;
    parallel_for(threads, s.n * oh, row_grain(s.kh * s.w * s.c), [&](size_t begin, size_t end) {
        const size_t limit = end * ow * s.c;
        for (size_t row = begin; row < end; ++row) {
            const size_t image = row / oh * s.h;
            const Range y = window(row % oh, s.stride_h, s.kh, s.pad_h, s.h);
            for (size_t ox = 0; ox < ow; ++ox) {
                const Range x = window(ox, s.stride_w, s.kw, s.pad_w, s.w);
                const size_t out = (row * ow + ox) * s.c;
                const size_t last = ((image + y.last - 1) * s.w + x.last - 1) * s.c;
                body(last + lanes <= inputs && out + lanes <= limit, y, x, image, out);
            }
        }
    });
}

static void average(Queue& q, const float* x, float* y, const PoolShape& s) {
    const Vec factor = broadcast(1.0f / float(s.kh * s.kw)), zero = broadcast(0);
    for_outputs(q.threads, s, [=](bool room, Range ry, Range rx, size_t image, size_t out) {
        const float* in = x + ((image + ry.first) * s.w + rx.first) * s.c;
        const size_t down = s.w * s.c, right = s.c;
        const size_t height = ry.last - ry.first, width = rx.last - rx.first;
        if (height == 2 && width == 2) {
            channel_loop(s.c, room, [=](auto io, size_t j) {
                const float* p = in + j;
                const Vec top = (zero + io.load(p)) + io.load(p + right);
                const Vec sum = (top + io.load(p + down)) + io.load(p + down + right);
                io.store(y + out + j, sum * factor);
            });
            return;
        }
        channel_loop(s.c, room, [=](auto io, size_t j) {
            Vec sum = zero;
            for (size_t ky = 0; ky < height; ++ky)
                for (size_t kx = 0; kx < width; ++kx)
                    sum = sum + io.load(in + ky * down + kx * right + j);
            io.store(y + out + j, sum * factor);
        });
    });
}

static inline void store_index(Whole, int32_t* p, Int v) {
    v.store_unaligned(p);
}
static inline void store_index(Part io, int32_t* p, Int v) {
    int32_t each[lanes];
    v.store_unaligned(each);
    memcpy(p, each, io.n * sizeof(int32_t));
}

// The best value so far and its place, an int32 in each lane's bits.
struct Winner {
    Vec value, place;
    // v at `at` wins when it is greater or a NaN, unless a NaN has won.
    void meet(Vec v, size_t at) {
        const Mask wins = ~(v <= value) & (value == value);
        value = select(wins, v, value);
        place = select(wins, bits(at), place);
    }
    static Vec bits(size_t at) { return xsimd::bitwise_cast<Vec>(Int(int32_t(at))); }
};

static void max(Queue& q, const float* x, float* y, int32_t* index, const PoolShape& s) {
    for_outputs(q.threads, s, [=](bool room, Range ry, Range rx, size_t image, size_t out) {
        const size_t at = ry.first * s.w + rx.first, w = s.w, c = s.c;
        const float* in = x + (image * w + at) * c;
        const size_t height = ry.last - ry.first, width = rx.last - rx.first;
        channel_loop(c, room, [=](auto io, size_t j) {
            const float* p = in + j;
            Winner best = {io.load(p), Winner::bits(at)};
            if (height == 2 && width == 2) {
                best.meet(io.load(p + c), at + 1);
                best.meet(io.load(p + w * c), at + w);
                best.meet(io.load(p + (w + 1) * c), at + w + 1);
            } else {
                for (size_t ky = 0; ky < height; ++ky)
                    for (size_t kx = ky == 0 ? 1 : 0; kx < width; ++kx)
                        best.meet(io.load(p + (ky * w + kx) * c), at + ky * w + kx);
            }
            io.store(y + out + j, best.value);
            if (index != nullptr)
                store_index(io, index + out + j, xsimd::bitwise_cast<Int>(best.place));
        });
    });
}

// Calls body(roomy, outputs in y, outputs in x, image's first output pixel, y, x, input offset) for
// each input pixel.
template <class Body>
static inline void for_inputs(int threads, const PoolShape& s, Body body) {
    const size_t oh = s.out_h(), ow = s.out_w(), outputs = s.n * oh * ow * s.c;
    parallel_for(threads, s.n * s.h, row_grain(s.w * s.c), [&](size_t begin, size_t end) {
        const size_t limit = end * s.w * s.c;
        for (size_t row = begin; row < end; ++row) {
            const size_t y = row % s.h, image = row / s.h * oh * ow;
            Range ry = {0, 0}, rx = {0, 0};
            advance(ry, y, s.stride_h, s.kh, s.pad_h, oh);
            for (size_t x = 0; x < s.w; ++x) {
                advance(rx, x, s.stride_w, s.kw, s.pad_w, ow);
                const size_t in = (row * s.w + x) * s.c;
                const size_t last = (image + ry.last * ow + rx.last) * s.c;
                body(last + lanes <= outputs && in + lanes <= limit, ry, rx, image, y, x, in);
            }
        }
    });
}

// Windows side by side, or only one, without padding: each input belongs to one window at most.
static inline bool tiled(const PoolShape& s) {
    return (s.stride_h == s.kh || s.out_h() == 1) && (s.stride_w == s.kw || s.out_w() == 1) &&
           s.pad_h == 0 && s.pad_w == 0;
}

// Calls body(roomy, output offset, input offset of its window, y * w + x of that) for the outputs
// of tiled windows, and sets what no window covers to 0.
template <class Body>
static inline void for_tiles(int threads, const PoolShape& s, float* dx, Body body) {
    const size_t oh = s.out_h(), ow = s.out_w(), outputs = s.n * oh * ow * s.c;
    const size_t length = s.w * s.c, covered = ow * s.kw * s.c;
    parallel_for(threads, s.n * oh, row_grain(s.kh * length), [&](size_t begin, size_t end) {
        for (size_t row = begin; row < end; ++row) {
            const size_t oy = row % oh, first = (row / oh * s.h + oy * s.kh) * length;
            for (size_t ky = 0; covered < length && ky < s.kh; ++ky)
                memset(dx + first + ky * length + covered, 0, (length - covered) * sizeof(float));
            if (oy + 1 == oh)
                memset(dx + first + s.kh * length, 0, (s.h - oh * s.kh) * length * sizeof(float));
            for (size_t ox = 0; ox < ow; ++ox) {
                const size_t out = (row * ow + ox) * s.c, in = ox * s.kw * s.c;
                const bool room =
                    in + (s.kw - 1) * s.c + lanes <= covered && out + lanes <= outputs;
                body(room, out, first + in, oy * s.kh * s.w + ox * s.kw);
            }
        }
    });
}

static void average_backward(Queue& q, const float* dy, float* dx, const PoolShape& s) {
    const Vec factor = broadcast(1.0f / float(s.kh * s.kw)), zero = broadcast(0);
    const size_t ow = s.out_w(), w = s.w, c = s.c;
    if (tiled(s)) {
        for_tiles(q.threads, s, dx, [=](bool room, size_t out, size_t in, size_t) {
            channel_loop(c, room, [=](auto io, size_t j) {
                const Vec v = zero + io.load(dy + out + j) * factor;
                float* p = dx + in + j;
                if (s.kh == 2 && s.kw == 2) {
                    io.store(p, v);
                    io.store(p + c, v);
                    io.store(p + w * c, v);
                    io.store(p + (w + 1) * c, v);
                    return;
                }
                for (size_t ky = 0; ky < s.kh; ++ky)
                    for (size_t kx = 0; kx < s.kw; ++kx) io.store(p + (ky * w + kx) * c, v);
            });
        });
        return;
    }
    for_inputs(q.threads, s,
               [=](bool room, Range ry, Range rx, size_t image, size_t, size_t, size_t in) {
                   channel_loop(c, room, [=](auto io, size_t j) {
                       Vec sum = zero;
                       for (size_t oy = ry.first; oy < ry.last; ++oy)
                           for (size_t ox = rx.first; ox < rx.last; ++ox)
                               sum = sum + io.load(dy + (image + oy * ow + ox) * c + j) * factor;
                       io.store(dx + in + j, sum);
                   });
               });
}

static inline Int load_index(Whole, const int32_t* p) {
    return Int::load_unaligned(p);
}
static inline Int load_index(Part io, const int32_t* p) {
    int32_t each[lanes] = {};
    memcpy(each, p, io.n * sizeof(int32_t));
    return Int::load_unaligned(each);
}

static inline Mask equal(Int a, Int b) {
#if defined(__AVX512F__)
    return Mask(_mm512_cmpeq_epi32_mask(a, b));
#elif defined(__AVX2__)
    return Mask(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)));
#else
    return Mask(_mm_castsi128_ps(_mm_cmpeq_epi32(a, b)));
#endif
}

static void max_backward(Queue& q, const float* dy, const int32_t* index, float* dx,
                         const PoolShape& s) {
    const size_t ow = s.out_w(), w = s.w, c = s.c;
    const Vec zero = broadcast(0);
    if (tiled(s)) {
        for_tiles(q.threads, s, dx, [=](bool room, size_t out, size_t in, size_t at) {
            channel_loop(c, room, [=](auto io, size_t j) {
                const Vec v = zero + io.load(dy + out + j);
                const Int place = load_index(io, index + out + j);
                for (size_t ky = 0; ky < s.kh; ++ky)
                    for (size_t kx = 0; kx < s.kw; ++kx) {
                        const Mask won = equal(place, Int(int32_t(at + ky * w + kx)));
                        io.store(dx + in + (ky * w + kx) * c + j, select(won, v, zero));
                    }
            });
        });
        return;
    }
    for_inputs(q.threads, s,
               [=](bool room, Range ry, Range rx, size_t image, size_t y, size_t x, size_t in) {
                   const Int here = Int(int32_t(y * w + x));
                   channel_loop(c, room, [=](auto io, size_t j) {
                       Vec sum = zero;
                       for (size_t oy = ry.first; oy < ry.last; ++oy)
                           for (size_t ox = rx.first; ox < rx.last; ++ox) {
                               const size_t o = (image + oy * ow + ox) * c + j;
                               const Mask won = equal(load_index(io, index + o), here);
                               sum = sum + select(won, io.load(dy + o), zero);
                           }
                       io.store(dx + in + j, sum);
                   });
               });
}

Pool<float> pool() {
    return {.average = average,
            .average_backward = average_backward,
            .max = max,
            .max_backward = max_backward};
}

}  // namespace nc::kernels::NC_ISA
