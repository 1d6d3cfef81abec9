// The stages of a compiled network: every instruction set gives the reference's bits.
#include <algorithm>

#include "tests/check.h"

using namespace nc::kernels;
using namespace nc::test;

namespace {

// Every CPU table's stages but the reference's.
template <class Check>
void on_stages(const Check& check) {
    size_t count = 0;
    const Table<float>* const* tables = usable(&count);
    for (size_t i = 0; i < count; ++i) {
        if (tables[i]->cuda || tables[i] == &reference()) continue;
        INFO("table " << std::string(tables[i]->name));
        check(*stages(tables[i]->name));
    }
}

const Stages& defined() {
    return *stages("reference");
}

struct Rows {
    Guarded<uint32_t> start, index;
    Guarded<float> value;
    EventRows rows;
    Rows(size_t steps, size_t h, size_t w, size_t c, bool graded)
        : start(steps * h * (w + 1)),
          index(steps * h * (w * c + 64)),
          value(steps * h * (w * c + 64)),
          rows{start.data(), index.data(), graded ? value.data() : nullptr, steps, h, w, c} {}
    bool ok() const { return start.ok() && index.ok() && value.ok(); }
};

// Whether both have the same events; slots behind a row's events may hold anything.
bool same_events(const Rows& a, const Rows& b) {
    if (a.start.values() != b.start.values()) return false;
    const EventRows& s = a.rows;
    for (size_t r = 0; r < s.steps * s.h; ++r) {
        const size_t first = r * s.slots(), n = a.start[r * (s.w + 1) + s.w] - first;
        if (first_difference(a.index.data() + first, b.index.data() + first, n) < n) return false;
        if (s.value == nullptr) continue;
        if (first_difference(a.value.data() + first, b.value.data() + first, n) < n) return false;
    }
    return true;
}

// [rows, words] with this rate of ones in `channels` channels.
std::vector<uint64_t> packed(size_t rows, size_t channels, uint64_t seed, double rate) {
    const auto x = spike_values(rows * channels, seed, rate);
    std::vector<uint64_t> bits(rows * ((channels + 63) / 64));
    Queue queue;
    reference().spike.pack(queue, x.data(), bits.data(), rows, channels);
    return bits;
}

// Zeros, ones, numbers and a NaN.
std::vector<float> sparse_values(size_t n, uint64_t seed) {
    auto x = hard_values(n, seed);
    const auto keep = spike_values(n, seed + 1, 0.3);
    for (size_t i = 0; i < n; ++i)
        if (keep[i] == 0) x[i] = i % 3 == 0 ? -0.0f : 0.0f;
    if (n > 5) x[5] = std::numeric_limits<float>::quiet_NaN();
    return x;
}

}  // namespace

TEST_CASE("kernels stages: events of spikes, of their averages and of floats") {
    for (const size_t c : {1, 2, 3, 16, 63, 64, 65, 130})
        for (const double rate : {0.0, 0.1, 0.6, 1.0}) {
            const size_t steps = 3, h = 5, w = 7;
            INFO("c " << c << " rate " << rate);
            const auto bits = packed(steps * h * w, c, c, rate);
            Rows want(steps, h, w, c, false);
            size_t n = defined().events(bits.data(), want.rows, 0, steps * h);
            on_stages([&](const Stages& s) {
                Rows got(steps, h, w, c, false);
                CHECK(s.events(bits.data(), got.rows, 0, 4) +
                          s.events(bits.data(), got.rows, 4, steps * h) ==
                      n);
                CHECK(same_events(want, got));
                CHECK(got.ok());
            });
            for (const PoolShape& pool :
                 {PoolShape{1, h, w, c, 2, 2, 2, 2}, PoolShape{1, h, w, c, 2, 2, 1, 2},
                  PoolShape{1, h, w, c, 3, 3, 2, 2, 1, 1}, PoolShape{1, h, w, c, h, w, 1, 1}}) {
                const size_t oh = pool.out_h(), ow = pool.out_w();
                Rows averages(steps, oh, ow, c, true);
                n = defined().pooled(bits.data(), pool, averages.rows, 0, steps * oh);
                on_stages([&](const Stages& s) {
                    Rows got(steps, oh, ow, c, true);
                    CHECK(s.pooled(bits.data(), pool, got.rows, 0, 1) +
                              s.pooled(bits.data(), pool, got.rows, 1, steps * oh) ==
                          n);
                    CHECK(same_events(averages, got));
                    CHECK(got.ok());
                });
            }
            const auto x = sparse_values(steps * h * w * c, c);
            Rows floats(steps, h, w, c, true);
            n = defined().graded(x.data(), floats.rows, 0, steps * h);
            on_stages([&](const Stages& s) {
                Rows got(steps, h, w, c, true);
                CHECK(s.graded(x.data(), got.rows, 0, steps * h) == n);
                CHECK(same_events(floats, got));
                CHECK(got.ok());
                Guarded<float> back(x.size());
                s.expand(got.rows, back, 0, steps * h);
                for (size_t i = 0; i < x.size(); ++i)  // zeros of either sign become +0
                    CHECK(std::memcmp(&back[i], &x[i], x[i] == 0 ? 0 : sizeof(float)) == 0);
                CHECK(back.ok());
            });
        }
}

