// Neurons in whole numbers, and sums of 8-bit weights.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <random>

#include "bench/kernels.h"

namespace nc::bench {
namespace {

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
    Values<int32_t> threshold, bias, a, u, v;
    Values<uint64_t> bits;

    IntegerScan(Compute& compute, bool leaky, size_t steps, size_t size)
        : shape{.steps = steps, .size = size, .params = 64, .constant_input = false},
          threshold(random_integers<int32_t>(64, 1, 100 * 64, 900 * 64)),
          bias(random_integers<int32_t>(64, 2, -20 * 64, 20 * 64)),
          a(random_integers<int32_t>(steps * size, 3, -200, 300)) {
        if (leaky) rule.dv = 2048;
        u.resize(size);
        v.resize(size);
        bits.resize(steps * ((size + 63) / 64));
        bring(compute, threshold, bias, a, u, v, bits);
    }
};

// One step, as a layer of the Loihi simulator takes: a read, u written, v read and written, a bit
// written. All steps at once: what is kept between them stays in the cache.
NamedCase scan_case(bool leaky, size_t steps) {
    const size_t size = (size_t(1) << 23) / steps;
    const double each = 4.125, state = 12;
    return {fmt::format("integer.scan.{}/T{}-n{}", leaky ? "lif" : "if", steps, size),
            [=](Compute& compute) {
                auto d = std::make_shared<IntegerScan>(compute, leaky, steps, size);
                Case c;
                c.bytes = double(steps * size) * each + double(size) * state;
                c.run = [d, &compute] {
                    compute.table->integer.scan(compute.queue, d->rule, d->threshold.data(),
                                                d->bias.data(), d->a.data(), d->u.data(),
                                                d->v.data(), d->bits.data(), nullptr, nullptr,
                                                nullptr, d->shape);
                };
                c.outputs = {d->v.there(), d->bits.there()};
                return c;
            }};
}

// ----------------------------------------------------------------------------------------------
// sums

struct IntegerSums {
    Values<int8_t> w;
    Values<int16_t> x;
    Values<uint64_t> bits;
    Values<int32_t> y;

    IntegerSums(Compute& compute, size_t rows, size_t channels, double rate, size_t weights,
                size_t outputs)
        : w(random_integers<int8_t>(weights, 1, -127, 127)) {
        x.resize(rows * channels);
        bits.resize(rows * ((channels + 63) / 64));
        y.resize(outputs);
        std::mt19937_64 random(3);
        std::bernoulli_distribution one(rate);
        for (size_t i = 0; i < x.size(); ++i) {
            if (!one(random)) continue;
            x[i] = 1;
            bits[i / channels * ((channels + 63) / 64) + i % channels / 64] |= uint64_t(1)
                                                                               << i % channels % 64;
        }
        bring(compute, w, x, bits, y);
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
    return {
        fmt::format("integer.{}_{}/{}rate-{}", convolution ? "conv" : "linear",
                    event ? "event" : "graded", size, rate),
        [=](Compute& compute) {
            auto d =
                convolution
                    ? std::make_shared<IntegerSums>(compute, pixels, s.cin, rate,
                                                    9 * s.cin * s.cout, pixels * s.cout)
                    : std::make_shared<IntegerSums>(compute, rows, in, rate, in * out, rows * out);
            // No floor: how many additions a vector of bytes becomes is the table's affair.
            Case c;
            c.run = [=, &compute] {
                const auto& integer = compute.table->integer;
                kernels::Queue& q = compute.queue;
                if (convolution && event)
                    integer.conv_event(q, d->bits.data(), d->w.data(), d->y.data(), s);
                else if (convolution)
                    integer.conv_graded(q, d->x.data(), d->w.data(), d->y.data(), s);
                else if (event)
                    integer.linear_event(q, d->bits.data(), d->w.data(), d->y.data(), rows, 1, in,
                                         out);
                else
                    integer.linear_graded(q, d->x.data(), d->w.data(), d->y.data(), rows, in, out);
            };
            c.outputs = {d->y.there()};
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
