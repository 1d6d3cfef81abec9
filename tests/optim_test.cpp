// Schedules, the optimisers' step by the formulas, clipping, decay and projection; a small training
// run, the same for every number of threads.
#include "autograd/optim.h"
#include "autograd/functions.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

TEST_CASE("schedules: warm-up, then down to nothing") {
    CHECK(scheduled(Schedule::constant, 2, 50, 100, 0) == 2);
    CHECK(scheduled(Schedule::cosine, 2, 0, 100, 0) == 2);
    CHECK(std::abs(scheduled(Schedule::cosine, 2, 50, 100, 0) - 1) < 1e-12);
    CHECK(scheduled(Schedule::cosine, 2, 100, 100, 0) < 1e-12);
    CHECK(scheduled(Schedule::linear, 2, 25, 100, 0) == 1.5);
    CHECK(scheduled(Schedule::step, 2, 49, 100, 0) == 2);
    CHECK(std::abs(scheduled(Schedule::step, 2, 50, 100, 0) - 0.2) < 1e-12);
    CHECK(std::abs(scheduled(Schedule::step, 2, 75, 100, 0) - 0.02) < 1e-12);
    CHECK(scheduled(Schedule::cosine, 2, 0, 100, 10) == 0.2);
    CHECK(scheduled(Schedule::cosine, 2, 9, 100, 10) == 2);
    CHECK(scheduled(Schedule::cosine, 2, 10, 100, 10) == 2);
    CHECK(scheduled(Schedule::linear, 2, 5, 5, 5) == 2);  // nothing after the warm-up
}

TEST_CASE("optimise: adamw and sgd by their formulas, decay by role") {
    Compute compute;
    OptimOptions o;
    o.lr = 0.1;
    o.threshold_lr = 0.5;
    o.weight_decay = 0.01;
    const double w0 = 2, g[] = {0.5, -0.25};
    for (const bool sgd : {false, true})
        for (const auto role : {TensorRole::weight, TensorRole::bias, TensorRole::threshold}) {
            o.kind = sgd ? OptimOptions::Kind::sgd : OptimOptions::Kind::adamw;
            Tensor value = Tensor::full<double>({1}, w0);
            Moments moments;
            double w = w0, m = 0, v = 0;
            const double lr = 0.5 * (role == TensorRole::threshold ? o.threshold_lr : o.lr);
            const double decay = role == TensorRole::weight ? o.weight_decay : 0;
            for (int step = 1; step <= 2; ++step) {
                std::vector<Parameter> p = {
                    {"a", &value, Tensor::full<double>({1}, g[step - 1]), role}};
                CHECK(optimise(compute, o, 0.5, p, moments) == std::abs(g[step - 1]));
                if (sgd) {
                    const double d = g[step - 1] + decay * w;
                    m = o.momentum * m + d;
                    w -= lr * (d + o.momentum * m);
                } else {
                    m = o.beta1 * m + (1 - o.beta1) * g[step - 1];
                    v = o.beta2 * v + (1 - o.beta2) * g[step - 1] * g[step - 1];
                    const double mh = m / (1 - std::pow(o.beta1, step));
                    const double vh = v / (1 - std::pow(o.beta2, step));
                    w -= lr * decay * w;
                    w -= lr * mh / (std::sqrt(vh) + o.eps);
                }
                CHECK(std::abs(value.item() - w) < 1e-12);
            }
            CHECK(moments.step == 2);
            CHECK(moments.tensors.count("a.m") == 1);
            CHECK(moments.tensors.count("a.v") == (sgd ? 0 : 1));
        }
}

