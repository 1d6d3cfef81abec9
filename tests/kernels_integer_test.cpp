// The integer kernels: every table against the reference, bit for bit.
#include "tests/check.h"

using namespace nc;
using namespace nc::kernels;
using nc::test::first_difference;
using nc::test::Guarded;
using nc::test::TestQueue;

namespace {

std::vector<int32_t> integers(size_t n, uint64_t seed, int32_t low, int32_t high) {
    std::mt19937_64 random(seed);
    std::uniform_int_distribution<int32_t> any(low, high);
    std::vector<int32_t> out(n);
    for (auto& x : out) x = any(random);
    return out;
}

std::vector<int8_t> weights(size_t n, uint64_t seed) {
    std::vector<int8_t> out;
    for (const int32_t w : integers(n, seed, -128, 127)) out.push_back(int8_t(w));
    return out;
}

std::vector<int16_t> events(size_t n, uint64_t seed) {
    std::vector<int16_t> out;
    for (const int32_t x : integers(n, seed, -300, 255)) out.push_back(int16_t(std::max(x, -128)));
    return out;
}

struct Case {
    IntegerRule rule;
    ScanShape shape;
    int32_t reach;  // of the weighted sums
    bool traced;
};

void check_scan(const Table<float>& table, const Case& c, uint64_t seed, int threads) {
    const ScanShape& s = c.shape;
    const size_t words = (s.size + 63) / 64;
    const auto threshold = integers(s.params, seed, 1, 1 << 20);
    auto bias = integers(s.params, seed + 1, -(1 << 15), 1 << 15);
    if (seed % 3 == 0) bias[0] = threshold[0];  // spikes without input
    auto a = integers((s.constant_input ? 1 : s.steps) * s.size, seed + 2, -c.reach, c.reach);
    // Sums that reach the threshold exactly, and the registers' ends.
    for (size_t i = 0; i < a.size(); ++i) {
        if (i % 7 == 0) a[i] = threshold[i % s.size % s.params] / 64;
        if (i % 11 == 0) a[i] = i % 2 == 0 ? 1 << 17 : -(1 << 17);
    }
    const auto u0 = integers(s.size, seed + 3, -(1 << 22), 1 << 22);
    const auto v0 = integers(s.size, seed + 4, -(1 << 22), 1 << 22);
    struct Result {
        Guarded<int32_t> u, v, u_trace, v_trace;
        Guarded<uint64_t> bits, events;
    };
    const auto run = [&](const Table<float>& t, Queue& queue) {
        Result r{Guarded<int32_t>(u0),
                 Guarded<int32_t>(v0),
                 Guarded<int32_t>(s.steps * s.size),
                 Guarded<int32_t>(s.steps * s.size),
                 Guarded<uint64_t>(s.steps * words),
                 Guarded<uint64_t>(std::vector<uint64_t>{3, 5})};
        t.integer.scan(queue, c.rule, threshold.data(), bias.data(), a.data(), r.u, r.v,
                       c.traced ? r.bits.data() : nullptr, c.traced ? r.u_trace.data() : nullptr,
                       c.traced ? r.v_trace.data() : nullptr, c.traced ? r.events.data() : nullptr,
                       s);
        return r;
    };
    TestQueue one, queue(threads);
    const Result want = run(reference(), one), got = run(table, queue);
    const auto equal = [](const auto& x, const auto& y) {
        return x.ok() && first_difference(x.data(), y.data(), x.size()) == x.size();
    };
    CHECK(equal(got.u, want.u));
    CHECK(equal(got.v, want.v));
    CHECK(equal(got.u_trace, want.u_trace));
    CHECK(equal(got.v_trace, want.v_trace));
    CHECK(equal(got.bits, want.bits));
    CHECK(equal(got.events, want.events));
    if (c.traced && s.size >= 64 && s.steps > 2) CHECK(want.events[1] > 5);
}

}  // namespace

TEST_CASE("integer scan equals the reference: every rule, decays, wraps and clips") {
    for (const auto* table : test::tables_to_test()) {
        CAPTURE(table->name);
        uint64_t seed = 0;
        for (const size_t size : test::sizes)
            for (const size_t steps : {0, 1, 5})
                for (const int kind : {0, 1, 2, 3, 4, 5, 6, 7}) {
                    Case c = {};
                    c.rule.compare = kind % 2 == 0 ? Compare::greater_equal : Compare::greater;
                    c.rule.reset_to_zero = kind / 2 % 2 == 1;
                    if (kind > 2) c.rule.du = int32_t(seed * 131 % 4097) - 1;
                    if (kind > 1) c.rule.dv = int32_t(seed * 71 % 4096);
                    const size_t params[] = {1, 3, 64, std::max<size_t>(size, 1)};
                    c.shape = {steps, size, params[seed % 4], kind == 5};
                    c.reach = 1 << 16;
                    c.traced = kind != 4;
                    CAPTURE(size);
                    CAPTURE(kind);
                    ++seed;
                    check_scan(*table, c, seed, 1 + int(seed % 3));
                }
    }
}

