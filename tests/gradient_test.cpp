// Every differentiable function against finite differences in double; the tape itself.
#include <functional>
#include <numeric>

#include "autograd/functions.h"
#include "autograd/gradcheck.h"
#include "engine/random.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

// Normal values whose distance from every kink is at least 0.05 (finite differences reach 0.002).
Tensor smooth(const Shape& shape, uint64_t seed, const std::vector<double>& kinks = {0}) {
    std::vector<double> values = normal_values<double>(shape.elements(), seed);
    for (double& x : values)
        for (const double kink : kinks)
            if (std::abs(x - kink) < 0.05) x = kink + 0.1;
    return Tensor::from(values, shape);
}

// A permutation of well-separated values: no ties for a maximum.
Tensor distinct(const Shape& shape, uint64_t seed) {
    Random random(seed);
    std::vector<double> values;
    for (const uint32_t i : random.permutation(uint32_t(shape.elements())))
        values.push_back(0.1 * i - 1);
    return Tensor::from(values, shape);
}

// The bound: differences are good to about 1e-11 for functions of scale 1 (gradcheck.h); the
// functions here have fifth derivatives and losses up to a few hundred.
void agrees(const char* what, const Function& function, const std::vector<Tensor>& inputs) {
    Compute compute;
    const GradientCheck result = check_gradient(compute, function, inputs);
    INFO(what, ": ", result.where);
    CHECK(result.error < 1e-8);
}

}  // namespace

TEST_CASE("gradcheck: finds a wrong derivative and a missing one") {
    Compute compute;
    const Tensor x = smooth({3}, 1);
    const Function wrong = [](Compute& c, Tape* tape, const std::vector<Var>& in) {
        const Tensor y = ops::mul(c, in[0].value, in[0].value);
        if (tape == nullptr) return Var(y);
        return tape->record(y, [v = in[0]](Tape& t, const Tensor& dy) {
            t.accumulate(v, ops::mul(t.compute(), dy, v.value));  // half of 2 x dy
        });
    };
    CHECK(check_gradient(compute, wrong, {x}).error > 0.01);
    CHECK(contains(check_gradient(compute, wrong, {x}).where, "input 0 at "));
    const Function missing = [](Compute& c, Tape*, const std::vector<Var>& in) {
        return Var(ops::mul(c, in[0].value, in[0].value));
    };
    const Function sum = [&](Compute& c, Tape* tape, const std::vector<Var>& in) {
        return fn::add(c, tape, in[0], missing(c, tape, in));
    };
    CHECK(check_gradient(compute, sum, {x}).error > 0.01);
}

TEST_CASE("gradient: arithmetic, rows, reductions") {
    const Tensor a = smooth({4, 3}, 1), b = smooth({4, 3}, 2), row = smooth({3}, 3);
    agrees("add", [](auto& c, auto* t, const auto& v) { return fn::add(c, t, v[0], v[1]); },
           {a, b});
    agrees("sub", [](auto& c, auto* t, const auto& v) { return fn::sub(c, t, v[0], v[1]); },
           {a, b});
    agrees("mul", [](auto& c, auto* t, const auto& v) { return fn::mul(c, t, v[0], v[1]); },
           {a, b});
    agrees("mul with itself",
           [](auto& c, auto* t, const auto& v) { return fn::mul(c, t, v[0], v[0]); }, {a});
    agrees("scale", [](auto& c, auto* t, const auto& v) { return fn::scale(c, t, v[0], -2.5); },
           {a});
    agrees("mul_row", [](auto& c, auto* t, const auto& v) { return fn::mul_row(c, t, v[0], v[1]); },
           {a, row});
    agrees("mul_row by one value",
           [](auto& c, auto* t, const auto& v) { return fn::mul_row(c, t, v[0], v[1]); },
           {a, smooth({1}, 4)});
    agrees("reshape",
           [](auto& c, auto* t, const auto& v) {
               return fn::mul(c, t, fn::reshape(c, t, v[0], {3, 4}), v[1]);
           },
           {a, smooth({3, 4}, 5)});
    agrees("sum", [](auto& c, auto* t, const auto& v) { return fn::sum(c, t, v[0]); }, {a});
    agrees("add_steps: rows 1 and 2, then the last for the rest",
           [](auto& c, auto* t, const auto& v) { return fn::add_steps(c, t, v[0], v[1], 4, 1); },
           {smooth({8, 2, 3}, 7), smooth({3, 3}, 8)});
    agrees("mean_leading",
           [](auto& c, auto* t, const auto& v) { return fn::mean_leading(c, t, v[0]); },
           {smooth({5, 2, 3}, 6)});
    agrees("repeat_leading",
           [](auto& c, auto* t, const auto& v) { return fn::repeat_leading(c, t, v[0], 4); }, {a});
    agrees("a value used three times",
           [](auto& c, auto* t, const auto& v) {
               const Var twice = fn::add(c, t, v[0], v[0]);
               return fn::mul(c, t, fn::add(c, t, twice, v[0]), fn::sub(c, t, twice, v[1]));
           },
           {a, b});
}

