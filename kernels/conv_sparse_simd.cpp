// Convolutions that multiply only inputs that are not zero. Forward: the inputs that an output
// pixel sees are listed, and their rows of w added up with the outputs in registers. Backward to w:
// the inputs of each channel are listed, and the rows of dy that they meet added up with a row of
// taps in registers.
#include "kernels/conv_sparse_simd.h"
#include "kernels/gemm_core.h"

namespace nc::kernels::NC_ISA {

// Denser inputs are faster through the matrix product, whose operands come from nearer: where both
// took the same time on layers of 32 and more channels (AVX-512; with AVX2 the product comes
// later).
static constexpr double most_share = 0.25;
// Of an output pixel. A forward pass with fewer is faster dense at any share, for each pixel's
// lists take as long: measured with 576 and 2304, the other way round with 9216.
static constexpr size_t least_products = 8192;
// Fewer images are not worth a sample; and what is listed at once is to stay in a cache.
static constexpr size_t least_images = 8, most_listed = size_t(1) << 19;

// Inputs that are not zero: where their row is, in floats, and what they multiply it by.
struct Events {
    uint32_t* at;
    float* value;
};

bool is_sparse(const float* x, const ConvShape& s) {
    constexpr size_t places = 64, run = 256;
    const size_t size = s.n * s.h * s.w * s.cin;
    if (size < places * run) return false;
    size_t found = 0;
    for (size_t i = 0; i < places; ++i) {
        const float* at = x + (size - run) / (places - 1) * i;
        for (size_t k = 0; k < run; k += lanes)
            found += size_t(__builtin_popcount(mask_bits(~(load(at + k) == broadcast(0)))));
    }
    return double(found) <= most_share * double(places * run) - 0.5;
}

// body(i) for each of the n floats at x that is not zero; NaN is none.
template <class Body>
__attribute__((always_inline)) static inline void for_each_event(const float* x, size_t n,
                                                                 const Body& body) {
    const auto visit = [&](uint32_t bits, size_t first) __attribute__((always_inline)) {
        for (; bits != 0; bits &= bits - 1) body(first + size_t(__builtin_ctz(bits)));
    };
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) visit(mask_bits(~(load(x + i) == broadcast(0))), i);
    if (i < n) visit(mask_bits(~(load_partial(x + i, n - i) == broadcast(0))), i);
}

// ----------------------------------------------------------------------------------------------
// forward. The events of a row of taps lie one after another in the image's list, and where their
// rows of w lie, seen from the leftmost tap, does not depend on the output pixel.

// An image's events, those of pixel p at [start[p], start[p + 1]); `at` is (x * cin + channel) *
// cout for an input of column x.
struct ImageList {
    uint32_t* start;
    Events events;
};

static size_t image_floats(const ConvShape& s) {
    return round_up(s.h * s.w * s.cin, 16);
}
static size_t forward_floats(const ConvShape& s) {
    return round_up(s.h * s.w + 1, 16) + 2 * image_floats(s);
}

static ImageList image_list(float* own, const ConvShape& s) {
    float* lists = own + round_up(s.h * s.w + 1, 16);
    return {reinterpret_cast<uint32_t*>(own),
            {reinterpret_cast<uint32_t*>(lists), lists + image_floats(s)}};
}

static void list_image(const float* x, const ImageList& list, const ConvShape& s) {
    uint32_t n = 0;
    for (size_t p = 0; p < s.h * s.w; ++p, x += s.cin) {
        list.start[p] = n;
        const size_t first = p % s.w * s.cin;
        for_each_event(
            x, s.cin, [&](size_t c) __attribute__((always_inline)) {
                list.events.at[n] = uint32_t((first + c) * s.cout);
                list.events.value[n++] = x[c];
            });
    }
    list.start[s.h * s.w] = n;
}

// Events [begin, end), whose rows of w are `base` floats further than their `at` says.
struct Run {
    ptrdiff_t base;
    size_t begin, end;
};

// The runs that an output pixel sees, in the order of w's rows; returns how many.
static size_t list_runs(const ImageList& list, size_t oy, size_t ox, Run* runs,
                        const ConvShape& s) {
    const ptrdiff_t left = ptrdiff_t(ox * s.stride_w) - ptrdiff_t(s.pad_w);
    const size_t x0 = left < 0 ? 0 : size_t(left);
    const ptrdiff_t right = left + ptrdiff_t(s.kw);
    const size_t x1 = right < 0 ? 0 : smaller(s.w, size_t(right));
    if (x0 >= x1) return 0;
    size_t n = 0;
    const ptrdiff_t pixel = ptrdiff_t(s.cin * s.cout);
    for (size_t ky = 0; ky < s.kh; ++ky) {
        const size_t y = oy * s.stride_h + ky * s.dilation_h - s.pad_h;  // wraps where outside
        if (y >= s.h) continue;
        const size_t begin = list.start[y * s.w + x0], end = list.start[y * s.w + x1];
        if (begin < end) runs[n++] = {(ptrdiff_t(ky * s.kw) - left) * pixel, begin, end};
    }
    return n;
}

