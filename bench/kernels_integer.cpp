// Neurons in whole numbers, and sums of 8-bit weights.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <random>

#include "bench/kernels.h"

namespace nc::bench {
namespace {

using kernels::Queue;

template <class T>
std::vector<T> random_integers(size_t n, uint64_t seed, int low, int high) {
    std::mt19937_64 random(seed);
    std::uniform_int_distribution<int> uniform(low, high);
    std::vector<T> out(n);
    for (T& x : out) x = T(uniform(random));
    return out;
}

// ----------------------------------------------------------------------------------------------
// neurons: 64 channels of thresholds and biases, some of the currents make spikes

struct IntegerScan {
    kernels::IntegerRule rule;
    kernels::ScanShape shape;
    std::vector<int32_t> threshold, bias, a, u, v;
    std::vector<uint64_t> bits;

    IntegerScan(bool leaky, size_t steps, size_t size)
        : shape{.steps = steps, .size = size, .params = 64, .constant_input = false},
          threshold(random_integers<int32_t>(64, 1, 100 * 64, 900 * 64)),
          bias(random_integers<int32_t>(64, 2, -20 * 64, 20 * 64)),
          a(random_integers<int32_t>(steps * size, 3, -200, 300)),
          u(size),
          v(size),
          bits(steps * ((size + 63) / 64)) {
        if (leaky) rule.dv = 2048;
    }
    void run(const Table& t, Queue& q) {
        t.integer.scan(q, rule, threshold.data(), bias.data(), a.data(), u.data(), v.data(),
                       bits.data(), nullptr, nullptr, nullptr, shape);
    }
};

// One step, as a layer of the Loihi simulator takes: a read, u written, v read and written, a bit
// written. All steps at once: what is kept between them stays in the cache.
NamedCase scan_case(bool leaky, size_t steps) {
    const size_t size = (size_t(1) << 23) / steps;
    const double each = 4.125, state = 12;
    return {fmt::format("integer.scan.{}/T{}-n{}", leaky ? "lif" : "if", steps, size), [=] {
                auto d = std::make_shared<IntegerScan>(leaky, steps, size);
                Case c = {.operations = 0,
                          .bytes = double(steps * size) * each + double(size) * state,
                          .scratch = nullptr,
                          .run = [d](const Table& t, Queue& q) { d->run(t, q); },
                          .correct = nullptr};
                const auto reset = [d] {
                    std::fill(d->u.begin(), d->u.end(), 0);
                    std::fill(d->v.begin(), d->v.end(), 0);
                };
                c.correct = same_as_reference(c, reset,
                                              {{d->v.data(), size * sizeof(int32_t)},
                                               {d->bits.data(), d->bits.size() * sizeof(uint64_t)}},
                                              0);
                return c;
            }};
}

// ----------------------------------------------------------------------------------------------
// sums

struct IntegerSums {
    std::vector<int8_t> w;
    std::vector<int16_t> x;
    std::vector<uint64_t> bits;
    std::vector<int32_t> y;

    IntegerSums(size_t rows, size_t channels, double rate, size_t weights, size_t outputs)
        : w(random_integers<int8_t>(weights, 1, -127, 127)),
          x(rows * channels),
          bits(rows * ((channels + 63) / 64)),
          y(outputs) {
        std::mt19937_64 random(3);
        std::bernoulli_distribution one(rate);
        for (size_t i = 0; i < x.size(); ++i) {
            if (!one(random)) continue;
            x[i] = 1;
            bits[i / channels * ((channels + 63) / 64) + i % channels / 64] |= uint64_t(1)
                                                                               << i % channels % 64;
        }
    }
};

// Spikes as bits (event), or the same as counts (graded).
NamedCase sums_case(bool convolution, bool event, double rate) {
    static constexpr size_t rows = 256, in = 1024, out = 1024;
    static constexpr kernels::ConvShape s = {.n = 16,
                                             .h = 16,
                                             .w = 16,
                                             .cin = 64,
                                             .kh = 3,
                                             .kw = 3,
                                             .cout = 128,
                                             .pad_h = 1,
                                             .pad_w = 1};
    const size_t pixels = s.n * s.h * s.w;
    const std::string size = convolution ? "64-128-k3-16x16-n16-" : "";
    return {fmt::format("integer.{}_{}/{}rate-{}", convolution ? "conv" : "linear",
                        event ? "event" : "graded", size, rate),
            [=] {
                auto d = convolution
                             ? std::make_shared<IntegerSums>(pixels, s.cin, rate,
                                                             9 * s.cin * s.cout, pixels * s.cout)
                             : std::make_shared<IntegerSums>(rows, in, rate, in * out, rows * out);
                // No floor: how many additions a vector of bytes becomes is the table's affair.
                Case c = {.operations = 0,
                          .bytes = 0,
                          .scratch = nullptr,
                          .run = nullptr,
                          .correct = nullptr};
                c.run = [=](const Table& t, Queue& q) {
                    const int8_t* w = d->w.data();
                    int32_t* y = d->y.data();
                    if (convolution && event)
                        t.integer.conv_event(q, d->bits.data(), w, y, s);
                    else if (convolution)
                        t.integer.conv_graded(q, d->x.data(), w, y, s);
                    else if (event)
                        t.integer.linear_event(q, d->bits.data(), w, y, rows, 1, in, out);
                    else
                        t.integer.linear_graded(q, d->x.data(), w, y, rows, in, out);
                };
                c.correct = same_as_reference(c, nullptr,
                                              {{d->y.data(), d->y.size() * sizeof(int32_t)}}, 0);
                return c;
            }};
}

}  // namespace

std::vector<NamedCase> integer_cases() {
    std::vector<NamedCase> cases;
    for (const bool leaky : {false, true})
        for (const size_t steps : {size_t(1), size_t(16)}) cases.push_back(scan_case(leaky, steps));
    for (const bool convolution : {false, true})
        for (const bool event : {true, false}) cases.push_back(sums_case(convolution, event, 0.1));
    return cases;
}

}  // namespace nc::bench