TEST_CASE("gradient: activations away from their kinks") {
    using kernels::Activation;
    const Tensor x = smooth({6, 5}, 7, {0, -1, 1, 2});
    for (const auto kind :
         {Activation::relu, Activation::leaky_relu, Activation::relu6, Activation::hard_swish,
          Activation::silu, Activation::gelu, Activation::sigmoid, Activation::tanh})
        agrees("activation",
               [kind](auto& c, auto* t, const auto& v) {
                   return fn::activation(c, t, fn::scale(c, t, v[0], 3), kind, 0.1);
               },
               {x});
    agrees("prelu", [](auto& c, auto* t, const auto& v) { return fn::prelu(c, t, v[0], v[1]); },
           {x, smooth({5}, 8)});
    agrees("prelu, one slope",
           [](auto& c, auto* t, const auto& v) { return fn::prelu(c, t, v[0], v[1]); },
           {x, smooth({1}, 9)});
}

TEST_CASE("gradient: linear layers and convolutions") {
    agrees("linear",
           [](auto& c, auto* t, const auto& v) { return fn::linear(c, t, v[0], v[1], v[2]); },
           {smooth({4, 3}, 1), smooth({3, 5}, 2), smooth({5}, 3)});
    agrees("linear without bias over two leading axes",
           [](auto& c, auto* t, const auto& v) { return fn::linear(c, t, v[0], v[1], Var()); },
           {smooth({2, 3, 4}, 4), smooth({4, 2}, 5)});
    const std::vector<ops::ConvOptions> cases = {
        {},
        {.pad_h = 1, .pad_w = 1},
        {.stride_h = 2, .stride_w = 3, .pad_h = 2},
        {.pad_h = 1, .pad_w = 2, .dilation_h = 2},
        {.stride_w = 2, .pad_h = 1, .pad_w = 1, .groups = 2},
        {.pad_h = 1, .groups = 4}};
    for (const auto& o : cases)
        agrees("conv",
               [o](auto& c, auto* t, const auto& v) { return fn::conv(c, t, v[0], v[1], v[2], o); },
               {smooth({2, 5, 6, 4}, 6), smooth({3, 2, 4 / o.groups, 4}, 7), smooth({4}, 8)});
    agrees("conv without bias",
           [](auto& c, auto* t, const auto& v) { return fn::conv(c, t, v[0], v[1], Var(), {}); },
           {smooth({1, 4, 4, 2}, 9), smooth({1, 1, 2, 3}, 10)});
}

TEST_CASE("gradient: pools") {
    const Tensor x = smooth({2, 5, 5, 3}, 1);
    for (const ops::PoolOptions& o :
         {ops::PoolOptions{}, ops::PoolOptions{.kh = 3, .kw = 2, .stride_h = 1, .stride_w = 2},
          ops::PoolOptions{.kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1}}) {
        agrees("average_pool",
               [o](auto& c, auto* t, const auto& v) { return fn::average_pool(c, t, v[0], o); },
               {x});
        agrees("max_pool",
               [o](auto& c, auto* t, const auto& v) { return fn::max_pool(c, t, v[0], o); },
               {distinct({2, 5, 5, 3}, 2)});
    }
    agrees("global_average_pool",
           [](auto& c, auto* t, const auto& v) { return fn::global_average_pool(c, t, v[0]); },
           {x});
}

