// QCFS by its stated gradient, spiking neurons by recurrences and by forward-mode differentiation,
// and the block that computes its currents again against the plain path.
#include <utility>

#include "autograd/functions.h"
#include "autograd/recompute.h"
#include "tests/check.h"
#include "tests/neuron_recurrences.h"

using namespace nc;
using namespace nc::test;
using kernels::Reset;
using kernels::Surrogate;

namespace {

template <class F>
Tensor normal(const Shape& shape, uint64_t seed, double scale = 1, double shift = 0) {
    std::vector<F> values = normal_values<F>(shape.elements(), seed, scale);
    for (F& x : values) x += F(shift);
    return Tensor::from(values, shape);
}

// sum(y * weights) on the tape.
Var weighted(Compute& compute, Tape& tape, const Var& y, const Tensor& weights) {
    return fn::sum(compute, &tape, fn::mul(compute, &tape, y, weights));
}

double largest_difference(const Tensor& a, const Tensor& b) {
    double out = a.shape() == b.shape() ? 0 : 1e300;
    for (size_t i = 0; i < a.elements() && out < 1e300; ++i) {
        const Tensor fa = a.reshape(Shape{a.elements()}), fb = b.reshape(Shape{b.elements()});
        out = std::max(out, std::abs(fa.slice(i, i + 1).item() - fb.slice(i, i + 1).item()));
    }
    return out;
}

}  // namespace

TEST_CASE("qcfs: value and straight-through gradient by the formula") {
    Compute compute;
    for (const size_t params : {size_t(1), size_t(3)})
        for (const int L : {1, 4, 8}) {
            const Tensor x = normal<double>({7, 3}, 1, 1.5);
            const Tensor lambda = normal<double>({params}, 2, 0.2, 1.3);
            const Tensor g = normal<double>({7, 3}, 3);
            Tape tape(compute);
            const Var vx = tape.leaf(x), vl = tape.leaf(lambda);
            const Var y = fn::qcfs(compute, &tape, vx, vl, L);
            tape.backward(weighted(compute, tape, y, g));
            std::vector<double> dlambda(params);
            for (size_t i = 0; i < 21; ++i) {
                const double l = lambda.data<double>()[i % params], q = x.data<double>()[i] / l;
                const double level = std::floor(L * std::clamp(q, 0.0, 1.0) + 0.5);
                const double mask = q >= 0 && q <= 1 ? 1 : 0, gi = g.data<double>()[i];
                CHECK(y.value.data<double>()[i] == l * level / L);
                CHECK(tape.gradient(vx).data<double>()[i] == mask * gi);
                dlambda[i % params] += gi * (level / L - q * mask);
            }
            for (size_t p = 0; p < params; ++p)
                CHECK(std::abs(tape.gradient(vl).data<double>()[p] - dlambda[p]) < 1e-13);
        }
    CHECK(contains(
        error_of([&] {
            fn::qcfs(compute, nullptr, normal<float>({2, 3}, 1), Tensor::full<float>({2}, 1), 4);
        }),
        "row [2] does not fit the last size of [2, 3]"));
}

// d(sum_t g_t y_t) along a direction of x and theta, differentiating the recurrence forward: the
// spike's derivative is the surrogate's.
static double tangent(const Neuron& node, double theta, double v0, const std::vector<double>& x,
                      const std::vector<double>& g, const std::vector<double>& x_dot,
                      double theta_dot) {
    const auto& rule = node.rule;
    const bool scaled = node.amplitude == Neuron::Amplitude::theta;
    const double amplitude = scaled ? theta : 1, amplitude_dot = scaled ? theta_dot : 0;
    double v = v0, v_dot = node.v0.defined() ? 0 : node.v0_fraction * theta_dot, out = 0;
    for (size_t t = 0; t < x.size(); ++t) {
        const double a = rule.beta * v + x[t], a_dot = rule.beta * v_dot + x_dot[t];
        const double s = a >= theta, s_dot = sigma(rule, a - theta, theta) * (a_dot - theta_dot);
        const double seen = rule.detach_reset ? 0 : s_dot;  // by the reset
        out += g[t] * (amplitude * s_dot + amplitude_dot * s);
        if (rule.reset == Reset::subtract) {
            v = a - theta * s;
            v_dot = a_dot - theta * seen - theta_dot * s;
        } else {
            v = s > 0 ? rule.reset_value : a;
            v_dot = a_dot * (1 - s) + (rule.reset_value - a) * seen;
        }
    }
    return out;
}

