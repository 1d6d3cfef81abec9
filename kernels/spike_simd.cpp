// Packed spikes for one instruction set, and the canonical sums over set bits: a list of the
// weight rows that fire is made per output pixel, then added up with the outputs in registers.
#include "kernels/spike_simd.h"
#include "kernels/families.h"
#include "kernels/isa.h"

namespace nc::kernels::NC_ISA {

// ----------------------------------------------------------------------------------------------
// packing
static void pack(Queue& queue, const float* x, uint64_t* bits, size_t rows, size_t channels) {
    const size_t words = (channels + 63) / 64;
    const Vec zero(0.f);
    parallel_for(queue.threads, rows, 64, [&](size_t begin, size_t end) {
        for (size_t r = begin; r < end; ++r)
            for (size_t k = 0; k < words; ++k) {
                const float* const row = x + r * channels + k * 64;
                const size_t n = channels - k * 64 < 64 ? channels - k * 64 : 64;
                uint64_t word = 0;
                size_t c = 0;
                for (; c + lanes <= n; c += lanes)
                    word |= uint64_t(mask_bits(load(row + c) != zero)) << c;
                if (c < n) word |= uint64_t(mask_bits(load_partial(row + c, n - c) != zero)) << c;
                bits[r * words + k] = word;
            }
    });
}

static void unpack(Queue& queue, const uint64_t* bits, float value, float* x, size_t rows,
                   size_t channels) {
    const size_t words = (channels + 63) / 64;
    const Vec zero(0.f), one(value);
    parallel_for(queue.threads, rows, 64, [&](size_t begin, size_t end) {
        for (size_t r = begin; r < end; ++r)
            for (size_t k = 0; k < words; ++k) {
                float* const row = x + r * channels + k * 64;
                const size_t n = channels - k * 64 < 64 ? channels - k * 64 : 64;
                const uint64_t word = bits[r * words + k];
                size_t c = 0;
                for (; c + lanes <= n; c += lanes)
                    store(row + c, select(mask_from_bits(uint32_t(word >> c)), one, zero));
                if (c < n)
                    store_partial(row + c, select(mask_from_bits(uint32_t(word >> c)), one, zero),
                                  n - c);
            }
    });
}

static uint64_t count(Queue&, const uint64_t* bits, size_t words) {
    uint64_t n = 0;
    for (size_t i = 0; i < words; ++i) n += uint64_t(__builtin_popcountll(bits[i]));
    return n;
}

// ----------------------------------------------------------------------------------------------
// sums over events
static constexpr size_t list_capacity = 2048;  // and 64 more may be written past the end

// y [count vectors, the last of `last` lanes] += the listed rows of w, in the list's order.
template <int vectors, bool whole>
static void add_rows(const float* w, size_t stride, const uint32_t* list, size_t n, float* y,
                     size_t last) {
    const auto get = [&](const float* p, int k) __attribute__((always_inline)) {
        return whole || k + 1 < vectors ? load(p + k * lanes) : load_partial(p + k * lanes, last);
    };
    Vec sum[vectors];
    unrolled<vectors>([&](int k) __attribute__((always_inline)) { sum[k] = get(y, k); });
    for (size_t e = 0; e < n; ++e) {
        const float* const row = w + list[e] * stride;
        unrolled<vectors>([&](int k)
                              __attribute__((always_inline)) { sum[k] = sum[k] + get(row, k); });
    }
    unrolled<vectors>([&](int k) __attribute__((always_inline)) {
        if (whole || k + 1 < vectors)
            store(y + k * lanes, sum[k]);
        else
            store_partial(y + k * lanes, sum[k], last);
    });
}

static constexpr int most_vectors = 8;
using AddRows = void (*)(const float*, size_t, const uint32_t*, size_t, float*, size_t);
static constexpr AddRows add_whole[] = {add_rows<1, true>, add_rows<2, true>, add_rows<3, true>,
                                        add_rows<4, true>, add_rows<5, true>, add_rows<6, true>,
                                        add_rows<7, true>, add_rows<8, true>};
static constexpr AddRows add_part[] = {add_rows<1, false>, add_rows<2, false>, add_rows<3, false>,
                                       add_rows<4, false>, add_rows<5, false>, add_rows<6, false>,
                                       add_rows<7, false>, add_rows<8, false>};

// Outputs [first, last) of one pixel.
static inline void add_events(const float* w, size_t stride, const uint32_t* list, size_t n,
                              float* y, size_t first, size_t last) {
    if (n == 0) return;
    while (first < last) {
        const size_t vectors = (last - first + lanes - 1) / lanes;
        const size_t now = vectors < most_vectors ? vectors : most_vectors;
        const size_t tail = (last - first) % lanes;
        const bool whole = now < vectors || tail == 0;
        (whole ? add_whole : add_part)[now - 1](w + first, stride, list, n, y + first, tail);
        first += now * lanes;
    }
}

// Appends the events under taps [from, to) of the kernel at a pixel, words [word, ..) of the first.
// Channels that leave room in a word are strung together: tap and channel number the weight rows in
// that order, so the string's bits do too.
struct Taps {
    const uint64_t* bits;
    const ConvShape& s;
    size_t words;

