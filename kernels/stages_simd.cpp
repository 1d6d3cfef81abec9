// Sums over events for one instruction set: the accumulators of a panel of outputs stay in
// registers while events are walked.
#include "kernels/stages_simd.h"
#include "kernels/families.h"

namespace nc::kernels::NC_ISA {

// ----------------------------------------------------------------------------------------------
// sums
static constexpr int most_vectors = 8;  // accumulators

// The sums of `vectors` vectors of outputs from w and y on: what Stages::sums says, of one pixel.
template <int vectors, bool graded>
static void walk(const EventRows& in, const float* w, const float* bias, size_t width, float* y,
                 size_t y_step, const ConvShape& s, const Window& at, size_t from, size_t to) {
    for (size_t t = 0; t < in.steps; ++t, y += y_step) {
        Vec sum[vectors];
        const float* const begin = from > 0 ? y : bias;
        unrolled<vectors>([&](int k)
                              __attribute__((always_inline)) { sum[k] = load(begin + k * lanes); });
        // Adds the events of columns [left, right) of an image row; input: the first one's.
        const auto add = [&](size_t row, size_t left, size_t right, size_t input)
            __attribute__((always_inline)) {
            const uint32_t* const start = in.start + row * (s.w + 1);
            const float* const rows =
                w + (ptrdiff_t(input) - ptrdiff_t(left * s.cin)) * ptrdiff_t(width);
            const size_t last = start[right];
            for (size_t e = start[left]; e < last; ++e) {
                const float* const weights = rows + in.index[e] * width;
                if constexpr (graded) {
                    const Vec value = broadcast(in.value[e]);
                    unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                        sum[k] = sum[k] + value * load(weights + k * lanes);
                    });
                } else {
                    unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                        sum[k] = sum[k] + load(weights + k * lanes);
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
        unrolled<vectors>([&](int k)
                              __attribute__((always_inline)) { store(y + k * lanes, sum[k]); });
    }
}

using Walk = void (*)(const EventRows&, const float*, const float*, size_t, float*, size_t,
                      const ConvShape&, const Window&, size_t, size_t);

// The walk over a number of vectors known as it runs.
template <bool graded, int vectors = most_vectors>
static Walk pick_walk(size_t wanted) {
    if constexpr (vectors > 1)
        if (wanted < size_t(vectors)) return pick_walk<graded, vectors - 1>(wanted);
    return walk<vectors, graded>;
}

// ----------------------------------------------------------------------------------------------
// The other way round: each event is added to the outputs it reaches, in memory. An output still
// meets its inputs in order, for events are in order. Neither where a pixel's events end nor the
// time an addition takes matters then, which is most of a walk over few events or few outputs.

// Pixels [x, x + n) of an output row, their sums from y on.
struct RowPart {
    size_t oy, x, n;
    float* y;
    size_t y_step;
};

static constexpr size_t abreast = 4;

template <int vectors, bool graded>
static void scatter(const EventRows& in, const float* w, size_t width, const ConvShape& s,
                    const RowPart& part, size_t from, size_t to) {
    const size_t tap_stride = s.cin * width;
    const uint64_t inverse = (uint64_t(1) << 32) / s.cin + 1;  // index / cin by multiplying
    // Columns of the image under the part's kernels, from the padded image's to its own.
    const size_t first = part.x < s.pad_w ? 0 : part.x - s.pad_w;
    size_t last = part.x + part.n - 1 + s.kw;
    last = last < s.pad_w ? 0 : last - s.pad_w < s.w ? last - s.pad_w : s.w;
    if (first >= last) return;
    for (size_t ky = from; ky < to; ++ky) {
        const size_t iy = part.oy * s.stride_h + ky * s.dilation_h - s.pad_h;
        if (iy >= s.h) continue;
        const float* const taps = w + ky * s.kw * tap_stride;
        const auto add = [&](size_t e, float* sums) __attribute__((always_inline)) {
            const size_t x = size_t(in.index[e] * inverse >> 32);
            const float* const weights = taps + (in.index[e] - x * s.cin) * width;
            const Vec value = graded ? broadcast(in.value[e]) : Vec(1.f);
            const size_t o = x + s.pad_w - part.x;  // of tap 0; wraps left of the part
            float* const sum = sums + o * width;
            const auto tap = [&](size_t kx) __attribute__((always_inline)) {
                unrolled<vectors>([&](int k) __attribute__((always_inline)) {
                    const Vec weight = load(weights + kx * tap_stride + k * lanes);
                    float* const to = sum - kx * width + k * lanes;
                    store(to, load(to) + (graded ? value * weight : weight));
                });
            };
            if (s.kw == 3 && o >= 2 && o < part.n) {
                tap(0);
                tap(1);
                tap(2);
                return;
            }
            for (size_t kx = 0; kx < s.kw; ++kx)
                if (o - kx < part.n) tap(kx);
        };
        // A few steps side by side: events of one pixel wait for each other's sums.
        for (size_t t = 0; t < in.steps; t += abreast) {
            const size_t steps = in.steps - t < abreast ? in.steps - t : abreast;
            size_t at[abreast] = {}, end[abreast] = {}, shared = SIZE_MAX;
            for (size_t g = 0; g < steps; ++g) {
                const uint32_t* const start = in.start + ((t + g) * s.h + iy) * (s.w + 1);
                at[g] = start[first];
                end[g] = start[last];
                if (end[g] - at[g] < shared) shared = end[g] - at[g];
            }
            float* const sums = part.y + t * part.y_step;
            if (steps == abreast)
                for (size_t i = 0; i < shared; ++i)
                    unrolled<int(abreast)>([&](int g) __attribute__((always_inline)) {
                        add(at[g]++, sums + size_t(g) * part.y_step);
                    });
            for (size_t g = 0; g < steps; ++g)
                for (; at[g] < end[g]; ++at[g]) add(at[g], sums + g * part.y_step);
        }
    }
}

using Scatter = void (*)(const EventRows&, const float*, size_t, const ConvShape&, const RowPart&,
                         size_t, size_t);

template <bool graded, int vectors = most_vectors>
static Scatter pick_scatter(size_t wanted) {
    if constexpr (vectors > 1)
        if (wanted < size_t(vectors)) return pick_scatter<graded, vectors - 1>(wanted);
    return scatter<vectors, graded>;
}

// Whether scattering is faster: cycles an output pixel and step, as measured with AVX2 and AVX-512.
static bool prefer_scatter(const EventRows& in, const ConvShape& s, size_t begin, size_t end,
                           size_t from, size_t to, size_t vectors) {
    if (s.stride_w != 1 || s.dilation_w != 1 || s.kw > 8 || end - begin < 4) return false;
    if (uint64_t(s.w * s.cin) * s.cin >= uint64_t(1) << 32) return false;
    size_t events = 0, rows = 0;
    for (size_t oy = begin / s.out_w(); oy <= (end - 1) / s.out_w(); ++oy, ++rows)
        for (size_t ky = from; ky < to; ++ky) {
            const size_t iy = oy * s.stride_h + ky * s.dilation_h - s.pad_h;
            if (iy >= s.h) continue;
            for (size_t t = 0; t < in.steps; ++t) {
                const uint32_t* const start = in.start + (t * s.h + iy) * (s.w + 1);
                events += start[s.w] - start[0];
            }
        }
    const double each = double(events * s.kw) / double(rows * s.w * in.steps);
    const double v = double(vectors), walked = 60 + (v > 8 ? v / 2 : 4) * each;
    return v + (1.3 * v + 2) * each < walked;
}

static void sums(const EventRows& in, const float* w, const float* bias, size_t width, float* y,
                 const ConvShape& s, size_t begin, size_t end, size_t from, size_t to) {
    if (begin == end) return;
    alignas(64) float start[2 * panel];  // adding 0 turns a bias of -0 into +0
    for (size_t o = 0; o < width; ++o) start[o] = bias[o] + 0.0f;
    const size_t y_step = (end - begin) * width;
    const bool graded = in.value != nullptr;
    const bool scattered = prefer_scatter(in, s, begin, end, from, to, width / lanes);
    for (size_t o = 0; o < width; o += most_vectors * lanes) {
        const size_t left = (width - o) / lanes;
        const size_t vectors = left < most_vectors ? left : most_vectors;
        if (!scattered) {
            const Walk add = graded ? pick_walk<true>(vectors) : pick_walk<false>(vectors);
            for (size_t p = begin; p < end; ++p)
                add(in, w + o, start + o, width, y + (p - begin) * width + o, y_step, s,
                    Window(s, p), from, to);
            continue;
        }
        if (from == 0)
            for (size_t row = 0; row < (end - begin) * in.steps; ++row)
                for (size_t k = 0; k < vectors * lanes; k += lanes)
                    store(y + row * width + o + k, load(start + o + k));
        const Scatter add = graded ? pick_scatter<true>(vectors) : pick_scatter<false>(vectors);
        for (size_t p = begin; p < end;) {
            const size_t x = p % s.out_w(), n = end - p < s.out_w() - x ? end - p : s.out_w() - x;
            add(in, w + o, width, s, {p / s.out_w(), x, n, y + (p - begin) * width + o, y_step},
                from, to);
            p += n;
        }
    }
}

// ----------------------------------------------------------------------------------------------
// costs
//
// Nanoseconds, fitted to the times of ResNet-20's and cnn-nmnist-3x3's layers at rates of 1 to 50
// percent (nc_bench rates). Sums over events: for each output pixel and kernel row, each output
// pixel and vector of outputs, each event that reaches an output pixel, and that times the vectors.
struct SumsCost {
    double row, start, event, vector;
};
// Over all inputs: likewise, each input and vector of outputs, and each event listed.
struct DenseCost {
    double row, start, input, event;
};
struct Costs {
    SumsCost sums;
    DenseCost dense;
};

// By Adding: spikes, values, integers.
#if defined(__AVX512F__)
static constexpr Costs costs[] = {{{1.95, 2.81, 1.12, 0.043}, {7.24, 0.77, 0.145, 0.42}},
                                  {{3.46, 4.19, 0.376, 0.302}, {10.97, 0, 0.168, 0.61}},
                                  {{3.98, 2.04, 0.771, 0}, {6.11, 3.26, 0.0657, 0.83}}};
#elif defined(__AVX2__)
static constexpr Costs costs[] = {{{2.99, 1.39, 1.09, 0.093}, {3.60, 2.34, 0.156, 0.75}},
                                  {{0, 3.17, 0.267, 0.237}, {7.75, 0, 0.168, 0.43}},
                                  {{4.27, 1.40, 0.778, 0.025}, {3.98, 3.59, 0.070, 0.77}}};
#else
static constexpr Costs costs[] = {{{8.50, 0.43, 0.216, 0.240}, {8.92, 2.78, 0.207, 1.11}},
                                  {{0, 2.60, 0.371, 0.233}, {30.4, 0, 0.490, 1.51}},
                                  {{8.22, 0.54, 0.163, 0.148}, {10.98, 2.88, 0.171, 1.39}}};
#endif

struct Extent {
    double pixels, rows, vectors, inputs;  // output pixels of all steps, each one's kernel rows
    Extent(const ConvShape& s, size_t steps)
        : pixels(double(steps * s.out_h() * s.out_w())),
          rows(s.out_h() * s.out_w() == 1 ? 1 : double(s.kh)),
          vectors(double((s.cout + lanes - 1) / lanes)),
          inputs(double(s.kh * s.kw * s.cin)) {}
};

static double sums_cost(const ConvShape& s, Adding adding, size_t steps, size_t events) {
    const Extent e(s, steps);
    const SumsCost& c = costs[int(adding)].sums;
    const double reached = double(events) * e.inputs * e.pixels / double(steps * s.h * s.w * s.cin);
    return e.pixels * (e.rows * c.row + e.vectors * c.start) +
           reached * (c.event + e.vectors * c.vector);
}

static double dense_cost(const ConvShape& s, Adding adding, size_t steps, size_t events) {
    const Extent e(s, steps);
    const DenseCost& c = costs[int(adding)].dense;
    return e.pixels * (e.rows * c.row + e.vectors * (c.start + e.inputs * c.input)) +
           double(events) * c.event;
}

StageCosts stage_costs() {
    return {.sums = sums_cost, .dense = dense_cost};
}

Stages stages() {
    Stages s = {.panel = panel,
                .events = nullptr,
                .pooled = nullptr,
                .graded = nullptr,
                .expand = nullptr,
                .sums = sums,
                .dense = stages_dense(),
                .fire = stages_fire()};
    stages_events(s);
    return s;
}

}  // namespace nc::kernels::NC_ISA