TEST_CASE("kernels stages: sums over events and over all inputs") {
    const ConvShape shapes[] = {
        {.n = 1, .h = 6, .w = 5, .cin = 3, .kh = 3, .kw = 3, .cout = 16, .pad_h = 1, .pad_w = 1},
        {.n = 1,
         .h = 7,
         .w = 7,
         .cin = 70,
         .kh = 3,
         .kw = 3,
         .cout = 64,
         .stride_h = 2,
         .stride_w = 2,
         .pad_h = 1,
         .pad_w = 1},
        {.n = 1,
         .h = 9,
         .w = 8,
         .cin = 4,
         .kh = 3,
         .kw = 3,
         .cout = 48,
         .pad_h = 2,
         .pad_w = 2,
         .dilation_h = 2,
         .dilation_w = 2},
        {.n = 1, .h = 4, .w = 5, .cin = 66, .kh = 4, .kw = 5, .cout = 128},
        {.n = 1,
         .h = 2,
         .w = 2,
         .cin = 5,
         .kh = 1,
         .kw = 1,
         .cout = 32,
         .stride_h = 2,
         .stride_w = 2,
         .pad_h = 3,
         .pad_w = 3},
        {.n = 1, .h = 1, .w = 1, .cin = 300, .kh = 1, .kw = 1, .cout = 112}};
    const size_t steps = 3;
    for (const ConvShape& s : shapes)
        for (const double rate : {0.0, 0.15, 0.9})
            for (const bool graded : {false, true}) {
                INFO("cin " << s.cin << " cout " << s.cout << " rate " << rate);
                const size_t inputs = s.kh * s.kw * s.cin, pixels = s.out_h() * s.out_w();
                auto w = hard_values(inputs * s.cout, 1);
                auto bias = hard_values(s.cout, 2);
                bias[0] = -0.0f;
                auto x = spike_values(steps * s.h * s.w * s.cin, 3, rate);
                if (graded)
                    for (size_t i = 0; i < x.size(); ++i) x[i] *= float(i % 7) / 7;
                Rows events(steps, s.h, s.w, s.cin, true);
                defined().graded(x.data(), events.rows, 0, steps * s.h);
                if (!graded) events.rows.value = nullptr;
                std::vector<float> want(pixels * steps * s.cout);
                defined().sums(events.rows, w.data(), bias.data(), s.cout, want.data(), s, 0,
                               pixels, 0, s.kh);
                ConvShape timed = s;
                timed.n = steps;
                std::vector<float> all(want.size());
                Queue queue;
                reference().spike.conv_dense(queue, x.data(), w.data(), bias.data(), !graded,
                                             all.data(), timed);
                CHECK(want == all);
                on_stages([&](const Stages& stage) {
                    const size_t half = pixels / 2, rows = s.kh / 2;
                    for (const auto& [begin, end] :
                         {std::pair(size_t(0), half), std::pair(half, pixels)}) {
                        const size_t n = (end - begin) * s.cout;  // of a step
                        Guarded<float> got(steps * n);
                        for (size_t from = 0; from < s.kh;) {
                            const size_t to = from == 0 && rows > 0 ? rows : s.kh;
                            stage.sums(events.rows, w.data(), bias.data(), s.cout, got, s, begin,
                                       end, from, to);
                            from = to;
                        }
                        CHECK(got.ok());
                        for (size_t t = 0; t < steps; ++t)
                            CHECK(first_difference(got.data() + t * n,
                                                   &want[(t * pixels + begin) * s.cout], n) == n);
                    }
                    Guarded<float> flat(want.size());
                    const size_t n = steps * pixels;
                    stage.dense(x.data(), w.data(), bias.data(), !graded, flat, timed, 0, n / 3, 0,
                                s.cout);
                    stage.dense(x.data(), w.data(), bias.data(), !graded, flat, timed, n / 3, n, 0,
                                5);
                    stage.dense(x.data(), w.data(), bias.data(), !graded, flat, timed, n / 3, n, 5,
                                s.cout);
                    CHECK(flat.ok());
                    CHECK(first_difference(flat.data(), all.data(), all.size()) == all.size());
                });
            }
}