// Cuts the runs where their rows of w reach float `stop`: what comes before goes to `head`, the
// rest stays. Returns how many runs the head has.
static size_t cut_runs(const ImageList& list, size_t stop, Run* runs, size_t& n, Run* head) {
    size_t full = 0, taken = 0;
    for (; full < n; ++full) {
        Run& run = runs[full];
        size_t e = run.begin;
        while (e < run.end && run.base + ptrdiff_t(list.events.at[e]) < ptrdiff_t(stop)) ++e;
        if (e > run.begin) head[taken++] = {run.base, run.begin, e};
        run.begin = e;
        if (e < run.end) break;
    }
    for (size_t i = full; i < n; ++i) runs[i - full] = runs[i];
    n -= full;
    return taken;
}

// y [V vectors, the last of `last` lanes if not whole] = the runs' rows of w times their values,
// + bias, + y with `more`.
struct ForwardSum {
    const float* w;
    Events events;
    const Run* runs;
    size_t count;
    const float* bias;
    float* y;
    bool more;
    size_t last;
};
template <int V, bool whole>
static void add_rows(const ForwardSum& f) {
    const auto get = [&](const float* p, int k) __attribute__((always_inline)) {
        return whole || k + 1 < V ? load(p + k * lanes) : load_partial(p + k * lanes, f.last);
    };
    Vec sum[V];
    unrolled<V>([&](int k) __attribute__((always_inline)) { sum[k] = broadcast(0); });
    for (size_t r = 0; r < f.count; ++r) {
        const Run& run = f.runs[r];
        for (size_t e = run.begin; e < run.end; ++e) {
            const Vec value = broadcast(f.events.value[e]);
            const float* row = f.w + (run.base + ptrdiff_t(f.events.at[e]));
            unrolled<V>([&](int k) __attribute__((always_inline)) {
                sum[k] = fma(value, get(row, k), sum[k]);
            });
        }
    }
    unrolled<V>([&](int k) __attribute__((always_inline)) {
        if (f.bias != nullptr) sum[k] = sum[k] + get(f.bias, k);
        if (f.more) sum[k] = sum[k] + get(f.y, k);
        if (whole || k + 1 < V)
            store(f.y + k * lanes, sum[k]);
        else
            store_partial(f.y + k * lanes, sum[k], f.last);
    });
}

static constexpr size_t most_sums = 8;
using AddRows = void (*)(const ForwardSum&);
static constexpr AddRows add_whole[] = {add_rows<1, true>, add_rows<2, true>, add_rows<3, true>,
                                        add_rows<4, true>, add_rows<5, true>, add_rows<6, true>,
                                        add_rows<7, true>, add_rows<8, true>};

// All outputs of a pixel.
static void add_pixel(const float* w, const ImageList& list, const Run* runs, size_t count,
                      const float* bias, bool more, float* y, const ConvShape& s) {
    for (size_t j = 0; j < s.cout;) {
        const size_t vectors = smaller(most_sums, (s.cout - j) / lanes);
        const ForwardSum f = {.w = w + j,
                              .events = list.events,
                              .runs = runs,
                              .count = count,
                              .bias = bias != nullptr ? bias + j : nullptr,
                              .y = y + j,
                              .more = more,
                              .last = s.cout - j};
        if (vectors == 0) return add_rows<1, false>(f);
        add_whole[vectors - 1](f);
        j += vectors * lanes;
    }
}

static constexpr size_t most_taps = 32;  // of a column

bool has_sparse_forward(const ConvShape& s) {
    return s.groups == 1 && s.dilation_w == 1 && s.n >= least_images && s.cout >= lanes &&
           s.kh * s.kw * s.cin * s.cout >= least_products && s.kh <= most_taps &&
           s.h * s.w * s.cin <= most_listed && s.w * s.cin * s.cout <= UINT32_MAX;
}

size_t sparse_forward_scratch(const ConvShape& s, int threads) {
    return has_sparse_forward(s) ? sizeof(float) * size_t(threads) * forward_floats(s) : 0;
}

