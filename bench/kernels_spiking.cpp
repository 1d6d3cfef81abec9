// Neurons over time, and sums of packed spikes.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <random>

#include "bench/kernels.h"

namespace nc::bench {
namespace {

// ----------------------------------------------------------------------------------------------
// neuron

// One threshold for all; half of the membranes spike now and then.
struct Scan {
    Compute& compute;
    kernels::NeuronRule<float> rule;
    kernels::ScanShape shape;
    Values<float> theta = std::vector<float>{1}, v0 = std::vector<float>{0.5f},
                  amplitude = std::vector<float>{1};
    Values<float> x, dy, dx;
    Values<uint64_t> bits;

    Scan(Compute& where, bool leaky, size_t steps, size_t size)
        : compute(where),
          shape{.steps = steps, .size = size, .params = 1, .constant_input = false},
          x(random_floats(steps * size, 1, -0.5f, 1)),
          dy(random_floats(steps * size, 2)) {
        if (leaky) rule.beta = 0.5f;
        dx.resize(steps * size);
        bits.resize(steps * ((size + 63) / 64));
        bring(compute, theta, v0, amplitude, x, dy, dx, bits);
        compute.reserve(
            compute.table->neuron.backward_scratch(shape, false, compute.queue.threads));
    }
    void forward() const {
        compute.table->neuron.forward(compute.queue, rule, theta.data(), v0.data(),
                                      amplitude.data(), x.data(), nullptr, nullptr, bits.data(),
                                      shape);
    }
    void backward() const {
        compute.table->neuron.backward(compute.queue, rule, theta.data(), v0.data(),
                                       amplitude.data(), true, true, x.data(), bits.data(),
                                       dy.data(), dx.data(), nullptr, shape);
    }
    // The surrogate's slope is within 4 ulp; a step multiplies and adds a handful of such values.
    double tolerance() const { return 16 * 1.1920929e-7 * double(shape.steps); }
};

NamedCase scan_case(const std::string& name, bool leaky, bool backward) {
    const size_t steps = 4, size = size_t(1) << 21;
    return {fmt::format("neuron.{}.{}/T4-n2097152", backward ? "backward" : "forward", name),
            [=](Compute& compute) {
                auto d = std::make_shared<Scan>(compute, leaky, steps, size);
                d->forward();
                Case c;
                c.bytes = double(steps * size) * (backward ? 12.05 : 4.05);
                if (backward) {
                    c.run = [d] { d->backward(); };
                    c.outputs = {d->dx.there()};
                    c.tolerance = d->tolerance();
                } else {
                    c.run = [d] { d->forward(); };
                    c.outputs = {d->bits.there()};
                }
                return c;
            }};
}

NamedCase qcfs_case() {
    static constexpr size_t n = size_t(1) << 22, params = 64;
    struct Data {
        Values<float> x, lambda, y;
    };
    return {"neuron.qcfs/4194304", [](Compute& compute) {
                auto d = std::make_shared<Data>(Data{random_floats(n, 1, -1, 3),
                                                     random_floats(params, 2, 0.5f, 2),
                                                     std::vector<float>(n)});
                bring(compute, d->x, d->lambda, d->y);
                Case c;
                c.bytes = 8.0 * double(n);
                c.run = [d, &compute] {
                    compute.table->neuron.qcfs(compute.queue, d->x.data(), d->lambda.data(), 8,
                                               d->y.data(), n, params);
                };
                c.outputs = {d->y.there()};
                return c;
            }};
}

// ----------------------------------------------------------------------------------------------
// spike

struct Spikes {
    Compute& compute;
    Values<float> x, w, bias, y;
    Values<uint64_t> bits;

