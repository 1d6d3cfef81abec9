// Neurons over time, and sums of packed spikes.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <random>

#include "bench/kernels.h"

namespace nc::bench {
namespace {

using kernels::Queue;

// ----------------------------------------------------------------------------------------------
// neuron

// One threshold for all; half of the membranes spike now and then.
struct Scan {
    kernels::NeuronRule<float> rule;
    kernels::ScanShape shape;
    float theta = 1, v0 = 0.5f, amplitude = 1;
    std::vector<float> x, dy, dx;
    std::vector<uint64_t> bits;

    Scan(bool leaky, size_t steps, size_t size)
        : shape{.steps = steps, .size = size, .params = 1, .constant_input = false},
          x(random_floats(steps * size, 1, -0.5f, 1)),
          dy(random_floats(steps * size, 2)),
          dx(steps * size),
          bits(steps * ((size + 63) / 64)) {
        if (leaky) rule.beta = 0.5f;
    }
    void forward(const Table& t, Queue& q) {
        t.neuron.forward(q, rule, &theta, &v0, &amplitude, x.data(), nullptr, nullptr, bits.data(),
                         shape);
    }
    void backward(const Table& t, Queue& q) {
        t.neuron.backward(q, rule, &theta, &v0, &amplitude, true, true, x.data(), bits.data(),
                          dy.data(), dx.data(), nullptr, shape);
    }
    size_t scratch(const Table& t, int threads) const {
        return t.neuron.backward_scratch(shape, false, threads);
    }
    Output spikes() const { return {bits.data(), bits.size() * sizeof(uint64_t)}; }
    Output gradient() const { return {dx.data(), dx.size() * sizeof(float)}; }
};

// The surrogate's slope is within 4 ulp; a step multiplies and adds a handful of such values.
double gradient_tolerance(size_t steps) {
    return 16 * 1.1920929e-7 * double(steps);
}

NamedCase scan_case(const std::string& name, bool leaky, bool backward) {
    const size_t steps = 4, size = size_t(1) << 21;
    return {fmt::format("neuron.{}.{}/T4-n2097152", backward ? "backward" : "forward", name), [=] {
                auto d = std::make_shared<Scan>(leaky, steps, size);
                Scratch s(1, 0);
                d->forward(kernels::reference(), s.queue);
                Case c = {.operations = 0,
                          .bytes = double(steps * size) * (backward ? 12.05 : 4.05),
                          .scratch = nullptr,
                          .run = nullptr,
                          .correct = nullptr};
                if (backward) {
                    c.scratch = [d](const Table& t, int n) { return d->scratch(t, n); };
                    c.run = [d](const Table& t, Queue& q) { d->backward(t, q); };
                    c.correct =
                        same_as_reference(c, nullptr, {d->gradient()}, gradient_tolerance(steps));
                } else {
                    c.run = [d](const Table& t, Queue& q) { d->forward(t, q); };
                    c.correct = same_as_reference(c, nullptr, {d->spikes()}, 0);
                }
                return c;
            }};
}

NamedCase qcfs_case() {
    static constexpr size_t n = size_t(1) << 22, params = 64;
    struct Data {
        std::vector<float> x, lambda, y;
    };
    return {"neuron.qcfs/4194304", [] {
                auto d = std::make_shared<Data>(Data{random_floats(n, 1, -1, 3),
                                                     random_floats(params, 2, 0.5f, 2),
                                                     std::vector<float>(n)});
                Case c = {.operations = 0,
                          .bytes = 8.0 * double(n),
                          .scratch = nullptr,
                          .run =
                              [d](const Table& t, Queue& q) {
                                  t.neuron.qcfs(q, d->x.data(), d->lambda.data(), 8, d->y.data(), n,
                                                params);
                              },
                          .correct = nullptr};
                c.correct =
                    same_as_reference(c, nullptr, {{d->y.data(), d->y.size() * sizeof(float)}}, 0);
                return c;
            }};
}

// ----------------------------------------------------------------------------------------------
// spike

struct Spikes {
    std::vector<float> x, w, bias, y;
    std::vector<uint64_t> bits;
    size_t rows, channels;