static void check_neuron(const Neuron& node, size_t params, bool constant) {
    const size_t T = 6, N = 2, C = 3, size = N * C;
    Compute compute;
    const Tensor theta = normal<double>({params}, 1, 0.1, 1.0);
    const Tensor x = normal<double>({constant ? N : T * N, C}, 2, 0.8, 0.4);
    const Tensor g = normal<double>({T * N, C}, 3);
    Tape tape(compute);
    const Var vt = tape.leaf(theta), vx = tape.leaf(x);
    const fn::Spikes out =
        fn::neuron(compute, &tape, node, vt, vx, {.T = T, .constant_input = constant});
    REQUIRE(out.y.shape() == Shape{T * N, C});
    REQUIRE(out.bits.shape() == Shape{T, 1});
    tape.backward(weighted(compute, tape, out.y, g));
    const Tensor dx = tape.gradient(vx), dtheta = tape.gradient(vt);
    REQUIRE(dtheta.shape() == theta.shape());

    std::vector<double> theta_sums(params);
    double spikes = 0;
    for (size_t i = 0; i < size; ++i) {
        const double th = theta.data<double>()[i % params];
        const double v0 = node.v0.defined() ? node.v0.data<double>()[i % node.v0.elements()]
                                            : node.v0_fraction * th;
        const bool scaled = node.amplitude == Neuron::Amplitude::theta;
        std::vector<double> xs(T), gs(T);
        for (size_t t = 0; t < T; ++t) {
            xs[t] = x.data<double>()[(constant ? 0 : t * size) + i];
            gs[t] = g.data<double>()[t * size + i];
        }
        const Gradients hand = recurrences(node.rule, th, v0, scaled ? th : 1, false, xs, gs);
        double sum = 0;
        for (size_t t = 0; t < T; ++t) {
            CHECK(out.y.value.data<double>()[t * size + i] == hand.s[t] * (scaled ? th : 1));
            CHECK((out.bits.data<uint64_t>()[t] >> i & 1) == uint64_t(hand.s[t]));
            spikes += hand.s[t];
            sum += hand.dx[t];
            std::vector<double> direction(T);
            direction[t] = 1;
            CHECK(std::abs(tangent(node, th, v0, xs, gs, direction, 0) - hand.dx[t]) < 1e-12);
            if (!constant) CHECK(std::abs(dx.data<double>()[t * size + i] - hand.dx[t]) < 1e-12);
        }
        if (constant) CHECK(std::abs(dx.data<double>()[i] - sum) < 1e-12);
        theta_sums[i % params] += tangent(node, th, v0, xs, gs, std::vector<double>(T), 1);
    }
    for (size_t p = 0; p < params; ++p)
        CHECK(std::abs(dtheta.data<double>()[p] - theta_sums[p]) < 1e-12);
    CHECK(spikes > 0);
    CHECK(spikes < double(T * size));
}