TEST_CASE("kernels stages: neurons over time") {
    const size_t pixels = 3, steps = 5;
    for (const size_t channels : {1, 10, 16, 40, 64, 100, 192})
        for (int variant = 0; variant < 16; ++variant) {
            INFO("channels " << channels << " variant " << variant);
            NeuronRule<float> rule;
            rule.beta = variant & 1 ? 0.75f : 1.0f;
            rule.compare = variant & 2 ? Compare::greater : Compare::greater_equal;
            rule.reset = variant & 4 ? Reset::to_value : Reset::subtract;
            rule.reset_value = 0.125f;
            const bool terms = (variant & 8) != 0;
            const size_t wide = (channels + 15) / 16 * 16, words = (channels + 63) / 64;
            auto x = hard_values(pixels * steps * wide, 1), term = hard_values(pixels * wide, 2);
            const auto gate = packed(steps * pixels, channels, 3, 0.5);
            const auto scale = hard_values(wide, 4);
            std::vector<float> theta(pixels * wide);
            for (size_t i = 0; i < theta.size(); ++i) theta[i] = 0.5f + 0.25f * float(i % 5);
            x[0] = theta[0];  // a tie
            auto start = normal_values(pixels * wide, 5);
            start[0] = 0;
            const auto run = [&](const Stages& s, Guarded<float>& v, Guarded<uint64_t>& bits) {
                return s.fire(rule, {.pixels = pixels,
                                     .channels = channels,
                                     .steps = steps,
                                     .x = x.data(),
                                     .x_pixel = steps * wide,
                                     .x_step = wide,
                                     .term = terms ? term.data() : nullptr,
                                     .term_pixel = wide,
                                     .term_step = 0,
                                     .gate = terms ? gate.data() : nullptr,
                                     .gate_scale = scale.data(),
                                     .theta = theta.data(),
                                     .theta_pixel = terms ? wide : 0,
                                     .v = v,
                                     .v_pixel = wide,
                                     .bits = bits,
                                     .bits_pixel = words,
                                     .bits_step = pixels * words});
            };
            Guarded<float> v(start);
            Guarded<uint64_t> bits(steps * pixels * words);
            const size_t spikes = run(defined(), v, bits);
            on_stages([&](const Stages& s) {
                Guarded<float> own(start);
                Guarded<uint64_t> own_bits(bits.size());
                CHECK(run(s, own, own_bits) == spikes);
                CHECK(own.ok());
                CHECK(own_bits.ok());
                CHECK(own_bits.values() == bits.values());
                for (size_t p = 0; p < pixels; ++p)
                    CHECK(first_difference(own.data() + p * wide, v.data() + p * wide, channels) ==
                          channels);
            });
        }
}