    // The words of a tap at this pixel, or null outside the image.
    const uint64_t* at(const Pixel& p, size_t ky, size_t kx) const {
        const size_t y = p.y + ky * s.dilation_h, x = p.x + kx * s.dilation_w;
        return y < s.h && x < s.w ? bits + ((p.image + y) * s.w + x) * words : nullptr;
    }
    size_t list_narrow(uint32_t* list, const Pixel& p, size_t from, size_t to) const {
        size_t n = 0, ky = from / s.kw, kx = from % s.kw, shift = 0, first = from * s.cin;
        uint64_t string = 0;
        for (size_t tap = from; tap < to; ++tap) {
            if (shift + s.cin > 64) {
                n = append_events(list, n, string, uint32_t(first));
                first += shift;
                string = shift = 0;
            }
            if (const uint64_t* const word = at(p, ky, kx)) string |= *word << shift;
            shift += s.cin;
            if (++kx == s.kw) kx = 0, ++ky;
        }
        return append_events(list, n, string, uint32_t(first));
    }
    // Units are (tap, word).
    size_t list_wide(uint32_t* list, const Pixel& p, size_t from, size_t to) const {
        size_t n = 0, word = from % words, ky = from / words / s.kw, kx = from / words % s.kw;
        while (from < to) {
            const size_t run = words - word < to - from ? words - word : to - from;
            const size_t first = (ky * s.kw + kx) * s.cin;
            if (const uint64_t* const row = at(p, ky, kx))
                for (size_t k = word; k < word + run; ++k)
                    n = append_events(list, n, row[k], uint32_t(first + k * 64));
            from += run;
            word = 0;
            if (++kx == s.kw) kx = 0, ++ky;
        }
        return n;
    }
};

static void conv_event(Queue& queue, const uint64_t* bits, const float* w, const float* bias,
                       float* y, const ConvShape& s) {
    if (s.n == 0 || s.cout == 0) return;
    const Taps taps = {bits, s, (s.cin + 63) / 64};
    const size_t units = s.kh * s.kw * taps.words;
    const size_t unit_inputs = s.cin < 64 ? s.cin + (s.cin == 0) : 64;
    // A slab is a run of units whose weights fit the second cache, and whose events fit the list.
    const size_t fitting = slab_bytes / (unit_inputs * s.cout * sizeof(float));
    const size_t most = list_capacity / unit_inputs;
    const size_t slab = fitting < 1 ? 1 : fitting < most ? fitting : most;
    parallel_sums(queue.threads, s.n * s.out_h() * s.out_w(), 4, s.cout,
                  [&](size_t begin, size_t end, size_t first, size_t last) {
                      uint32_t list[list_capacity + 64];
                      for (size_t p = begin; p < end; ++p)
                          start_sums(bias, y + p * s.cout, first, last);
                      for (size_t from = 0; from < units; from += slab) {
                          const size_t to = from + slab < units ? from + slab : units;
                          Pixel at(s, begin);
                          for (size_t p = begin; p < end; ++p, at.next(s)) {
                              const size_t n = s.cin <= 64 ? taps.list_narrow(list, at, from, to)
                                                           : taps.list_wide(list, at, from, to);
                              add_events(w, s.cout, list, n, y + p * s.cout, first, last);
                          }
                      }
                  });
}

// A linear layer is a convolution over a column of its groups by a kernel just as high.
static void linear_event(Queue& queue, const uint64_t* bits, const float* w, const float* bias,
                         float* y, size_t rows, size_t groups, size_t channels, size_t out) {
    conv_event(
        queue, bits, w, bias, y,
        {.n = rows, .h = groups, .w = 1, .cin = channels, .kh = groups, .kw = 1, .cout = out});
}

static size_t no_count_scratch() {
    return 0;
}
static size_t no_split_scratch(size_t, size_t) {
    return 0;
}

Spike<float> spike() {
    return {.pack = pack,
            .unpack = unpack,
            .linear_dense = spike_linear_dense(),
            .linear_event = linear_event,
            .conv_dense = spike_conv_dense(),
            .conv_event = conv_event,
            .count = count,
            .count_scratch = no_count_scratch,
            .linear_split = linear_event,
            .conv_split = conv_event,
            .split_scratch = no_split_scratch};
}

}  // namespace nc::kernels::NC_ISA