TEST_CASE("neuron: gradients through the tape equal recurrences and forward differentiation") {
    for (const auto surrogate :
         {Surrogate::atan, Surrogate::triangle, Surrogate::rectangle, Surrogate::sigmoid})
        for (const bool scale_width : {false, true})
            for (const bool detach : {false, true})
                for (const auto reset : {Reset::subtract, Reset::to_value})
                    for (const double beta : {1.0, 0.5}) {
                        Neuron node;
                        node.rule.surrogate = surrogate;
                        node.rule.surrogate_width = surrogate == Surrogate::sigmoid ? 4 : 1.5;
                        node.rule.scale_width = scale_width;
                        node.rule.detach_reset = detach;
                        node.rule.reset = reset;
                        node.rule.reset_value = reset == Reset::subtract ? 0 : -0.25;
                        node.rule.beta = beta;
                        node.v0_fraction = beta == 1 ? 0.5 : 0;
                        node.amplitude =
                            beta == 1 ? Neuron::Amplitude::theta : Neuron::Amplitude::one;
                        for (const size_t params : {1, 3}) {
                            check_neuron(node, params, false);
                            check_neuron(node, params, true);
                        }
                    }
    // A v(0) of its own, sized unlike theta: the threshold's gradient comes back in theta's shape.
    Neuron node;
    node.v0 = Tensor::from<double>({0.1, -0.2, 0.6}, {3});
    check_neuron(node, 1, false);
    check_neuron(node, 3, false);
}

TEST_CASE("neuron: one threshold for each neuron of a sample") {
    Compute compute;
    const Shape sample = {2, 2, 3};
    const Tensor theta = normal<double>(sample, 1, 0.1, 1.0), x = normal<double>({8, 2, 2, 3}, 2);
    Tape tape(compute);
    const Var vt = tape.leaf(theta), vx = tape.leaf(x);
    const Var y = fn::neuron(compute, &tape, Neuron{}, vt, vx, {.T = 4}).y;
    tape.backward(weighted(compute, tape, y, normal<double>(y.shape(), 3)));
    CHECK(tape.gradient(vt).shape() == sample);
    // The first sample alone gives the first sample's part.
    double sum = 0;
    for (const size_t n : {0, 1}) {
        Tape single(compute);
        const Var own = single.leaf(theta);
        std::vector<double> xs, gs;
        const Tensor g = normal<double>(y.shape(), 3);
        for (size_t t = 0; t < 4; ++t)
            for (size_t i = 0; i < 12; ++i) {
                xs.push_back(x.data<double>()[(t * 2 + n) * 12 + i]);
                gs.push_back(g.data<double>()[(t * 2 + n) * 12 + i]);
            }
        const Var part =
            fn::neuron(compute, &single, Neuron{}, own, Tensor::from(xs, {4, 2, 2, 3}), {.T = 4}).y;
        single.backward(weighted(compute, single, part, Tensor::from(gs, {4, 2, 2, 3})));
        sum += single.gradient(own).data<double>()[5];
    }
    CHECK(std::abs(sum - tape.gradient(vt).data<double>()[5]) < 1e-13);
}

TEST_CASE("neuron: a scan cut in two with the caller's membrane is the whole scan") {
    Compute compute;
    Neuron node;
    const Tensor theta = Tensor::full<float>({1}, 0.8f), x = normal<float>({12, 5}, 1);
    const Var whole = fn::neuron(compute, nullptr, node, theta, x, {.T = 6}).y;
    Tensor membrane;
    const Var first =
        fn::neuron(compute, nullptr, node, theta, x.slice(0, 4), {.T = 2, .membrane = &membrane}).y;
    CHECK(membrane.shape() == Shape{2, 5});
    const Tensor kept = membrane, old = membrane.clone();
    const Var second =
        fn::neuron(compute, nullptr, node, theta, x.slice(4, 12), {.T = 4, .membrane = &membrane})
            .y;
    std::vector<float> both = first.value.to_vector<float>();
    for (const float v : second.value.to_vector<float>()) both.push_back(v);
    CHECK(both == whole.value.to_vector<float>());
    CHECK(kept.to_vector<float>() == old.to_vector<float>());  // a copy held elsewhere stays
}