TEST_CASE("optimise: clipping, projection, what is left alone, what is refused") {
    Compute compute;
    OptimOptions o;
    o.kind = OptimOptions::Kind::sgd;
    o.momentum = 0;
    o.nesterov = false;
    o.weight_decay = 0;
    o.lr = o.threshold_lr = 1;
    o.clip_norm = 1;
    Tensor a = Tensor::full<float>({1}, 0), b = Tensor::full<float>({2}, 0),
           theta = Tensor::full<float>({1}, 0.5f), mean = Tensor::full<float>({1}, 7),
           idle = Tensor::full<float>({1}, 3);
    std::vector<Parameter> p = {
        {"a", &a, Tensor::full<float>({1}, 3), TensorRole::weight},
        {"b", &b, Tensor::from<float>({4, 0}, {2}), TensorRole::bias},
        {"mean", &mean, Tensor::full<float>({1}, 100), TensorRole::statistic},
        {"idle", &idle, Tensor(), TensorRole::weight}};
    Moments moments;
    CHECK(optimise(compute, o, 1, p, moments) == 5);  // 3, 4: scaled by 1 / 5
    CHECK(std::abs(a.item() + 0.6) < 1e-6);
    CHECK(std::abs(b.data<float>()[0] + 0.8) < 1e-6);
    CHECK(mean.item() == 7);
    CHECK(idle.item() == 3);
    CHECK(moments.tensors.count("idle.m") == 0);
    o.clip_norm = 0;
    p = {{"theta", &theta, Tensor::full<float>({1}, 3), TensorRole::threshold}};
    optimise(compute, o, 1, p, moments);
    CHECK(theta.item() == 1e-4f);
    p = {{"a", &a, Tensor({2}), TensorRole::weight}};
    CHECK(error_of([&] { optimise(compute, o, 1, p, moments); }).find("[1] and [2]") !=
          std::string::npos);
}

namespace {

// Three training steps of conv, batch norm, neuron, pool, linear; all parameters afterwards.
std::vector<float> trained(Compute& c) {
    const auto draw = [](const Shape& shape, uint64_t seed) {
        return Tensor::from(normal_values(shape.elements(), seed, 0.3), shape);
    };
    std::vector<Tensor> values = {
        draw({3, 3, 2, 16}, 1),      Tensor::full<float>({16}, 1), draw({16}, 2),
        Tensor::full<float>({1}, 1), draw({6 * 6 * 16, 10}, 3),    draw({10}, 4)};
    const TensorRole roles[] = {TensorRole::weight,    TensorRole::norm,   TensorRole::norm,
                                TensorRole::threshold, TensorRole::weight, TensorRole::bias};
    const size_t T = 4, N = 10;
    const Tensor x = draw({T * N, 12, 12, 2}, 5);
    Moments moments;
    OptimOptions o;
    o.clip_norm = 1;
    for (int step = 0; step < 3; ++step) {
        Tape tape(c);
        std::vector<Var> p;
        for (const Tensor& value : values) p.push_back(tape.leaf(value));
        Var h = fn::conv(c, &tape, x, p[0], {}, {.pad_h = 1, .pad_w = 1});
        h = fn::batch_norm(c, &tape, h, p[1], p[2], {}, {}, 1e-5, true, nullptr);
        h = fn::neuron(c, &tape, Neuron{}, p[3], h, {.T = T}).y;
        h = fn::reshape(c, &tape, fn::average_pool(c, &tape, h, {}), {T * N, 6 * 6 * 16});
        h = fn::reshape(c, &tape, fn::linear(c, &tape, h, p[4], p[5]), {T, N, 10});
        h = fn::mean_leading(c, &tape, h);
        tape.backward(fn::cross_entropy(c, &tape, h, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 0.1));
        std::vector<Parameter> parameters;
        for (size_t i = 0; i < values.size(); ++i)
            parameters.push_back({std::to_string(i), &values[i], tape.gradient(p[i]), roles[i]});
        optimise(c, o, 1, parameters, moments);
    }
    std::vector<float> out;
    for (const Tensor& value : values)
        for (const float w : value.to_vector<float>()) out.push_back(w);
    return out;
}

}  // namespace

TEST_CASE("training: the same bits for every number of threads, on every table") {
    size_t count = 0;
    const auto* tables = kernels::usable(&count);
    for (size_t i = 0; i < count; ++i) {
        if (tables[i]->cuda) continue;
        INFO(tables[i]->name);
        Compute one(*tables[i], 1);
        const std::vector<float> wanted = trained(one);
        for (const int threads : {2, 3, 8}) {
            Compute many(*tables[i], threads);
            CHECK(trained(many) == wanted);
        }
        CHECK(trained(one) == wanted);
    }
}