TEST_CASE("gradient: batch normalisation, by the batch and by constants") {
    const Tensor x = smooth({6, 2, 3}, 1), gamma = smooth({3}, 2), beta = smooth({3}, 3);
    const Tensor mean = smooth({3}, 4), variance = Tensor::from<double>({0.5, 1, 2}, {3});
    for (const bool training : {true, false}) {
        agrees("batch_norm with a ReLU",
               [&](auto& c, auto* t, const auto& v) {
                   return fn::batch_norm(c, t, v[0], v[1], v[2], mean, variance, 1e-3, training,
                                         nullptr, true);
               },
               {x, gamma, beta});
        agrees("batch_norm",
               [&](auto& c, auto* t, const auto& v) {
                   return fn::batch_norm(c, t, v[0], v[1], v[2], mean, variance, 1e-3, training,
                                         nullptr);
               },
               {x, gamma, beta});
        agrees("batch_norm, not affine",
               [&](auto& c, auto* t, const auto& v) {
                   return fn::batch_norm(c, t, v[0], Var(), Var(), mean, variance, 1e-3, training,
                                         nullptr);
               },
               {x});
    }
    Compute compute;
    fn::BatchStatistics batch;
    const Tensor rows = Tensor::from<double>({1, 10, 2, 20, 6, 30}, {3, 2});
    fn::batch_norm(compute, nullptr, rows, Var(), Var(), {}, {}, 1e-5, true, &batch);
    CHECK(batch.rows == 3);
    CHECK(batch.mean.to_vector<double>() == std::vector<double>{3, 20});
    CHECK(std::abs(batch.variance.data<double>()[0] - 14.0 / 3) < 1e-14);
    CHECK(std::abs(batch.variance.data<double>()[1] - 200.0 / 3) < 1e-13);
    CHECK(contains(error_of([&] {
                       fn::batch_norm(compute, nullptr, rows, smooth({3}, 1), smooth({3}, 1), {},
                                      {}, 1e-5, true, nullptr);
                   }),
                   "row [3] does not fit"));
    CHECK(contains(error_of([&] {
                       fn::batch_norm(compute, nullptr, Tensor({0, 2}), Var(), Var(), {}, {}, 1e-5,
                                      true, nullptr);
                   }),
                   "[0, 2]"));
}

TEST_CASE("gradient: softmax and cross-entropy with label smoothing") {
    const Tensor logits = smooth({5, 4}, 1);
    agrees("softmax", [](auto& c, auto* t, const auto& v) { return fn::softmax(c, t, v[0]); },
           {logits});
    const std::vector<int32_t> labels = {0, 3, 1, 1, 2};
    for (const double smoothing : {0.0, 0.1, 1.0})
        agrees("cross_entropy",
               [&](auto& c, auto* t, const auto& v) {
                   return fn::cross_entropy(c, t, v[0], labels, smoothing);
               },
               {logits});
    const Tensor targets = Tensor::from<double>(
        {.1, .2, .3, .4, 0, 0, 1, 0, .5, 0, .5, 0, .25, .25, .25, .25, .7, .1, .1, .1}, {5, 4});
    agrees("cross_entropy",
           [&](auto& c, auto* t, const auto& v) { return fn::cross_entropy(c, t, v[0], targets); },
           {logits});
    Compute compute;
    CHECK(contains(error_of([&] {
                       fn::cross_entropy(compute, nullptr, logits, Tensor::full<double>({5, 3}, 0));
                   }),
                   "targets [5, 3] for logits [5, 4]"));
    // Two equal logits: log 2.
    const Var even = fn::cross_entropy(compute, nullptr, Tensor::full<double>({1, 2}, 3), {1}, 0);
    CHECK(std::abs(even.value.item() - std::log(2.0)) < 1e-15);
    const auto refused = [&](const std::vector<int32_t>& wrong, double smoothing) {
        return error_of([&] { fn::cross_entropy(compute, nullptr, logits, wrong, smoothing); });
    };
    CHECK(contains(refused({0, 3, 1, 4, 2}, 0), "label 4 at 3 for 4 classes"));
    CHECK(contains(refused({0, 3, -1, 1, 2}, 0), "label -1 at 2"));
    CHECK(contains(refused({0, 3}, 0), "2 labels for logits [5, 4]"));
    CHECK(contains(refused(labels, 1.5), "smoothing"));
}