void sparse_forward(Queue& q, const float* x, const float* w, const float* bias, float* y,
                    const ConvShape& s) {
    const size_t k = s.kh * s.kw * s.cin, length = product_block_length(k);
    const size_t parts = smaller(s.n, size_t(q.threads));
    float* own = reinterpret_cast<float*>(q.scratch);
    parallel_for(q.threads, parts, 1, [&](size_t first, size_t last) {
        const ImageList list = image_list(own + first * forward_floats(s), s);
        Run runs[most_taps], head[most_taps];
        for (size_t image = s.n * first / parts; image < s.n * last / parts; ++image) {
            list_image(x + image * s.h * s.w * s.cin, list, s);
            float* out = y + image * s.out_h() * s.out_w() * s.cout;
            for (size_t oy = 0; oy < s.out_h(); ++oy)
                for (size_t ox = 0; ox < s.out_w(); ++ox, out += s.cout) {
                    size_t n = list_runs(list, oy, ox, runs, s);
                    // The matrix product's blocks of k, each summed from zero.
                    bool more = false;
                    for (size_t end = length; end < k && n > 0; end += length) {
                        const size_t taken = cut_runs(list, end * s.cout, runs, n, head);
                        add_pixel(w, list, head, taken, more ? nullptr : bias, more, out, s);
                        more = true;
                    }
                    if (n > 0 || !more)
                        add_pixel(w, list, runs, n, more ? nullptr : bias, more, out, s);
                }
        }
    });
}

// ----------------------------------------------------------------------------------------------
// backward_weight. An input at (y, x) of channel c meets, for every row ky of taps, the pixels of
// dy at (y + pad - ky, x + pad - kx): for kx = kw - 1 .. 0 they lie one after another, so a row of
// taps of dw [c, ky, kw - 1 - kx, cout] is one run of floats, and so is what is added to it. dy is
// copied with zeros around it, so that nothing lies outside.

static constexpr size_t padded_bytes = 192 * 1024;  // of dy copied at once, to stay in a cache

#if defined(__AVX512F__)
static constexpr size_t run_sizes[] = {24, 12, 6, 3, 1};  // vectors in registers
#else
static constexpr size_t run_sizes[] = {12, 6, 3, 1};
#endif

struct BackwardPlan {
    size_t slots;           // of images, each summed by one thread; a function of the shape alone
    size_t run, row, rows;  // floats: of a row of taps; its place; of dw in that form
    size_t ph, pw, images, padded;  // a copied image, how many at once, floats of all of them
    size_t places;                  // inputs of a channel in so many images
};

static BackwardPlan backward_plan(const ConvShape& s) {
    BackwardPlan p = {};
    p.slots = smaller(8, s.n);
    p.run = s.kw * s.cout;
    p.row = round_up(p.run, lanes);
    p.rows = round_up(s.cin * s.kh * p.row, 16);
    p.ph = s.h + s.kh - 1;
    p.pw = s.w + s.kw - 1;
    const size_t image = p.ph * p.pw * s.cout;
    p.images = padded_bytes / sizeof(float) / (image + 1);
    if (p.images == 0) p.images = 1;
    p.padded = round_up(p.images * image + lanes, 16);
    p.places = p.images * s.h * s.w;
    return p;
}

bool has_sparse_backward_weight(const ConvShape& s) {
    if (s.groups != 1 || s.n < least_images || s.cout < lanes || s.stride_h != 1 ||
        s.stride_w != 1 || s.dilation_h != 1 || s.dilation_w != 1 || s.pad_h >= s.kh ||
        s.pad_w >= s.kw || s.h + 2 * s.pad_h < s.kh || s.w + 2 * s.pad_w < s.kw)
        return false;
    const BackwardPlan p = backward_plan(s);
    return s.cin * p.places <= most_listed && p.padded <= most_listed * 8 &&
           p.slots * p.rows <= most_listed * 16;
}

// Floats of one thread: dy with zeros around, events of each channel, how many there are.
static size_t backward_floats(const BackwardPlan& p, const ConvShape& s) {
    return p.padded + 2 * round_up(s.cin * p.places, 16) + round_up(s.cin, 16);
}

size_t sparse_backward_weight_scratch(const ConvShape& s, int threads) {
    if (!has_sparse_backward_weight(s)) return 0;
    const BackwardPlan p = backward_plan(s);
    return sizeof(float) * (p.slots * p.rows + size_t(threads) * backward_floats(p, s));
}

// sum [V vectors] += values times the V vectors of dy at the events.
template <size_t V>
static void add_runs(float* sum, const float* dy, const Events& events, size_t n) {
    Vec s[V];
    unrolled<int(V)>([&](int k) __attribute__((always_inline)) { s[k] = load(sum + k * lanes); });
    for (size_t e = 0; e < n; ++e) {
        const Vec value = broadcast(events.value[e]);
        const float* from = dy + events.at[e];
        unrolled<int(V)>([&](int k) __attribute__((always_inline)) {
            s[k] = fma(value, load(from + k * lanes), s[k]);
        });
    }
    unrolled<int(V)>([&](int k) __attribute__((always_inline)) { store(sum + k * lanes, s[k]); });
}