    Spikes(Compute& where, size_t rows, size_t channels, double rate, size_t weights,
           size_t outputs, size_t outs)
        : compute(where), w(random_floats(weights, 1)), bias(random_floats(outs, 2)) {
        x.resize(rows * channels);
        y.resize(outputs);
        bits.resize(rows * ((channels + 63) / 64));
        std::mt19937_64 random(3);
        std::bernoulli_distribution one(rate);
        for (float& v : x) v = one(random) ? 1.0f : 0.0f;
        bring(compute, x, w, bias, y, bits);
        compute.table->spike.pack(compute.queue, x.data(), bits.data(), rows, channels);
    }
    Case sums(double operations) const {
        Case c;
        c.operations = operations;
        c.outputs = {y.there()};
        return c;
    }
};

NamedCase linear_case(bool event, double rate) {
    static constexpr size_t rows = 256, in = 1024, out = 1024;
    const double operations = 2.0 * double(rows * in * out) * (event ? rate : 1);
    return {fmt::format("spike.linear_{}/rate-{}", event ? "event" : "dense", rate),
            [=](Compute& compute) {
                auto d =
                    std::make_shared<Spikes>(compute, rows, in, rate, in * out, rows * out, out);
                Case c = d->sums(operations);
                c.run = [d, event] {
                    const auto& spike = d->compute.table->spike;
                    if (event)
                        spike.linear_event(d->compute.queue, d->bits.data(), d->w.data(),
                                           d->bias.data(), d->y.data(), rows, 1, in, out);
                    else
                        spike.linear_dense(d->compute.queue, d->x.data(), d->w.data(),
                                           d->bias.data(), true, d->y.data(), rows, in, out);
                };
                return c;
            }};
}

NamedCase conv_case(bool event, double rate) {
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
    const double operations = 2.0 * double(pixels * 9 * s.cin * s.cout) * (event ? rate : 1);
    return {
        fmt::format("spike.conv_{}/64-128-k3-16x16-n16-rate-{}", event ? "event" : "dense", rate),
        [=](Compute& compute) {
            auto d = std::make_shared<Spikes>(compute, pixels, s.cin, rate, 9 * s.cin * s.cout,
                                              pixels * s.cout, s.cout);
            Case c = d->sums(operations);
            c.run = [d, event] {
                const auto& spike = d->compute.table->spike;
                if (event)
                    spike.conv_event(d->compute.queue, d->bits.data(), d->w.data(), d->bias.data(),
                                     d->y.data(), s);
                else
                    spike.conv_dense(d->compute.queue, d->x.data(), d->w.data(), d->bias.data(),
                                     true, d->y.data(), s);
            };
            return c;
        }};
}

NamedCase pack_case() {
    static constexpr size_t rows = 65536, channels = 64;
    return {"spike.pack/65536x64", [](Compute& compute) {
                auto d = std::make_shared<Spikes>(compute, rows, channels, 0.1, 0, 0, 0);
                Case c;
                c.bytes = double(rows) * double(channels) * 4.125;
                c.run = [d] {
                    d->compute.table->spike.pack(d->compute.queue, d->x.data(), d->bits.data(),
                                                 rows, channels);
                };
                c.outputs = {d->bits.there()};
                return c;
            }};
}

NamedCase count_case() {
    static constexpr size_t words = size_t(1) << 20;
    return {"spike.count/1048576", [](Compute& compute) {
                std::mt19937_64 random(1);
                auto bits = std::make_shared<Values<uint64_t>>();
                bits->resize(words);
                for (uint64_t& b : *bits) b = random();
                bring(compute, *bits);
                compute.reserve(compute.table->spike.count_scratch());
                Tensor result = Tensor::full<uint64_t>({1}, 0);
                Case c;
                c.bytes = 8.0 * double(words);
                c.run = [bits, result, &compute]() mutable {
                    *result.data<uint64_t>() =
                        compute.table->spike.count(compute.queue, bits->data(), words);
                };
                c.outputs = {result};
                return c;
            }};
}

}  // namespace

std::vector<NamedCase> spiking_cases() {
    std::vector<NamedCase> cases = {scan_case("if", false, false),
                                    scan_case("lif", true, false),
                                    scan_case("if", false, true),
                                    scan_case("lif", true, true),
                                    qcfs_case(),
                                    pack_case(),
                                    count_case()};
    for (double rate : {0.02, 0.1, 0.3}) {
        cases.push_back(linear_case(false, rate));
        cases.push_back(linear_case(true, rate));
    }
    for (double rate : {0.02, 0.1, 0.3}) {
        cases.push_back(conv_case(false, rate));
        cases.push_back(conv_case(true, rate));
    }
    return cases;
}

NamedCase bptt_case(bool leaky, size_t steps, size_t elements) {
    const size_t size = elements / steps;
    return {fmt::format("bptt.{}/T{}-elements{}", leaky ? "lif" : "if", steps, steps * size),
            [=](Compute& compute) {
                // The whole, or a part that the reference can do.
                const auto make = [=](Compute& where, size_t n) {
                    auto d = std::make_shared<Scan>(where, leaky, steps, n);
                    Case c;
                    c.run = [d] {
                        d->forward();
                        d->backward();
                    };
                    c.outputs = {d->bits.there(), d->dx.there()};
                    c.tolerance = d->tolerance();
                    return c;
                };
                Case c = make(compute, size);
                c.bytes = double(steps * size) * bptt_bytes;
                c.correct = [=, &compute] {
                    const size_t few = std::min(size, (size_t(1) << 20) / steps);
                    Compute reference(kernels::reference(), compute.queue.threads);
                    Case expected = make(reference, few), got = make(compute, few);
                    // Spikes bitwise, gradients within the bound.
                    const double tolerance = got.tolerance;
                    for (const size_t output : {0, 1}) {
                        Case a = expected, b = got;
                        a.outputs = {expected.outputs[output]};
                        b.outputs = {got.outputs[output]};
                        b.tolerance = output == 0 ? 0 : tolerance;
                        if (!same_outputs(a, b)) return false;
                    }
                    return true;
                };
                return c;
            }};
}

}  // namespace nc::bench