    Spikes(size_t rows_, size_t channels_, double rate, size_t weights, size_t outputs, size_t outs)
        : x(rows_ * channels_),
          w(random_floats(weights, 1)),
          bias(random_floats(outs, 2)),
          y(outputs),
          bits(rows_ * ((channels_ + 63) / 64)),
          rows(rows_),
          channels(channels_) {
        std::mt19937_64 random(3);
        std::bernoulli_distribution one(rate);
        for (float& v : x) v = one(random) ? 1.0f : 0.0f;
        Scratch s(1, 0);
        kernels::reference().spike.pack(s.queue, x.data(), bits.data(), rows, channels);
    }
    Output sums() const { return {y.data(), y.size() * sizeof(float)}; }
};

NamedCase linear_case(bool event, double rate) {
    static constexpr size_t rows = 256, in = 1024, out = 1024;
    const double operations = 2.0 * double(rows * in * out) * (event ? rate : 1);
    return {fmt::format("spike.linear_{}/rate-{}", event ? "event" : "dense", rate), [=] {
                auto d = std::make_shared<Spikes>(rows, in, rate, in * out, rows * out, out);
                Case c = {.operations = operations,
                          .bytes = 0,
                          .scratch = nullptr,
                          .run = nullptr,
                          .correct = nullptr};
                if (event)
                    c.run = [d](const Table& t, Queue& q) {
                        t.spike.linear_event(q, d->bits.data(), d->w.data(), d->bias.data(),
                                             d->y.data(), rows, 1, in, out);
                    };
                else
                    c.run = [d](const Table& t, Queue& q) {
                        t.spike.linear_dense(q, d->x.data(), d->w.data(), d->bias.data(), true,
                                             d->y.data(), rows, in, out);
                    };
                c.correct = same_as_reference(c, nullptr, {d->sums()}, 0);
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
        [=] {
            auto d = std::make_shared<Spikes>(pixels, s.cin, rate, 9 * s.cin * s.cout,
                                              pixels * s.cout, s.cout);
            Case c = {.operations = operations,
                      .bytes = 0,
                      .scratch = nullptr,
                      .run = nullptr,
                      .correct = nullptr};
            if (event)
                c.run = [d](const Table& t, Queue& q) {
                    t.spike.conv_event(q, d->bits.data(), d->w.data(), d->bias.data(), d->y.data(),
                                       s);
                };
            else
                c.run = [d](const Table& t, Queue& q) {
                    t.spike.conv_dense(q, d->x.data(), d->w.data(), d->bias.data(), true,
                                       d->y.data(), s);
                };
            c.correct = same_as_reference(c, nullptr, {d->sums()}, 0);
            return c;
        }};
}

NamedCase pack_case() {
    static constexpr size_t rows = 65536, channels = 64;
    return {"spike.pack/65536x64", [] {
                auto d = std::make_shared<Spikes>(rows, channels, 0.1, 0, 0, 0);
                Case c = {.operations = 0,
                          .bytes = double(rows) * double(channels) * 4.125,
                          .scratch = nullptr,
                          .run =
                              [d](const Table& t, Queue& q) {
                                  t.spike.pack(q, d->x.data(), d->bits.data(), rows, channels);
                              },
                          .correct = nullptr};
                c.correct = same_as_reference(
                    c, nullptr, {{d->bits.data(), d->bits.size() * sizeof(uint64_t)}}, 0);
                return c;
            }};
}

NamedCase count_case() {
    struct Data {
        std::vector<uint64_t> bits;
        uint64_t result = 0;
    };
    return {"spike.count/1048576", [] {
                auto d = std::make_shared<Data>();
                std::mt19937_64 random(1);
                d->bits.resize(1 << 20);
                for (uint64_t& b : d->bits) b = random();
                Case c = {.operations = 0,
                          .bytes = 8.0 * double(d->bits.size()),
                          .scratch = [](const Table& t, int) { return t.spike.count_scratch(); },
                          .run =
                              [d](const Table& t, Queue& q) {
                                  d->result = t.spike.count(q, d->bits.data(), d->bits.size());
                              },
                          .correct = nullptr};
                c.correct = same_as_reference(c, nullptr, {{&d->result, sizeof d->result}}, 0);
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
    return {fmt::format("bptt.{}/T{}-elements{}", leaky ? "lif" : "if", steps, steps * size), [=] {
                auto d = std::make_shared<Scan>(leaky, steps, size);
                Case c = {.operations = 0,
                          .bytes = double(steps * size) * bptt_bytes,
                          .scratch = [d](const Table& t, int n) { return d->scratch(t, n); },
                          .run =
                              [d](const Table& t, Queue& q) {
                                  d->forward(t, q);
                                  d->backward(t, q);
                              },
                          .correct = nullptr};
                c.correct = [=](const Table& table, int threads) {
                    auto few = std::make_shared<Scan>(leaky, steps,
                                                      std::min(size, (size_t(1) << 20) / steps));
                    Case sample = c;
                    sample.run = [few](const Table& t, Queue& q) {
                        few->forward(t, q);
                        few->backward(t, q);
                    };
                    sample.scratch = [few](const Table& t, int n) { return few->scratch(t, n); };
                    return same_as_reference(sample, nullptr, {few->spikes()}, 0)(table, threads) &&
                           same_as_reference(sample, nullptr, {few->gradient()},
                                             gradient_tolerance(steps))(table, threads);
                };
                return c;
            }};
}

}  // namespace nc::bench
