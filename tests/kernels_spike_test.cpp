// The spike kernels: packing, and the canonical sums, every table against the reference bit for
// bit.
#include <cmath>

#include "tests/check.h"

using namespace nc;
using namespace nc::kernels;
using nc::test::first_difference;
using nc::test::Guarded;
using nc::test::TestQueue;

namespace {

std::vector<const Table<float>*> tables() {
    auto all = test::tables_to_test();
    all.insert(all.begin(), &reference());
    return all;
}

// Weights and biases with zeros of both signs and outliers.
std::vector<float> weights(size_t n, uint64_t seed) {
    return test::hard_values(n, seed);
}

// Pooled spikes: multiples of 1/4, most of them 0.
std::vector<float> quarters(size_t n, uint64_t seed, double rate) {
    auto x = test::spike_values(n, seed, rate);
    for (size_t i = 0; i < n; ++i) x[i] *= float(i % 4 + 1) / 4;
    return x;
}

// y of a dense kernel on this table equals the reference's.
void check_conv(const ConvShape& s, double rate, bool with_bias, int threads) {
    CAPTURE(s.n);
    CAPTURE(s.h);
    CAPTURE(s.w);
    CAPTURE(s.cin);
    CAPTURE(s.cout);
    CAPTURE(s.kh);
    CAPTURE(s.groups);
    const size_t pixels = s.n * s.h * s.w, outputs = s.n * s.out_h() * s.out_w() * s.cout;
    const auto w = weights(s.kh * s.kw * (s.cin / s.groups) * s.cout, 3);
    auto bias = weights(s.cout, 4);
    if (!bias.empty()) bias[0] = -0.0f;
    const float* const b = with_bias ? bias.data() : nullptr;
    const auto spikes = test::spike_values(pixels * s.cin, 5, rate);
    const auto pooled = quarters(pixels * s.cin, 6, rate);
    const auto analog = test::hard_values(pixels * s.cin, 7);
    const size_t words = (s.cin + 63) / 64;
    std::vector<uint64_t> bits(pixels * words);
    TestQueue one, queue(threads);
    reference().spike.pack(one, spikes.data(), bits.data(), pixels, s.cin);

    std::vector<float> want(outputs), want_pooled(outputs), want_analog(outputs);
    reference().spike.conv_dense(one, spikes.data(), w.data(), b, true, want.data(), s);
    reference().spike.conv_dense(one, pooled.data(), w.data(), b, false, want_pooled.data(), s);
    reference().spike.conv_dense(one, analog.data(), w.data(), b, false, want_analog.data(), s);
    for (const auto* table : tables()) {
        CAPTURE(table->name);
        Guarded<float> y(outputs), y_pooled(outputs), y_analog(outputs), y_event(outputs);
        table->spike.conv_dense(queue, spikes.data(), w.data(), b, true, y, s);
        table->spike.conv_dense(queue, pooled.data(), w.data(), b, false, y_pooled, s);
        table->spike.conv_dense(queue, analog.data(), w.data(), b, false, y_analog, s);
        CHECK(first_difference(y.data(), want.data(), outputs) == outputs);
        CHECK(first_difference(y_pooled.data(), want_pooled.data(), outputs) == outputs);
        CHECK(first_difference(y_analog.data(), want_analog.data(), outputs) == outputs);
        CHECK((y.ok() && y_pooled.ok() && y_analog.ok()));
        if (s.groups != 1) continue;
        table->spike.conv_event(queue, bits.data(), w.data(), b, y_event, s);
        CHECK(first_difference(y_event.data(), want.data(), outputs) == outputs);
        CHECK(y_event.ok());
    }
}

// The split sums of every table lie within their bound of the sum in double.
void check_split(const ConvShape& s, double rate, float scale, bool with_bias) {
    CAPTURE(s.n);
    CAPTURE(s.h);
    CAPTURE(s.cin);
    CAPTURE(s.cout);
    CAPTURE(s.kh);
    CAPTURE(scale);
    const size_t pixels = s.n * s.h * s.w, outputs = s.n * s.out_h() * s.out_w() * s.cout;
    auto w = weights(s.kh * s.kw * s.cin * s.cout, 3);
    for (float& v : w) v *= scale;
    auto bias = weights(s.cout, 4);
    for (float& v : bias) v *= scale;
    const auto spikes = test::spike_values(pixels * s.cin, 5, rate);
    std::vector<uint64_t> bits(pixels * ((s.cin + 63) / 64));
    TestQueue queue(2);
    reference().spike.pack(queue, spikes.data(), bits.data(), pixels, s.cin);

    const auto doubles = [](const std::vector<float>& v) {
        return std::vector<double>(v.begin(), v.end());
    };
    const auto sizes_of = [](std::vector<double> v) {
        for (double& x : v) x = std::fabs(x);
        return v;
    };
    const auto x = doubles(spikes), wide = doubles(w), wide_bias = doubles(bias);
    const auto abs_w = sizes_of(wide), abs_bias = sizes_of(wide_bias);
    std::vector<double> want(outputs), sizes(outputs), largest(s.cout);
    const auto sum = [&](const std::vector<double>& of, const std::vector<double>& from,
                         std::vector<double>& into) {
        reference_double().spike.conv_dense(
            queue, x.data(), of.data(), with_bias ? from.data() : nullptr, true, into.data(), s);
    };
    sum(wide, wide_bias, want);
    sum(abs_w, abs_bias, sizes);
    for (size_t i = 0; i < w.size(); ++i)
        largest[i % s.cout] = std::max(largest[i % s.cout], abs_w[i]);
    const double n = double(s.kh * s.kw * ((s.cin + 15) / 16 * 16)), eps = std::ldexp(1, -24);
    for (const auto* table : tables()) {
        CAPTURE(table->name);
        Guarded<float> y(outputs);
        queue.reserve(table->spike.split_scratch(s.kh * s.kw * s.cin, s.cout));
        if (s.kh == s.h && s.w == 1 && s.pad_h == 0)
            table->spike.linear_split(queue, bits.data(), w.data(),
                                      with_bias ? bias.data() : nullptr, y, s.n, s.h, s.cin,
                                      s.cout);
        else
            table->spike.conv_split(queue, bits.data(), w.data(), with_bias ? bias.data() : nullptr,
                                    y, s);
        size_t wrong = 0;
        for (size_t i = 0; i < outputs; ++i) {
            const double bound = (6 * n + 8) * eps * sizes[i] +
                                 n * (std::ldexp(largest[i % s.cout], -39) + std::ldexp(1, -149));
            wrong += !(std::fabs(y[i] - want[i]) <= bound);
        }
        CHECK(wrong == 0);
        CHECK(y.ok());
    }
}

}  // namespace

