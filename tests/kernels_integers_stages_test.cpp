// The stages of a quantised network: every instruction set gives the reference's integers, up to
// the largest sums that may be.
#include <algorithm>

#include "kernels/stages.h"
#include "tests/check.h"

using namespace nc::kernels;
using namespace nc::test;

namespace {

template <class Check>
void on_stages(const Check& check) {
    size_t count = 0;
    const Table<float>* const* tables = usable(&count);
    for (size_t i = 0; i < count; ++i) {
        if (tables[i]->cuda || tables[i] == &reference()) continue;
        INFO("table " << std::string(tables[i]->name));
        check(*integer_stages(tables[i]->name));
    }
}

const IntegerStages& defined() {
    return *integer_stages("reference");
}

struct Rows {
    Guarded<uint32_t> start, index;
    SpikeRows rows;
    Rows(size_t steps, size_t h, size_t w, size_t c, size_t repeats)
        : start(steps * h * (w + 1)),
          index(steps * h * (w * c * repeats + 64)),
          rows{start.data(), index.data(), steps, h, w, c, repeats} {}
    bool ok() const { return start.ok() && index.ok(); }
};

// Whether both list the same, in any order within a pixel.
bool same(const Rows& a, const Rows& b) {
    if (a.start.values() != b.start.values()) return false;
    const SpikeRows& s = a.rows;
    for (size_t r = 0; r < s.steps * s.h; ++r)
        for (size_t x = 0; x < s.w; ++x) {
            const uint32_t* const start = s.start + r * (s.w + 1) + x;
            std::vector<uint32_t> one(s.index + start[0], s.index + start[1]);
            std::vector<uint32_t> other(b.rows.index + start[0], b.rows.index + start[1]);
            std::sort(one.begin(), one.end());
            std::sort(other.begin(), other.end());
            if (one != other) return false;
        }
    return true;
}

std::vector<uint64_t> packed(size_t rows, size_t channels, uint64_t seed, double rate) {
    const auto x = spike_values(rows * channels, seed, rate);
    std::vector<uint64_t> bits(rows * ((channels + 63) / 64));
    Queue queue;
    reference().spike.pack(queue, x.data(), bits.data(), rows, channels);
    return bits;
}

// Whole numbers within +-most; steep: nothing but most, so that sums are as large as they get.
template <class V>
std::vector<V> whole(size_t n, uint64_t seed, int64_t most, bool steep) {
    std::mt19937_64 random(seed);
    std::vector<V> out(n);
    for (V& x : out) x = V(steep ? most : int64_t(random() % uint64_t(2 * most + 1)) - most);
    return out;
}

}  // namespace

TEST_CASE("kernels integer stages: spikes and counts of pools, listed and counted") {
    const size_t steps = 3, h = 5, w = 7;
    for (const size_t c : {1, 3, 16, 63, 65, 130})
        for (const double rate : {0.0, 0.2, 1.0})
            for (const PoolShape& pool :
                 {PoolShape{1, h, w, c, 1, 1, 1, 1}, PoolShape{1, h, w, c, 2, 2, 2, 2},
                  PoolShape{1, h, w, c, 3, 3, 2, 2, 1, 1}, PoolShape{1, h, w, c, h, w, 1, 1}}) {
                INFO("c " << c << " rate " << rate << " window " << pool.kh * pool.kw);
                const auto bits = packed(steps * h * w, c, c, rate);
                const size_t oh = pool.out_h(), ow = pool.out_w(), k = pool.kh * pool.kw;
                const size_t c4 = (c + 3) / 4 * 4;
                Rows want(steps, oh, ow, c, k);
                const size_t n = defined().list(bits.data(), pool, want.rows, 0, steps * oh);
                if (rate == 1 && pool.pad_h == 0) CHECK(n == steps * oh * ow * c * k);
                Guarded<uint8_t> counts(steps * oh * ow * c4);
                defined().count(want.rows, counts, 0, steps * oh);
                on_stages([&](const IntegerStages& s) {
                    Rows got(steps, oh, ow, c, k);
                    CHECK(s.list(bits.data(), pool, got.rows, 0, 1) +
                              s.list(bits.data(), pool, got.rows, 1, steps * oh) ==
                          n);
                    CHECK(same(want, got));
                    CHECK(got.ok());
                    Guarded<uint8_t> own(counts.size());
                    s.count(got.rows, own, 0, 1);
                    s.count(got.rows, own, 1, steps * oh);
                    CHECK(own.ok());
                    CHECK(own.values() == counts.values());
                });
            }
}

