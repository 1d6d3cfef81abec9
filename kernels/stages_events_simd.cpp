// The events of a layer's input for one instruction set: of packed spikes, of pooled spikes, and of
// floats.
#include "kernels/spike_simd.h"

namespace nc::kernels::NC_ISA {

static size_t events(const uint64_t* bits, const EventRows& to, size_t begin, size_t end) {
    const size_t words = (to.c + 63) / 64;
    size_t count = 0;
    for (size_t r = begin; r < end; ++r) {
        const uint64_t* word = bits + r * to.w * words;
        uint32_t* const start = to.start + r * (to.w + 1);
        const size_t first = r * to.slots();
        size_t at = first;
        for (size_t x = 0; x < to.w; ++x) {
            start[x] = uint32_t(at);
            for (size_t k = 0; k < words; ++k, ++word)
                if (*word != 0)
                    at = append_events(to.index, at, *word, uint32_t(x * to.c + k * 64));
        }
        start[to.w] = uint32_t(at);
        count += at - first;
    }
    return count;
}

// ----------------------------------------------------------------------------------------------
// pooling: the counts of 64 channels side by side, bit i of each in plane i.
static constexpr size_t most_planes = 24;

// Appends the channels of which some plane has a bit, and their averages.
static inline size_t append_counts(const EventRows& to, size_t at, const uint64_t* planes,
                                   size_t plane_count, uint32_t first, float share) {
    uint64_t any = 0;
    for (size_t i = 0; i < plane_count; ++i) any |= planes[i];
    for (; any != 0; any &= any - 1) {
        const size_t c = size_t(__builtin_ctzll(any));
        uint32_t count = 0;
        for (size_t i = 0; i < plane_count; ++i) count |= uint32_t(planes[i] >> c & 1) << i;
        to.index[at] = first + uint32_t(c);
        to.value[at++] = float(count) * share;
    }
    return at;
}

// Windows of 2 x 2 without padding, which most networks have.
static size_t pooled_by_four(const uint64_t* bits, const PoolShape& s, const EventRows& to,
                             size_t begin, size_t end) {
    const size_t words = (to.c + 63) / 64;
    size_t count = 0;
    for (size_t r = begin; r < end; ++r) {
        uint32_t* const start = to.start + r * (to.w + 1);
        const size_t first = r * to.slots();
        const uint64_t* upper = bits + (r / to.h * s.h + r % to.h * s.stride_h) * s.w * words;
        size_t at = first;
        for (size_t x = 0; x < to.w; ++x, upper += s.stride_w * words) {
            start[x] = uint32_t(at);
            const uint64_t* const lower = upper + s.w * words;
            for (size_t k = 0; k < words; ++k) {
                const uint64_t a = upper[k], b = upper[k + words], c = lower[k],
                               d = lower[k + words];
                if ((a | b | c | d) == 0) continue;
                const uint64_t ab = a ^ b, cd = c ^ d, low = ab & cd, both = a & b, others = c & d;
                const uint64_t planes[3] = {ab ^ cd, low ^ both ^ others, both & others};
                at = append_counts(to, at, planes, 3, uint32_t(x * to.c + k * 64), 0.25f);
            }
        }
        start[to.w] = uint32_t(at);
        count += at - first;
    }
    return count;
}

static size_t pooled(const uint64_t* bits, const PoolShape& s, const EventRows& to, size_t begin,
                     size_t end) {
    if (s.kh == 2 && s.kw == 2 && s.pad_h == 0 && s.pad_w == 0)
        return pooled_by_four(bits, s, to, begin, end);
    const size_t words = (to.c + 63) / 64;
    const float share = 1.0f / float(s.kh * s.kw);
    size_t plane_count = 1, count = 0;
    while (plane_count < most_planes && s.kh * s.kw >> plane_count != 0) ++plane_count;
    for (size_t r = begin; r < end; ++r) {
        uint32_t* const start = to.start + r * (to.w + 1);
        const size_t first = r * to.slots(), step = r / to.h, oy = r % to.h;
        size_t at = first;
        for (size_t x = 0; x < to.w; ++x) {
            start[x] = uint32_t(at);
            for (size_t k = 0; k < words; ++k) {
                uint64_t planes[most_planes] = {};
                for (size_t ky = 0; ky < s.kh; ++ky)
                    for (size_t kx = 0; kx < s.kw; ++kx) {
                        // Padding wraps to positions far behind the image.
                        const size_t iy = oy * s.stride_h + ky - s.pad_h;
                        const size_t ix = x * s.stride_w + kx - s.pad_w;
                        if (iy >= s.h || ix >= s.w) continue;
                        uint64_t carry = bits[((step * s.h + iy) * s.w + ix) * words + k];
                        for (size_t i = 0; i < plane_count && carry != 0; ++i) {
                            const uint64_t both = planes[i] & carry;
                            planes[i] ^= carry;
                            carry = both;
                        }
                    }
                at = append_counts(to, at, planes, plane_count, uint32_t(x * to.c + k * 64), share);
            }
        }
        start[to.w] = uint32_t(at);
        count += at - first;
    }
    return count;
}

// ----------------------------------------------------------------------------------------------
// floats
//
// A row is scanned 64 values at a time; where pixels start in between follows from the bits.
static size_t graded(const float* x, const EventRows& to, size_t begin, size_t end) {
    const size_t n = to.w * to.c;
    const Vec zero(0.f);
    size_t count = 0;
    for (size_t r = begin; r < end; ++r) {
        const float* const row = x + r * n;
        uint32_t* const start = to.start + r * (to.w + 1);
        const size_t first = r * to.slots();
        size_t at = first, pixel = 0, pixel_at = 0;  // the next pixel to start, and its value
        for (size_t i = 0; i < n; i += 64) {
            const size_t here = n - i < 64 ? n - i : 64;
            uint64_t word = 0;
            size_t k = 0;
            for (; k + lanes <= here; k += lanes)
                word |= uint64_t(mask_bits(~(load(row + i + k) == zero))) << k;
            if (k < here)
                word |= uint64_t(mask_bits(~(load_partial(row + i + k, here - k) == zero))) << k;
            for (; pixel_at < i + here; pixel_at += to.c) {
                const uint64_t before = (uint64_t(1) << (pixel_at - i)) - 1;
                start[pixel++] = uint32_t(at + size_t(__builtin_popcountll(word & before)));
            }
            const size_t old = at;
            if (word != 0) at = append_events(to.index, at, word, uint32_t(i));
            for (size_t e = old; e < at; ++e) to.value[e] = row[to.index[e]];
        }
        start[to.w] = uint32_t(at);
        count += at - first;
    }
    return count;
}

static void expand(const EventRows& from, float* x, size_t begin, size_t end) {
    const size_t n = from.w * from.c;
    for (size_t r = begin; r < end; ++r) {
        float* const row = x + r * n;
        memset(row, 0, n * sizeof(float));
        const size_t last = from.start[r * (from.w + 1) + from.w];
        for (size_t e = r * from.slots(); e < last; ++e)
            row[from.index[e]] = from.value != nullptr ? from.value[e] : 1.0f;
    }
}

void stages_events(Stages& s) {
    s.events = events;
    s.pooled = pooled;
    s.graded = graded;
    s.expand = expand;
}

}  // namespace nc::kernels::NC_ISA