TEST_CASE("neuron: what has no meaning is refused") {
    Compute compute;
    Tape tape(compute);
    const Tensor theta = Tensor::full<float>({1}, 1), x = normal<float>({6, 4}, 1);
    const Var tracked = tape.leaf(x);
    const auto refused = [&](const Neuron& node, const Var& th, const Var& in, fn::Scan scan) {
        return error_of([&] { fn::neuron(compute, &tape, node, th, in, scan); });
    };
    Neuron node;
    CHECK(contains(refused(node, theta, x, {.T = 4}), "[6, 4] is not [T * N, ..] with T 4"));
    CHECK(contains(refused(node, theta, x, {.T = 0}), "T 0"));
    CHECK(contains(refused(node, Tensor::full<float>({3}, 1), x, {.T = 2}), "theta [3]"));
    CHECK(contains(refused(node, theta, tracked, {.T = 2, .values = false}), "no gradient"));
    node.rule.spiking = kernels::Spiking::exact;
    CHECK(contains(refused(node, theta, tracked, {.T = 2}), "no gradient"));
    Tensor membrane;
    CHECK(contains(refused(node, theta, x, {.T = 2, .membrane = &membrane}), "no membrane"));
    node.rule.spiking = kernels::Spiking::plain;
    membrane = Tensor({7, 4});
    CHECK(contains(refused(node, theta, x, {.T = 2, .membrane = &membrane}), "[7, 4] for [3, 4]"));
    node.v0_fraction = 0.3;
    CHECK(contains(refused(node, tape.leaf(theta), tracked, {.T = 2}), "0.3"));
}

namespace {

// conv -> BN -> neuron -> pool -> linear -> neuron -> linear, by blocks or plainly.
struct SmallNet {
    size_t T = 4, N = 6;
    bool norm = true, training = true, constant = false;
    size_t steps = 3;  // groups of four and of two samples

    struct Result {
        Tensor y;
        std::vector<Tensor> gradients;
        fn::BatchStatistics batch;
    };

    template <class F>
    Result run(Compute& c, bool blocks) const {
        Tape tape(c);
        std::vector<Var> p = {tape.leaf(normal<F>({3, 3, 2, 4}, 1, 0.5)),
                              tape.leaf(normal<F>({4}, 2, 0.1)),
                              tape.leaf(normal<F>({4}, 3, 0.1, 1.0)),
                              tape.leaf(normal<F>({4}, 4, 0.1, 0.3)),
                              tape.leaf(normal<F>({4}, 5, 0.1, 1.0)),
                              tape.leaf(normal<F>({36, 5}, 6, 0.5)),
                              tape.leaf(normal<F>({1}, 7, 0.1, 1.0)),
                              tape.leaf(normal<F>({5, 3}, 8)),
                              tape.leaf(normal<F>({constant ? N : T * N, 6, 6, 2}, 9))};
        const Var& x = p[8];
        const ops::ConvOptions options = {.pad_h = 1, .pad_w = 1};
        const Tensor mean = normal<F>({4}, 10, 0.1), variance = Tensor::full<F>({4}, F(0.7));
        Neuron first, second;
        first.amplitude = Neuron::Amplitude::theta;
        second.amplitude = Neuron::Amplitude::one;
        second.rule.beta = 0.5;
        second.v0_fraction = 0;
        Result out;
        Var h;
        if (blocks) {
            fn::Block a{.weight = p[0],
                        .bias = p[1],
                        .conv = options,
                        .norm = {},
                        .neuron = first,
                        .theta = p[4],
                        .pool = ops::PoolOptions{},
                        .steps = steps};
            if (norm)
                a.norm = fn::Block::Norm{p[2], p[3], mean, variance, 1e-5, training, &out.batch};
            const fn::Block b{.weight = p[5],
                              .bias = {},
                              .conv = {},
                              .norm = {},
                              .neuron = second,
                              .theta = p[6],
                              .pool = {}};
            const auto spikes = fn::recompute_block(c, &tape, x, T, constant, a);
            h = fn::expand(c, &tape, fn::recompute_block(c, &tape, spikes, b));
        } else {
            h = fn::conv(c, &tape, x, p[0], p[1], options);
            if (norm)
                h = fn::batch_norm(c, &tape, h, p[2], p[3], mean, variance, 1e-5, training,
                                   &out.batch);
            h = fn::neuron(c, &tape, first, p[4], h, {.T = T, .constant_input = constant}).y;
            h = fn::average_pool(c, &tape, h, {});
            h = fn::reshape(c, &tape, h, {T * N, 36});
            h = fn::linear(c, &tape, h, p[5], {});
            h = fn::neuron(c, &tape, second, p[6], h, {.T = T}).y;
        }
        const Var y = fn::linear(c, &tape, h, p[7], {});
        out.y = y.value;
        tape.backward(weighted(c, tape, y, normal<F>({T * N, 3}, 11)));
        for (const Var& v : p) out.gradients.push_back(tape.gradient(v));
        return out;
    }
};

}  // namespace