TEST_CASE("tape: misuse is named") {
    Compute compute;
    Tape tape(compute);
    const Var x = tape.leaf(Tensor::full<float>({2}, 1));
    const Var y = fn::scale(compute, &tape, x, 2);
    const Var loss = fn::sum(compute, &tape, y);
    CHECK(contains(error_of([&] { tape.gradient(x); }), "before backward"));
    CHECK(contains(error_of([&] { tape.backward(y); }), "not one element: [2]"));
    CHECK(contains(error_of([&] { tape.backward(Tensor::full<float>({1}, 1)); }), "id -1 of 3"));
    CHECK(contains(error_of([&] { tape.backward(Var(loss.value, 7)); }), "id 7 of 3"));
    CHECK(contains(error_of([&] { tape.accumulate(x, Tensor({3})); }), "[3] for a value [2]"));
    CHECK(contains(error_of([&] { tape.leaf(Tensor()); }), "without a value"));
    tape.backward(loss);
    CHECK(tape.gradient(x).to_vector<float>() == std::vector<float>{2, 2});
    CHECK(contains(error_of([&] { tape.gradient(y); }), "not a leaf"));
    CHECK(contains(error_of([&] { tape.backward(loss); }), "second time"));
    CHECK(contains(error_of([&] { fn::scale(compute, &tape, x, 2); }), "after backward"));

    Tape other(compute);
    const Var used = other.leaf(Tensor::full<float>({1}, 3));
    const Var unused = other.leaf(Tensor::full<float>({1}, 3));
    fn::scale(compute, &other, unused, 2);  // recorded, but the loss does not need it
    other.backward(fn::mul(compute, &other, used, used));
    CHECK(other.gradient(used).item() == 6);
    CHECK_FALSE(other.gradient(unused).defined());
}

TEST_CASE("tape: gradients given away are not written to") {
    Compute compute;
    Tape tape(compute);
    const Var x = tape.leaf(Tensor::full<float>({3}, 1));
    const Var a = fn::reshape(compute, &tape, x, {3, 1});
    const Var b = fn::add(compute, &tape, fn::reshape(compute, &tape, a, {3}), x);
    const Var y = fn::add(compute, &tape, b, b);  // one gradient handed to two inputs
    tape.backward(fn::sum(compute, &tape, y));
    CHECK(tape.gradient(x).to_vector<float>() == std::vector<float>{4, 4, 4});
}

TEST_CASE("tape: backward frees what it has used") {
    Compute compute;
    const size_t n = 1 << 16, bytes = n * sizeof(float);
    const size_t before = host_allocator().live_bytes();
    {
        Tape tape(compute);
        Var x = tape.leaf(Tensor::full<float>({n}, 0.5f));
        for (int i = 0; i < 20; ++i)
            x = fn::activation(compute, &tape, x, kernels::Activation::sigmoid, 0);
        const Var loss = fn::sum(compute, &tape, x);
        x = Var();
        // Each sigmoid keeps its input; the last output is nobody's.
        CHECK(host_allocator().live_bytes() - before < 21 * bytes);
        host_allocator().reset_peak();
        tape.backward(loss);
        // Going back, a gradient and its successor are alive beside what is still to be used.
        CHECK(host_allocator().peak_bytes() - before < 23 * bytes);
        CHECK(host_allocator().live_bytes() - before < 3 * bytes);
    }
    CHECK(host_allocator().live_bytes() - before < bytes);  // the compute's scratch
}