TEST_CASE("spikes pack and unpack to the same bits on every table") {
    for (const auto* table : tables())
        for (size_t rows : {size_t(0), size_t(1), size_t(5), size_t(130)})
            for (size_t channels : test::sizes) {
                CAPTURE(table->name);
                CAPTURE(rows);
                CAPTURE(channels);
                const auto x = test::hard_values(rows * channels, channels);  // -0 is no spike
                const size_t words = rows * ((channels + 63) / 64);
                Guarded<uint64_t> bits_ref(words), bits(words);
                Guarded<float> out(rows * channels);
                TestQueue one, three(3);
                reference().spike.pack(one, x.data(), bits_ref, rows, channels);
                table->spike.pack(three, x.data(), bits, rows, channels);
                CHECK(first_difference(bits.data(), bits_ref.data(), words) == words);
                table->spike.unpack(three, bits, 0.25f, out, rows, channels);
                size_t wrong = 0, set = 0;
                for (size_t i = 0; i < x.size(); ++i) {
                    wrong += out[i] != (x[i] != 0 ? 0.25f : 0.0f) || std::signbit(out[i]);
                    set += x[i] != 0;
                }
                CHECK(wrong == 0);
                three.reserve(table->spike.count_scratch());
                CHECK(table->spike.count(three, bits, words) == set);
                CHECK((bits.ok() && out.ok()));
            }
}