TEST_CASE("recompute: the block gives the plain path's spikes and gradients") {
    Compute compute;
    for (const bool constant : {false, true})
        for (const bool norm : {false, true})
            for (const bool training : {false, true})
                for (const size_t steps : {1, 3, 1000}) {
                    SmallNet net;
                    net.constant = constant;
                    net.norm = norm;
                    net.training = training;
                    net.steps = steps;
                    const auto plain = net.run<double>(compute, false);
                    const auto blocks = net.run<double>(compute, true);
                    CHECK(largest_difference(blocks.y, plain.y) < 1e-12);
                    for (size_t i = 0; i < plain.gradients.size(); ++i) {
                        INFO("parameter ", i, " steps ", steps);
                        CHECK(blocks.gradients[i].defined() == plain.gradients[i].defined());
                        if (plain.gradients[i].defined())
                            CHECK(largest_difference(blocks.gradients[i], plain.gradients[i]) <
                                  1e-11);
                    }
                    if (norm && training) {
                        CHECK(blocks.batch.rows == plain.batch.rows);
                        CHECK(largest_difference(blocks.batch.mean, plain.batch.mean) < 1e-14);
                        CHECK(largest_difference(blocks.batch.variance, plain.batch.variance) <
                              1e-13);
                    }
                    // Without statistics of the batch, floats too are the same bits forward.
                    if (!norm || !training) {
                        const auto a = net.run<float>(compute, false);
                        const auto b = net.run<float>(compute, true);
                        CHECK(a.y.to_vector<float>() == b.y.to_vector<float>());
                    }
                }
}

TEST_CASE("recompute: same bits for every number of threads, and nothing kept but bits") {
    SmallNet net;
    Compute one(*kernels::best(), 1), three(*kernels::best(), 3);
    const auto a = net.run<float>(one, true), b = net.run<float>(three, true);
    CHECK(a.y.to_vector<float>() == b.y.to_vector<float>());
    for (size_t i = 0; i < a.gradients.size(); ++i)
        if (a.gradients[i].defined())
            CHECK(a.gradients[i].to_vector<float>() == b.gradients[i].to_vector<float>());

    // Between forward and backward a block holds its input and packed spikes.
    Compute compute;
    const size_t T = 16, N = 32, before = host_allocator().live_bytes();
    Tape tape(compute);
    const Var w = tape.leaf(normal<float>({3, 3, 1, 64}, 1));
    const Tensor x = normal<float>({T * N, 8, 8, 1}, 2);
    const Tensor theta = Tensor::full<float>({1}, 1);
    const fn::Block block{.weight = w,
                          .bias = {},
                          .conv = ops::ConvOptions{.pad_h = 1, .pad_w = 1},
                          .norm = {},
                          .neuron = {},
                          .theta = theta,
                          .pool = {},
                          .steps = 2};
    host_allocator().reset_peak();
    const auto spikes = fn::recompute_block(compute, &tape, x, T, false, block);
    const size_t currents = T * N * 64 * 64 * sizeof(float);
    const size_t held = host_allocator().live_bytes() - before - compute.queue.scratch_bytes;
    CHECK(held < currents / 32 + x.bytes() + 20000);
    CHECK(host_allocator().peak_bytes() - before < currents / 2);
}