TEST_CASE("kernels integer stages: sums over events and over all inputs") {
    const ConvShape shapes[] = {
        {.n = 1, .h = 6, .w = 5, .cin = 3, .kh = 3, .kw = 3, .cout = 16, .pad_h = 1, .pad_w = 1},
        {.n = 1,
         .h = 7,
         .w = 7,
         .cin = 70,
         .kh = 3,
         .kw = 3,
         .cout = 50,
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
        {.n = 1, .h = 1, .w = 1, .cin = 1300, .kh = 1, .kw = 1, .cout = 112}};
    const size_t steps = 3;
    for (const ConvShape& s : shapes)
        for (const size_t repeats : {1, 4, 100})
            for (const double rate : {0.0, 0.1, 1.0}) {
                INFO("cin " << s.cin << " cout " << s.cout << " rate " << rate << " repeats "
                            << repeats);
                const size_t inputs = s.kh * s.kw * s.cin, pixels = s.out_h() * s.out_w();
                const size_t width = (s.cout + 15) / 16 * 16, c4 = (s.cin + 3) / 4 * 4;
                const bool steep = rate == 1;  // all inputs at their most, all weights too
                auto w = whole<int16_t>(inputs * width, 1, 127, steep);
                if (steep)
                    for (size_t i = 0; i < w.size(); i += 3) w[i] = int16_t(i % 2 ? -127 : 127);
                auto bias = whole<int32_t>(width, 2, 1 << 20, false);
                std::vector<int8_t> fours(s.kh * s.kw * c4 * width);
                for (size_t i = 0; i < inputs; ++i)
                    for (size_t o = 0; o < width; ++o) {
                        const size_t row = i / s.cin * c4 + i % s.cin;
                        fours[(row / 4 * width + o) * 4 + row % 4] = int8_t(w[i * width + o]);
                    }
                Rows events(steps, s.h, s.w, s.cin, repeats);
                const SpikeRows& rows = events.rows;
                const auto set = spike_values(steps * s.h * s.w * s.cin, 3, rate);
                for (size_t r = 0; r < steps * s.h; ++r) {
                    uint32_t at = uint32_t(r * rows.slots());
                    for (size_t x = 0; x < s.w; ++x) {
                        rows.start[r * (s.w + 1) + x] = at;
                        for (size_t c = 0; c < s.cin; ++c) {
                            if (set[(r * s.w + x) * s.cin + c] == 0) continue;
                            const size_t n = steep ? repeats : 1 + (x + c) % repeats;
                            for (size_t k = 0; k < n; ++k)
                                rows.index[at++] = uint32_t(x * s.cin + c);
                        }
                    }
                    rows.start[r * (s.w + 1) + s.w] = at;
                }
                std::vector<uint8_t> x(steps * s.h * s.w * c4);
                defined().count(rows, x.data(), 0, steps * s.h);
                std::vector<int32_t> want(pixels * steps * width), all(want.size());
                defined().sums(rows, w.data(), bias.data(), width, want.data(), s, 0, pixels, 0,
                               s.kh);
                ConvShape timed = s;
                timed.n = steps;
                defined().dense(x.data(), fours.data(), bias.data(), repeats, all.data(), timed, 0,
                                steps * pixels, 0, width);
                CHECK(want == all);
                on_stages([&](const IntegerStages& stage) {
                    const size_t half = pixels / 2, upper = s.kh / 2;
                    for (const auto& [begin, end] :
                         {std::pair(size_t(0), half), std::pair(half, pixels)}) {
                        const size_t n = (end - begin) * width;  // of a step
                        Guarded<int32_t> got(steps * n);
                        for (size_t from = 0; from < s.kh;) {
                            const size_t to = from == 0 && upper > 0 ? upper : s.kh;
                            stage.sums(rows, w.data(), bias.data(), width, got, s, begin, end, from,
                                       to);
                            from = to;
                        }
                        CHECK(got.ok());
                        for (size_t t = 0; t < steps; ++t)
                            CHECK(std::equal(got.data() + t * n, got.data() + (t + 1) * n,
                                             &want[(t * pixels + begin) * width]));
                    }
                    Guarded<int32_t> flat(want.size());
                    const size_t n = steps * pixels;
                    stage.dense(x.data(), fours.data(), bias.data(), repeats, flat, timed, 0, n / 3,
                                0, width);
                    stage.dense(x.data(), fours.data(), bias.data(), repeats, flat, timed, n / 3, n,
                                0, 16);
                    stage.dense(x.data(), fours.data(), bias.data(), repeats, flat, timed, n / 3, n,
                                16, width);
                    CHECK(flat.ok());
                    CHECK(flat.values() == all);
                });
            }
}

TEST_CASE("kernels integer stages: neurons over time") {
    const size_t pixels = 3, steps = 6;
    for (const size_t channels : {1, 10, 16, 40, 64, 100, 192})
        for (int variant = 0; variant < 16; ++variant) {
            INFO("channels " << channels << " variant " << variant);
            IntegerRule rule;
            rule.dv = variant & 1 ? 2048 + 17 * (variant & 2) : 0;
            rule.compare = variant & 2 ? Compare::greater : Compare::greater_equal;
            rule.reset_to_zero = (variant & 4) != 0;
            const bool terms = (variant & 8) != 0;
            const size_t wide = (channels + 15) / 16 * 16, words = (channels + 63) / 64;
            auto x = whole<int32_t>(pixels * steps * wide, 1, 1 << 20, false);
            const auto term = whole<int32_t>(pixels * wide, 2, 5000, false);
            const auto gate = packed(steps * pixels, channels, 3, 0.5);
            const auto scale = whole<int32_t>(wide, 4, 127, false);
            std::vector<int32_t> theta(pixels * wide);
            for (size_t i = 0; i < theta.size(); ++i) theta[i] = 500000 + 70000 * int32_t(i % 5);
            auto start = whole<int32_t>(pixels * wide, 5, 1 << 28, false);
            start[0] = 0;
            x[0] = theta[0];  // a tie, for IF
            const auto run = [&](const IntegerStages& s, Guarded<int32_t>& v,
                                 Guarded<uint64_t>& bits) {
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
            Guarded<int32_t> v(start);
            Guarded<uint64_t> bits(steps * pixels * words);
            const size_t spikes = run(defined(), v, bits);
            CHECK(spikes > 0);
            on_stages([&](const IntegerStages& s) {
                Guarded<int32_t> own(start);
                Guarded<uint64_t> own_bits(bits.size());
                CHECK(run(s, own, own_bits) == spikes);
                CHECK(own.ok());
                CHECK(own_bits.ok());
                CHECK(own_bits.values() == bits.values());
                for (size_t p = 0; p < pixels; ++p)
                    CHECK(std::equal(own.data() + p * wide, own.data() + p * wide + channels,
                                     v.data() + p * wide));
            });
        }
}
