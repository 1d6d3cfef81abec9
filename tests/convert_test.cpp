// The passes of a conversion, each against hand calculations and exact cases.
#include <algorithm>
#include <cmath>

#include "convert/calibrate.h"
#include "convert/fold.h"
#include "convert/spikes.h"
#include "engine/graph_edit.h"
#include "neurons/zoo.h"
#include "tests/check.h"
#include "tests/convert_networks.h"

namespace nc {

using namespace test;

TEST_CASE("convert: the upper percentile equals a sorted array's, linear between ranks") {
    for (const size_t n : {1u, 2u, 7u, 100u, 1000u, 5000u})
        for (const double p : {50.0, 99.0, 99.9, 100.0}) {
            const auto values = normal_values(n, n);
            UpperPercentile kept(p, n);
            for (const float v : values) kept.add(v);
            std::vector<float> sorted = values;
            std::sort(sorted.begin(), sorted.end());
            const double rank = p / 100 * double(n - 1);
            const size_t below = size_t(rank), above = std::min(below + 1, n - 1);
            const double want =
                sorted[below] + (rank - double(below)) * (double(sorted[above]) - sorted[below]);
            CHECK(kept.value() == doctest::Approx(want).epsilon(1e-12));
            CHECK(kept.count() == n);
        }
}

TEST_CASE("convert: a percentile of fewer values than were announced is that of those values") {
    UpperPercentile kept(99, 10000);
    for (int i = 0; i <= 10; ++i) kept.add(float(i));
    CHECK(kept.value() == doctest::Approx(9.9));
}

TEST_CASE("convert: calibration by hand: channel, layer when few, 2 when none, 1e-4, ReLU6") {
    // 200 one-pixel images of value i / 200 - 1/2; each linear output is its own multiple.
    std::vector<uint8_t> images(200);
    std::vector<int32_t> labels(200, 0);
    for (size_t i = 0; i < 200; ++i) images[i] = uint8_t(i);
    const auto data = image_dataset(images, labels, Shape{1, 1, 1}, 4, {0.0f}, {1 / 255.0f});
    const auto network = [](const std::vector<float>& weights, const Operation& activation) {
        Graph g;
        const size_t n = weights.size();
        size_t at = add_node(g, "input", Input{{1, 1, 1}}, {});
        at = add_node(g, "flatten", Flatten{}, {at});
        at = add_node(g, "fc", Linear{Tensor::from(weights, Shape{1, n}), Tensor()}, {at});
        at = add_node(g, "act", activation, {at});
        add_node(g, "output", Output{}, {at});
        return g;
    };
    Compute compute(Device{}, 1);
    CalibrateOptions options;
    options.percentile = 99;
    // Inputs are 0 .. 199: 199 positive values, rank 0.99 * 198 = 196.02, so 197.02.
    auto layers = calibrate(compute, network({1, -1, 2}, Activation{}), *data, options);
    REQUIRE(layers.size() == 1);
    REQUIRE(layers[0].lambda.size() == 3);
    CHECK(layers[0].lambda[0] == doctest::Approx(197.02));
    CHECK(layers[0].lambda[2] == doctest::Approx(2 * 197.02));
    // Channel 1 has none: the layer's, over {1 .. 199} and {2, 4 .. 398}; rank 0.99 * 397 = 393.03.
    std::vector<double> all;
    for (int i = 1; i < 200; ++i) all.insert(all.end(), {double(i), 2.0 * i});
    std::sort(all.begin(), all.end());
    CHECK(layers[0].lambda[1] == doctest::Approx(all[393] + 0.03 * (all[394] - all[393])));

    layers = calibrate(compute, network({-1, -2}, Activation{}), *data, options);
    CHECK(layers[0].lambda == std::vector<float>{2, 2});
    layers = calibrate(compute, network({1e-9f}, Activation{}), *data, options);
    CHECK(layers[0].lambda == std::vector<float>{1e-4f});
    layers =
        calibrate(compute, network({1}, Activation{kernels::Activation::relu6, 0}), *data, options);
    CHECK(layers[0].lambda == std::vector<float>{6});
    options.per_channel = false;
    layers = calibrate(compute, network({1, 1}, Activation{}), *data, options);
    REQUIRE(layers[0].lambda.size() == 1);
    // Each value twice: rank 0.99 * 397 = 393.03 of the doubled array is between 197 and 198.
    CHECK(layers[0].lambda[0] == doctest::Approx(197.03).epsilon(1e-3));
    CHECK_THROWS_AS(calibrate(compute, network({1}, Activation{}), *data, {0, true, "mean", {}}),
                    Error);
}

TEST_CASE("convert: a negative lobe is a warning with the share of the mass that is lost") {
    std::vector<uint8_t> images{100, 50};
    const auto data = image_dataset(images, {0, 0}, Shape{1, 1, 1}, 2, {0.0f}, {1 / 255.0f});
    Graph g;
    size_t at = add_node(g, "input", Input{{1, 1, 1}}, {});
    at = add_node(g, "flatten", Flatten{}, {at});
    at = add_node(g, "fc", Linear{Tensor::from<float>({1, -1}, {1, 2}), Tensor()}, {at});
    at = add_node(g, "leaky", Activation{kernels::Activation::leaky_relu, 0.25}, {at});
    add_node(g, "output", Output{}, {at});
    Compute compute(Device{}, 1);
    const auto layers = calibrate(compute, g, *data, {});
    // Outputs 100, -25, 50, -12.5: lost 37.5 of 187.5.
    CHECK(layers[0].lost == doctest::Approx(0.2));
    std::vector<std::string> warnings;
    to_qcfs(g, layers, 8, [&](const std::string& text) { warnings.push_back(text); });
    REQUIRE(warnings.size() == 1);
    CHECK(contains(warnings[0], "'leaky'"));
    CHECK(contains(warnings[0], "20.00 %"));
}

TEST_CASE("convert: refused activations are named, all at once") {
    Graph g = small_network(1, false);
    g = replace(g, find_node(g, "act1"), Activation{kernels::Activation::sigmoid, 0});
    g = replace(g, find_node(g, "act2"), Activation{kernels::Activation::tanh, 0});
    const std::string what = error_of([&] { check_convertible(g); });
    CHECK(contains(what, "'act1' sigmoid"));
    CHECK(contains(what, "'act2' tanh"));
    const Graph spiking =
        to_spikes(to_qcfs(small_network(1, false), {{2, {1}, 0}}, 4, {}), "if", 4);
    CHECK(contains(error_of([&] { check_convertible(spiking); }), "'act1' is a spiking neuron"));
}

TEST_CASE("convert: tensors that two call sites share become their own") {
    const Tensor slope = Tensor::from<float>({0.1f}, {1});
    Graph g = small_network(3, false, PRelu{slope});
    const Tensor before = std::get<PRelu>(node_of(g, "act1").op).slope;
    REQUIRE(before.raw() == std::get<PRelu>(node_of(g, "act2").op).slope.raw());
    const Graph split = split_shared(g);
    const Tensor first = std::get<PRelu>(node_of(split, "act1").op).slope;
    const Tensor second = std::get<PRelu>(node_of(split, "act2").op).slope;
    CHECK(first.raw() != second.raw());
    CHECK(same_bits(first, second));

    // One QCFS module used twice: two lambdas after splitting, two neurons in the end.
    const Graph shared = small_network(3, false, Qcfs{Tensor::full<float>({1}, 1.5f), 4});
    const Graph neurons = to_spikes(split_shared(shared), "if", 4);
    CHECK(std::get<Neuron>(node_of(neurons, "act1").op).theta.raw() !=
          std::get<Neuron>(node_of(neurons, "act2").op).theta.raw());
}

TEST_CASE("convert: max pooling beside an activation becomes average pooling, with a warning") {
    std::vector<std::string> warnings;
    const Warn warn = [&](const std::string& text) { warnings.push_back(text); };
    // After the activation, and before it with a BatchNorm between.
    Graph after = small_network(5, false);
    after = replace(after, find_node(after, "pool"), MaxPool{});
    CHECK(std::holds_alternative<AveragePool>(
        node_of(replace_max_pools(after, MaxPools::keep_analog, warn), "pool").op));
    REQUIRE(warnings.size() == 1);
    CHECK(contains(warnings[0], "'pool'"));

    Graph before = small_network(5, true);
    before = insert_after(before, find_node(before, "conv"), "pool0", MaxPool{{1, 1, 1, 1, 0, 0}});
    CHECK(std::holds_alternative<AveragePool>(
        node_of(replace_max_pools(before, MaxPools::average, warn), "pool0").op));
    CHECK(warnings.size() == 2);
    CHECK(std::holds_alternative<MaxPool>(
        node_of(replace_max_pools(before, MaxPools::keep_analog, warn), "pool0").op));
    REQUIRE(warnings.size() == 3);
    CHECK(contains(warnings[2], "'pool0' stays"));

    // On the input itself there is no activation on either side: it stays.
    Graph first = small_network(5, false);
    first = insert_after(first, find_node(first, "input"), "pool0", MaxPool{{1, 1, 1, 1, 0, 0}});
    CHECK(std::holds_alternative<MaxPool>(
        node_of(replace_max_pools(first, MaxPools::average, warn), "pool0").op));
    CHECK(contains(warnings[3], "'pool0' stays"));
}

TEST_CASE("convert: folding BatchNorm keeps outputs, exactly on dyadic values") {
    // gamma / sqrt(variance + eps) = gamma / 2 is a power of two; everything else is k / 64.
    for (const bool bias : {false, true})
        for (const bool affine : {false, true}) {
            BatchNorm bn;
            bn.mean = dyadic_tensor({4}, 11, 64);
            bn.variance = Tensor::full<float>({4}, 3.75f);
            bn.eps = 0.25;
            if (affine) {
                bn.gamma = powers_of_two(4, 12);
                bn.beta = dyadic_tensor({4}, 13, 64);
            }
            Graph g;
            Conv conv{dyadic_tensor({3, 3, 2, 4}, 14, 32),
                      bias ? dyadic_tensor({4}, 15, 64) : Tensor(),
                      {}};
            size_t at = add_node(g, "input", Input{{6, 5, 2}}, {});
            at = add_node(g, "conv", conv, {at});
            at = add_node(g, "bn", bn, {at});
            add_node(g, "output", Output{}, {at});
            const Graph folded = fold_batch_norm(g);
            CHECK(folded.nodes.size() == 3);
            Compute compute(Device{}, 1);
            const Tensor x = dyadic_tensor({2, 6, 5, 2}, 16, 32);
            CHECK(largest_difference(run(compute, g, x), run(compute, folded, x)) == 0);
        }
}

TEST_CASE("convert: folding BatchNorm of any values, after linear layers and through pooling") {
    Compute compute(Device{}, 1);
    Graph g;
    Conv grouped{random_tensor({3, 3, 1, 4}, 20, 0.5), random_tensor({4}, 21), {}};
    grouped.options.groups = 2;
    size_t at = add_node(g, "input", Input{{8, 8, 2}}, {});
    at = add_node(g, "conv", grouped, {at});
    at = add_node(g, "pool", AveragePool{}, {at});
    at = add_node(g, "bn1", random_norm(4, 22), {at});
    at = add_node(g, "act", Activation{}, {at});
    at = add_node(g, "flatten", Flatten{}, {at});
    at = add_node(g, "fc", Linear{random_tensor({36, 5}, 23, 0.2), Tensor()}, {at});
    at = add_node(g, "bn2", random_norm(5, 24, false), {at});
    add_node(g, "output", Output{}, {at});
    const Graph folded = fold_batch_norm(g);
    for (const Node& node : folded.nodes) CHECK_FALSE(std::holds_alternative<BatchNorm>(node.op));
    const Tensor x = random_tensor({4, 8, 8, 2}, 25);
    // Two layers of at most 36 terms of size about 3, each rounded a few times at 2^-24.
    CHECK(largest_difference(run(compute, g, x), run(compute, folded, x)) < 100 * 6e-8 * 3);
}

TEST_CASE("convert: a BatchNorm that cannot be folded is an error with its name and the reason") {
    Graph sum = residual_network(1);
    sum = insert_after(sum, find_node(sum, "input"), "bn_first", random_norm(1, 1));
    sum = insert_after(sum, find_node(sum, "act2"), "bn_act", random_norm(4, 2));
    const size_t act2 = find_node(sum, "act2");
    const size_t bn_sum = add_node(sum, "bn_sum", random_norm(4, 3), {});
    for (Edge& e : sum.edges)
        if (e.to == act2) e.to = bn_sum;
    sum.edges.push_back({bn_sum, act2});
    check(sum);
    const std::string what = error_of([&] { fold_batch_norm(sum); });
    CHECK(contains(what, "'bn_first' comes after 'input'"));
    CHECK(contains(what, "'bn_act' comes after 'act2'"));
    CHECK(contains(what, "'bn_sum' comes after a sum"));
    CHECK_FALSE(contains(what, "'bn2'"));

    Graph shared = residual_network(1);
    shared.edges.push_back({find_node(shared, "conv2"), find_node(shared, "act2")});
    check(shared);
    CHECK(contains(error_of([&] { fold_batch_norm(shared); }), "'bn2' shares 'conv2'"));
}

TEST_CASE("convert: an IF neuron with v(0) = theta / 2 counts what QCFS with L = T gives") {
    // The first layer's input is constant over T; theta and the weights are dyadic.
    constexpr int T = 8;
    Graph g = small_network(30, false);
    for (Node& node : g.nodes)
        if (auto* conv = std::get_if<Conv>(&node.op)) {
            conv->weight = dyadic_tensor(conv->weight.shape(), 31, 32);
            conv->bias = dyadic_tensor(conv->bias.shape(), 32, 32);
        }
    const Graph qcfs = to_qcfs(
        g, {{find_node(g, "act1"), {0.5f, 1, 0.75f, 3}, 0}, {find_node(g, "act2"), {1}, 0}}, T, {});
    const Graph spiking = to_spikes(qcfs, "if", T);
    Compute compute(Device{}, 1);
    const Tensor x = dyadic_tensor({5, 8, 8, 1}, 33, 64);
    Tensor rates, spikes;
    ForwardOptions options;
    options.T = T;
    options.observe = [&](const Observation& o) {
        if (o.graph.nodes[o.node].name != "act1") return;
        if (o.time)
            spikes = o.y.clone();
        else
            rates = o.y.clone();
    };
    forward(compute, qcfs, {}, x, options);
    forward(compute, spiking, {}, x, options);
    REQUIRE(spikes.elements() == T * rates.elements());
    size_t wrong = 0, active = 0;
    for (size_t i = 0; i < rates.elements(); ++i) {
        double sum = 0;
        for (size_t t = 0; t < T; ++t) sum += spikes.data<float>()[t * rates.elements() + i];
        wrong += sum / T != rates.data<float>()[i];
        active += sum > 0;
    }
    CHECK(wrong == 0);
    CHECK(active > 100);
}

TEST_CASE("convert: a step's bias is what its mean output falls short of after the steps before") {
    constexpr int T = 3, levels = 4;
    const auto data = quarters(40, 34);
    Compute compute(Device{}, 1);
    const Graph g = small_network(35, true);
    const Graph qcfs =
        to_qcfs(g, {{find_node(g, "act1"), {0.5f}, 0}, {find_node(g, "act2"), {1}, 0}}, levels, {});
    const Graph corrected = correct_step_bias(compute, to_spikes(fold_batch_norm(qcfs), "if", T),
                                              *data, {T, levels, "mean", {}});
    // A channel's mean output at step t; of a QCFS at its only one.
    const auto mean = [&](const Graph& network, const std::string& name, size_t t, size_t c) {
        double sum = 0, count = 0;
        EvaluateOptions run;
        run.T = T;
        run.observe = [&](const Observation& o) {
            if (o.graph.nodes[o.node].name != name) return;
            const size_t channels = o.y.shape().back(), n = o.y.elements() / (o.time ? o.T : 1);
            for (size_t i = c; i < n; i += channels) {
                sum += o.y.data<float>()[(o.time ? t * n : 0) + i];
                ++count;
            }
        };
        evaluate(compute, network, *data, run);
        return sum / count;
    };
    double largest = 0;
    for (const std::string name : {"act1", "act2"})
        for (size_t t = 0; t < T; ++t) {
            const size_t node = find_node(corrected, name + "_bias");
            const Tensor bias = std::get<StepBias>(corrected.nodes[node].op).bias;
            const size_t channels = bias.shape()[1];
            REQUIRE(bias.shape() == Shape{size_t(T), channels});
            Tensor before = bias.clone();
            before.slice(t, T).zero();
            const Graph so_far = replace(corrected, node, StepBias{before});
            for (size_t c = 0; c < channels; ++c) {
                const float added = bias.data<float>()[t * channels + c];
                CHECK(std::abs(mean(qcfs, name, t, c) - mean(so_far, name, t, c) - added) < 1e-6);
                largest = std::max(largest, double(std::abs(added)));
            }
        }
    CHECK(largest > 0.01);
}

TEST_CASE("convert: the exact neuron equals the QCFS network at T = L, and asks for T = L") {
    constexpr int T = 8;
    Graph g = small_network(40, false);
    for (Node& node : g.nodes)
        for_each_tensor(node, [&](const char*, Tensor& t, TensorRole) {
            if (t.defined()) t = dyadic_tensor(t.shape(), 41 + t.elements(), 16);
        });
    const Graph qcfs =
        to_qcfs(g, {{find_node(g, "act1"), {1}, 0}, {find_node(g, "act2"), {2}, 0}}, T, {});
    const Graph exact = to_spikes(qcfs, "exact", T);
    Compute compute(Device{}, 1);
    const Tensor x = dyadic_tensor({6, 8, 8, 1}, 42, 64);
    CHECK(largest_difference(run(compute, qcfs, x), run(compute, exact, x, T)) == 0);
    CHECK(contains(error_of([&] { to_spikes(qcfs, "exact", T + 1); }), "T is 9, 'act1' has L = 8"));
    CHECK_THROWS_AS(to_spikes(qcfs, "izhikevich", T), Error);
}

TEST_CASE("convert: folding amplitudes keeps every spike on dyadic values") {
    Compute compute(Device{}, 1);
    for (const bool residual : {false, true}) {
        Graph g = residual ? fold_batch_norm(residual_network(50)) : small_network(50, false);
        for (Node& node : g.nodes)
            for_each_tensor(node, [&](const char*, Tensor& t, TensorRole) {
                if (t.defined()) t = dyadic_tensor(t.shape(), 51 + t.elements(), 32);
            });
        std::vector<CalibratedLayer> layers;
        for (const char* name : {"act1", "act2"}) {
            const size_t node = find_node(g, name);
            layers.push_back(
                {node, powers_of_two(infer_shapes(g)[node].back(), node).to_vector<float>(), 0});
        }
        const Graph spiking = to_spikes(to_qcfs(g, layers, 8, {}), "if", 8);
        const Graph before = deep_copy(spiking);
        const Graph folded = fold_amplitudes(spiking);
        check(folded);
        CHECK(same_graph(spiking, before));
        for (const Node& node : folded.nodes)
            if (const auto* n = std::get_if<Neuron>(&node.op))
                CHECK(n->amplitude == Neuron::Amplitude::one);
        const auto data = quarters(20, 52);
        const SpikeDifference d = compare_spikes(compute, spiking, folded, *data, 8, {});
        CHECK(d.compared == 20 * 8 * (residual ? 256 + 256 : 256 + 6));
        CHECK(d.different == 0);
        const Tensor x = dyadic_tensor({5, 8, 8, 1}, 53, 64);
        CHECK(largest_difference(run(compute, spiking, x, 8), run(compute, folded, x, 8)) == 0);
        // The identity edge has no weights: a Scale of amplitudes takes its place.
        size_t scales = 0;
        for (const Node& node : folded.nodes) scales += std::holds_alternative<Scale>(node.op);
        CHECK(scales == (residual ? 1 : 0));
    }
}

TEST_CASE("convert: amplitudes at an output, through flattening, and per neuron") {
    Compute compute(Device{}, 1);
    Graph g;
    size_t at = add_node(g, "input", Input{{2, 2, 3}}, {});
    at = add_node(g, "act", Qcfs{powers_of_two(3, 60), 4}, {at});
    at = add_node(g, "flatten", Flatten{}, {at});
    add_node(g, "output", Output{}, {at});
    const Graph spiking = to_spikes(g, "if", 4);
    const Graph folded = fold_amplitudes(spiking);
    check(folded);
    const Tensor x = random_tensor({3, 2, 2, 3}, 61);
    CHECK(largest_difference(run(compute, spiking, x, 4), run(compute, folded, x, 4)) == 0);

    Graph each =
        to_spikes(small_network(62, false, Qcfs{Tensor::full<float>({1}, 1.0f), 4}), "if", 4);
    Neuron per_neuron = std::get<Neuron>(node_of(each, "act1").op);
    per_neuron.theta = powers_of_two(256, 63);
    each = replace(each, find_node(each, "act1"), per_neuron);
    CHECK(contains(error_of([&] { fold_amplitudes(each); }),
                   "'act1' has a threshold per neuron, 'pool'"));
}

}  // namespace nc