// Peak bytes of one training step of conv - norm - neuron - pool twice and linear, scratch apart.
static size_t peak_of_step(size_t T, bool blocks) {
    const size_t N = 16;
    Compute c;
    const Tensor x = normal<float>({T * N, 12, 12, 2}, 1);
    const Tensor theta = Tensor::full<float>({1}, 1), gamma = Tensor::full<float>({16}, 1);
    const std::vector<Tensor> weights = {normal<float>({3, 3, 2, 16}, 2),
                                         normal<float>({3, 3, 16, 16}, 3, 0.3)};
    const ops::ConvOptions options = {.pad_h = 1, .pad_w = 1};
    size_t peak = 0;
    for (int step = 0; step < 2; ++step) {  // the first one grows the scratch
        const size_t before = host_allocator().live_bytes();
        host_allocator().reset_peak();
        Tape tape(c);
        Var h = x;
        fn::PackedSpikes spikes;
        for (size_t i = 0; i < weights.size(); ++i) {
            const Var w = tape.leaf(weights[i]), g = tape.leaf(gamma), b = tape.leaf(gamma);
            if (blocks) {
                fn::Block block{.weight = w,
                                .bias = {},
                                .conv = options,
                                .norm = {},
                                .neuron = {},
                                .theta = theta,
                                .pool = ops::PoolOptions{}};
                block.norm = fn::Block::Norm{.gamma = g, .beta = b, .mean = {}, .variance = {}};
                spikes = i == 0 ? fn::recompute_block(c, &tape, h, T, false, block)
                                : fn::recompute_block(c, &tape, spikes, block);
            } else {
                h = fn::conv(c, &tape, h, w, {}, options);
                h = fn::batch_norm(c, &tape, h, g, b, {}, {}, 1e-5, true, nullptr);
                h = fn::average_pool(c, &tape, fn::neuron(c, &tape, {}, theta, h, {.T = T}).y, {});
            }
        }
        if (blocks) h = fn::expand(c, &tape, std::exchange(spikes, {}));
        h = fn::reshape(c, &tape, h, {T * N, 3 * 3 * 16});
        h = fn::linear(c, &tape, h, tape.leaf(normal<float>({144, 10}, 4)), {});
        tape.backward(fn::sum(c, &tape, h));
        peak = host_allocator().peak_bytes() - before + x.bytes();
    }
    return peak;
}

TEST_CASE("recompute: twice the steps take a quarter more memory, and twice as much without") {
    const double blocks = double(peak_of_step(32, true)) / double(peak_of_step(16, true));
    const double plain = double(peak_of_step(32, false)) / double(peak_of_step(16, false));
    INFO("with ", blocks, ", without ", plain);
    CHECK(blocks <= 1.25);
    CHECK(plain <= 2.2);
    CHECK(peak_of_step(32, true) * 2 < peak_of_step(32, false));
}

TEST_CASE("recompute: misuse is named") {
    Compute compute;
    fn::Block block{.weight = normal<float>({4, 3}, 1),
                    .bias = {},
                    .conv = {},
                    .norm = {},
                    .neuron = {},
                    .theta = Tensor::full<float>({1}, 1),
                    .pool = {}};
    const auto refused = [&](const Tensor& x, size_t T) {
        return error_of([&] { fn::recompute_block(compute, nullptr, x, T, false, block); });
    };
    CHECK(contains(refused(normal<float>({6, 4}, 1), 4), "[6, 4] is not [T * N, ..] with T 4"));
    CHECK(contains(refused(normal<float>({6, 5}, 1), 2), "samples [5], weight [4, 3]"));
    block.neuron.rule.spiking = kernels::Spiking::negative;
    CHECK(contains(refused(normal<float>({6, 4}, 1), 2), "no gradient"));
}