template <size_t I = 0>
static void add_row(float* sum, const float* dy, const Events& events, size_t n, size_t vectors) {
    constexpr size_t V = run_sizes[I];
    for (; vectors >= V; vectors -= V, sum += V * lanes, dy += V * lanes)
        add_runs<V>(sum, dy, events, n);
    if constexpr (V > 1) {
        if (vectors > 0) add_row<I + 1>(sum, dy, events, n, vectors);
    }
}

void sparse_backward_weight(Queue& q, const float* x, const float* dy, float* dw,
                            const ConvShape& s) {
    const BackwardPlan p = backward_plan(s);
    const size_t oh = s.out_h(), ow = s.out_w(), top = s.kh - 1 - s.pad_h,
                 left = s.kw - 1 - s.pad_w;
    float* sums = reinterpret_cast<float*>(q.scratch);
    float* own = sums + p.slots * p.rows;
    const size_t parts = smaller(p.slots, size_t(q.threads));
    parallel_for(q.threads, parts, 1, [&](size_t first, size_t last) {
        float* padded = own + first * backward_floats(p, s);
        float* lists = padded + p.padded;
        const size_t list_floats = round_up(s.cin * p.places, 16);
        uint32_t* count = reinterpret_cast<uint32_t*>(lists + 2 * list_floats);
        const auto events_of = [&](size_t c) {
            return Events{reinterpret_cast<uint32_t*>(lists) + c * p.places,
                          lists + list_floats + c * p.places};
        };
        memset(padded, 0, p.padded * sizeof(float));  // the border stays
        for (size_t slot = p.slots * first / parts; slot < p.slots * last / parts; ++slot) {
            float* sum = sums + slot * p.rows;
            memset(sum, 0, p.rows * sizeof(float));
            const size_t to = s.n * (slot + 1) / p.slots;
            for (size_t from = s.n * slot / p.slots; from < to; from += p.images) {
                const size_t images = smaller(p.images, to - from);
                memset(count, 0, s.cin * sizeof(uint32_t));
                for (size_t i = 0; i < images; ++i) {
                    const float* rows = dy + (from + i) * oh * ow * s.cout;
                    for (size_t r = 0; r < oh; ++r, rows += ow * s.cout)
                        memcpy(padded + ((i * p.ph + top + r) * p.pw + left) * s.cout, rows,
                               ow * s.cout * sizeof(float));
                    const float* pixel = x + (from + i) * s.h * s.w * s.cin;
                    for (size_t r = 0; r < s.h; ++r)
                        for (size_t k = 0; k < s.w; ++k, pixel += s.cin) {
                            const uint32_t at = uint32_t(((i * p.ph + r) * p.pw + k) * s.cout);
                            for_each_event(
                                pixel, s.cin, [&](size_t c) __attribute__((always_inline)) {
                                    const Events events = events_of(c);
                                    events.at[count[c]] = at;
                                    events.value[count[c]++] = pixel[c];
                                });
                        }
                }
                for (size_t c = 0; c < s.cin; ++c) {
                    if (count[c] == 0) continue;
                    const Events events = events_of(c);
                    for (size_t ky = 0; ky < s.kh; ++ky)
                        add_row(sum + (c * s.kh + ky) * p.row,
                                padded + (s.kh - 1 - ky) * p.pw * s.cout, events, count[c],
                                p.row / lanes);
                }
            }
        }
    });
    parallel_for(q.threads, s.cin, 1, [&](size_t begin, size_t end) {
        for (size_t c = begin; c < end; ++c)
            for (size_t tap = 0; tap < s.kh * s.kw; ++tap) {
                const size_t ky = tap / s.kw, kx = tap % s.kw;
                const float* from = sums + (c * s.kh + ky) * p.row + (s.kw - 1 - kx) * s.cout;
                float* to = dw + (tap * s.cin + c) * s.cout;
                for (size_t j = 0; j < s.cout; j += lanes) {
                    const size_t n = smaller(lanes, s.cout - j);
                    const auto get = [&](const float* at) {
                        return n == lanes ? load(at) : load_partial(at, n);
                    };
                    Vec total = get(from + j);
                    for (size_t slot = 1; slot < p.slots; ++slot)
                        total = total + get(from + slot * p.rows + j);
                    if (n == lanes)
                        store(to + j, total);
                    else
                        store_partial(to + j, total, n);
                }
            }
    });
}

}  // namespace nc::kernels::NC_ISA