TEST_CASE("linear canonical sums: dense equals event equals reference, bit for bit") {
    for (size_t in : {size_t(0), size_t(1), size_t(63), size_t(64), size_t(65), size_t(1000)})
        for (size_t out : test::sizes)
            for (size_t rows : {size_t(0), size_t(1), size_t(2), size_t(7), size_t(33)}) {
                CAPTURE(in);
                CAPTURE(out);
                CAPTURE(rows);
                if (in == 1000 && out == 1000 && rows > 7) continue;  // slow, and nothing new
                const auto w = weights(in * out, in + out), bias = weights(out, 9);
                const auto x = test::spike_values(rows * in, rows, 0.3);
                const auto analog = test::hard_values(rows * in, rows);
                std::vector<uint64_t> bits(rows * ((in + 63) / 64));
                TestQueue one, two(1 + int(rows) % 3);
                reference().spike.pack(one, x.data(), bits.data(), rows, in);
                const size_t n = rows * out;
                std::vector<float> want(n), want_analog(n);
                const float* b = rows % 2 ? bias.data() : nullptr;
                reference().spike.linear_dense(one, x.data(), w.data(), b, true, want.data(), rows,
                                               in, out);
                reference().spike.linear_dense(one, analog.data(), w.data(), b, false,
                                               want_analog.data(), rows, in, out);
                for (const auto* table : tables()) {
                    CAPTURE(table->name);
                    Guarded<float> y(n), y_analog(n), y_event(n);
                    table->spike.linear_dense(two, x.data(), w.data(), b, true, y, rows, in, out);
                    table->spike.linear_dense(two, analog.data(), w.data(), b, false, y_analog,
                                              rows, in, out);
                    table->spike.linear_event(two, bits.data(), w.data(), b, y_event, rows, 1, in,
                                              out);
                    CHECK(first_difference(y.data(), want.data(), n) == n);
                    CHECK(first_difference(y_analog.data(), want_analog.data(), n) == n);
                    CHECK(first_difference(y_event.data(), want.data(), n) == n);
                    CHECK((y.ok() && y_analog.ok() && y_event.ok()));
                }
            }
}

TEST_CASE("a linear layer over packed pixels pads every pixel's channels to whole words") {
    for (size_t channels : {size_t(1), size_t(6), size_t(64), size_t(70)}) {
        const size_t rows = 5, groups = 9, out = 21, in = groups * channels;
        const auto w = weights(in * out, 1), bias = weights(out, 2);
        const auto x = test::spike_values(rows * in, 3, 0.4);
        std::vector<uint64_t> bits(rows * groups * ((channels + 63) / 64));
        TestQueue queue(2);
        reference().spike.pack(queue, x.data(), bits.data(), rows * groups, channels);
        std::vector<float> want(rows * out);
        reference().spike.linear_dense(queue, x.data(), w.data(), bias.data(), true, want.data(),
                                       rows, in, out);
        for (const auto* table : tables()) {
            CAPTURE(table->name);
            Guarded<float> y(rows * out);
            table->spike.linear_event(queue, bits.data(), w.data(), bias.data(), y, rows, groups,
                                      channels, out);
            CHECK(first_difference(y.data(), want.data(), y.size()) == y.size());
            CHECK(y.ok());
        }
    }
}

TEST_CASE("convolution canonical sums: dense equals event equals reference, bit for bit") {
    for (size_t cin : {size_t(1), size_t(2), size_t(6), size_t(64), size_t(70)})
        for (size_t cout : {size_t(1), size_t(6), size_t(16), size_t(33), size_t(64), size_t(150)})
            check_conv({.n = 2,
                        .h = 4,
                        .w = 5,
                        .cin = cin,
                        .kh = 3,
                        .kw = 3,
                        .cout = cout,
                        .pad_h = 1,
                        .pad_w = 1},
                       cin % 3 == 0 ? 0.05 : 0.5, cout % 2 == 0, 1 + int(cin) % 3);
    // One input or output channel a time, odd kernels, strides, borders, dilations.
    for (size_t k : {size_t(1), size_t(2), size_t(5)})
        for (size_t stride : {size_t(1), size_t(2), size_t(3)})
            for (size_t pad : {size_t(0), size_t(1), size_t(2)})
                for (size_t dilation : {size_t(1), size_t(2)})
                    check_conv({.n = 3,
                                .h = 9,
                                .w = 11,
                                .cin = 5,
                                .kh = k,
                                .kw = k == 5 ? 3 : k,
                                .cout = 18,
                                .stride_h = stride,
                                .stride_w = 3 - stride % 3,
                                .pad_h = pad,
                                .pad_w = 2 - pad,
                                .dilation_h = dilation,
                                .dilation_w = 3 - dilation},
                               0.3, true, 2);
    // Groups, down to one channel each; dense only.
    for (size_t groups : {size_t(2), size_t(3), size_t(6)})
        check_conv({.n = 2,
                    .h = 5,
                    .w = 5,
                    .cin = 6,
                    .kh = 3,
                    .kw = 3,
                    .cout = 36,
                    .pad_h = 1,
                    .pad_w = 1,
                    .groups = groups},
                   0.4, true, 3);
    // More weights than a slab holds, more inputs in a run than the zero row has, one pixel only.
    check_conv(
        {.n = 1, .h = 3, .w = 3, .cin = 300, .kh = 3, .kw = 3, .cout = 130, .pad_h = 1, .pad_w = 1},
        0.2, true, 2);
    check_conv({.n = 1, .h = 3, .w = 3, .cin = 1100, .kh = 3, .kw = 3, .cout = 17}, 0.2, false, 2);
    // Pixels enough for slabs of weights in a card's shared memory: of several taps, of whole
    // words.
    for (size_t cout : {size_t(5), size_t(40)})
        check_conv({.n = 2,
                    .h = 46,
                    .w = 47,
                    .cin = 13,
                    .kh = 3,
                    .kw = 2,
                    .cout = cout,
                    .pad_h = 1,
                    .pad_w = 1},
                   0.2, cout == 5, 2);
    check_conv({.n = 2, .h = 30, .w = 37, .cin = 70, .kh = 1, .kw = 2, .cout = 130}, 0.2, true, 2);
    // And for the larger tiles of the dense sum.
    check_conv({.n = 1, .h = 121, .w = 123, .cin = 3, .kh = 1, .kw = 1, .cout = 72}, 0.2, true, 2);
    // Empty things.
    check_conv({.n = 0, .h = 4, .w = 4, .cin = 3, .kh = 3, .kw = 3, .cout = 5}, 0.5, true, 1);
    check_conv({.n = 2, .h = 4, .w = 4, .cin = 0, .kh = 3, .kw = 3, .cout = 5}, 0.5, true, 1);
    check_conv({.n = 2, .h = 4, .w = 4, .cin = 3, .kh = 3, .kw = 3, .cout = 0}, 0.5, true, 1);
}