TEST_CASE("integer sums of spikes and graded events equal the reference") {
    for (const auto* table : test::tables_to_test()) {
        CAPTURE(table->name);
        TestQueue one, two(2);
        for (const size_t in : {size_t(0), size_t(1), size_t(64), size_t(70), size_t(200)})
            for (const size_t out : test::sizes)
                for (const size_t rows : {size_t(0), size_t(1), size_t(5)}) {
                    if (test::is_emulated(*table) && in * out * rows > 20000)
                        continue;  // slow in emulation
                    CAPTURE(in);
                    CAPTURE(out);
                    const auto w = weights(in * out, in + out);
                    const auto x = events(rows * in, rows);
                    const auto spikes = test::spike_values(rows * in, rows, 0.3);
                    std::vector<uint64_t> bits(rows * ((in + 63) / 64));
                    reference().spike.pack(one, spikes.data(), bits.data(), rows, in);
                    std::vector<int32_t> want(rows * out), want_events(rows * out);
                    Guarded<int32_t> y(rows * out), y_events(rows * out);
                    reference().integer.linear_graded(one, x.data(), w.data(), want.data(), rows,
                                                      in, out);
                    reference().integer.linear_event(one, bits.data(), w.data(), want_events.data(),
                                                     rows, 1, in, out);
                    table->integer.linear_graded(two, x.data(), w.data(), y, rows, in, out);
                    table->integer.linear_event(two, bits.data(), w.data(), y_events, rows, 1, in,
                                                out);
                    CHECK(y.values() == want);
                    CHECK(y_events.values() == want_events);
                    CHECK((y.ok() && y_events.ok()));
                }
    }
}

TEST_CASE("an integer sum of several groups pads every group's channels to whole words") {
    const size_t rows = 3, groups = 4, channels = 70, out = 9, words = 2;
    const auto w = weights(groups * channels * out, 1);
    const auto spikes = test::spike_values(rows * groups * channels, 2, 0.3);
    std::vector<uint64_t> bits(rows * groups * words);
    TestQueue one, two(2);
    reference().spike.pack(one, spikes.data(), bits.data(), rows * groups, channels);
    std::vector<int16_t> x;
    for (const float v : spikes) x.push_back(int16_t(v));
    std::vector<int32_t> want(rows * out);
    reference().integer.linear_graded(one, x.data(), w.data(), want.data(), rows, groups * channels,
                                      out);
    auto all = test::tables_to_test();
    all.push_back(&reference());
    for (const auto* table : all) {
        CAPTURE(table->name);
        Guarded<int32_t> y(rows * out);
        table->integer.linear_event(two, bits.data(), w.data(), y, rows, groups, channels, out);
        CHECK(y.values() == want);
        CHECK(y.ok());
    }
}

TEST_CASE("integer convolutions equal the reference, and the float sum of the same integers") {
    const ConvShape shapes[] = {
        {.n = 2, .h = 6, .w = 5, .cin = 3, .kh = 3, .kw = 3, .cout = 7, .pad_h = 1, .pad_w = 1},
        {.n = 1,
         .h = 7,
         .w = 7,
         .cin = 70,
         .kh = 3,
         .kw = 3,
         .cout = 65,
         .stride_h = 2,
         .stride_w = 2,
         .pad_h = 1,
         .pad_w = 1},
        {.n = 1, .h = 5, .w = 6, .cin = 4, .kh = 5, .kw = 1, .cout = 64, .pad_h = 2},
        {.n = 1,
         .h = 8,
         .w = 8,
         .cin = 8,
         .kh = 2,
         .kw = 3,
         .cout = 12,
         .pad_w = 2,
         .dilation_h = 2,
         .groups = 4},
        {.n = 1, .h = 4, .w = 4, .cin = 6, .kh = 3, .kw = 3, .cout = 6, .groups = 6},
        {.n = 0, .h = 4, .w = 4, .cin = 6, .kh = 3, .kw = 3, .cout = 6},
    };
    for (const auto* table : test::tables_to_test())
        for (const ConvShape& s : shapes) {
            CAPTURE(table->name);
            CAPTURE(s.cin);
            const size_t pixels = s.n * s.h * s.w;
            const size_t outputs = s.n * s.out_h() * s.out_w() * s.cout;
            const auto w = weights(s.kh * s.kw * s.cin / s.groups * s.cout, 1);
            const auto x = events(pixels * s.cin, 2);
            const auto spikes = test::spike_values(pixels * s.cin, 3, 0.3);
            std::vector<uint64_t> bits(pixels * ((s.cin + 63) / 64));
            TestQueue one, two(2);
            reference().spike.pack(one, spikes.data(), bits.data(), pixels, s.cin);
            std::vector<int32_t> want(outputs), want_events(outputs);
            Guarded<int32_t> y(outputs), y_events(outputs);
            reference().integer.conv_graded(one, x.data(), w.data(), want.data(), s);
            table->integer.conv_graded(two, x.data(), w.data(), y, s);
            CHECK(y.values() == want);
            const std::vector<float> x_float(x.begin(), x.end()), w_float(w.begin(), w.end());
            std::vector<float> y_float(outputs);
            reference().spike.conv_dense(one, x_float.data(), w_float.data(), nullptr, false,
                                         y_float.data(), s);
            CHECK(std::equal(want.begin(), want.end(), y_float.begin(),
                             [](int32_t i, float f) { return float(i) == f; }));
            if (s.groups != 1) continue;
            reference().integer.conv_event(one, bits.data(), w.data(), want_events.data(), s);
            table->integer.conv_event(two, bits.data(), w.data(), y_events, s);
            CHECK(y_events.values() == want_events);
            CHECK((y.ok() && y_events.ok()));
        }
}