TEST_CASE("a canonical sum of nothing is +0, whatever the bias's zero") {
    for (const auto* table : tables()) {
        CAPTURE(table->name);
        const std::vector<float> x = {0, 0}, w = {-0.0f, 1, -2, -0.0f}, bias = {-0.0f, 0.0f};
        Guarded<uint64_t> bits(std::vector<uint64_t>{0});
        Guarded<float> y(2);
        TestQueue queue;
        for (const float* b : {static_cast<const float*>(nullptr), bias.data()})
            for (bool binary : {false, true}) {
                table->spike.linear_dense(queue, x.data(), w.data(), b, binary, y, 1, 2, 2);
                CHECK(first_difference(y.data(), x.data(), 2) == 2);
                table->spike.linear_event(queue, bits, w.data(), b, y, 1, 1, 2, 2);
                CHECK(first_difference(y.data(), x.data(), 2) == 2);
            }
    }
}

TEST_CASE("split spike sums lie within their bound of the sum in double") {
    const ConvShape conv = {
        .n = 2, .h = 4, .w = 5, .cin = 20, .kh = 3, .kw = 3, .cout = 10, .pad_h = 1, .pad_w = 1};
    // Weights as they are, beyond fp16's range on both sides, denormals.
    for (float scale : {1.0f, 1e6f, 1e30f, 1e-9f, 1e-30f, 1e-41f})
        check_split(conv, 0.3, scale, true);
    for (size_t cin : {size_t(1), size_t(15), size_t(16), size_t(17), size_t(64), size_t(130)})
        for (size_t cout : {size_t(1), size_t(8), size_t(65)})
            check_split({.n = 3, .h = 7, .w = 7, .cin = cin, .kh = 3, .kw = 3, .cout = cout}, 0.5,
                        1, cin % 2 == 0);
    check_split({.n = 1,
                 .h = 9,
                 .w = 8,
                 .cin = 5,
                 .kh = 2,
                 .kw = 3,
                 .cout = 18,
                 .stride_h = 2,
                 .stride_w = 3,
                 .pad_h = 2,
                 .pad_w = 1,
                 .dilation_h = 2},
                0.2, 1, true);
    for (size_t groups : {size_t(1), size_t(9)})  // linear
        for (size_t rows : {size_t(1), size_t(130)})
            check_split(
                {.n = rows, .h = groups, .w = 1, .cin = 70, .kh = groups, .kw = 1, .cout = 33}, 0.2,
                1, true);
    for (const ConvShape& s :
         {ConvShape{.n = 0, .h = 1, .w = 1, .cin = 3, .kh = 1, .kw = 1, .cout = 4},
          ConvShape{.n = 2, .h = 1, .w = 1, .cin = 0, .kh = 1, .kw = 1, .cout = 4},
          ConvShape{.n = 2, .h = 1, .w = 1, .cin = 3, .kh = 1, .kw = 1, .cout = 0}})
        check_split(s, 0.5, 1, true);
}
