// Conversion: each pass against hand calculations and exact cases, then whole conversions.
#include "convert/convert.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "convert/calibrate.h"
#include "convert/fold.h"
#include "convert/measure.h"
#include "convert/spikes.h"
#include "engine/graph_edit.h"
#include "neurons/zoo.h"
#include "tests/check.h"

namespace nc {
namespace {

using test::normal_values;

Tensor random_tensor(const Shape& shape, uint64_t seed, double scale = 1) {
    return Tensor::from(normal_values(shape.elements(), seed, scale), shape);
}

// k / 64 for random k in [-range, range].
Tensor dyadic_tensor(const Shape& shape, uint64_t seed, int range) {
    Random random(seed);
    std::vector<float> values(shape.elements());
    for (float& v : values) v = float(int64_t(random.below(uint64_t(2 * range + 1))) - range) / 64;
    return Tensor::from(values, shape);
}

// Powers of two from 1/4 to 4: a product with one is exact.
Tensor powers_of_two(size_t n, uint64_t seed) {
    Random random(seed);
    std::vector<float> values(n);
    for (float& v : values) v = std::ldexp(1.0f, int(random.below(5)) - 2);
    return Tensor::from(values, Shape{n});
}

// One bright quarter of an 8x8 image tells the class; noise everywhere.
std::unique_ptr<Dataset> quarters(size_t count, uint64_t seed) {
    Random random(seed);
    std::vector<uint8_t> images(count * 64);
    std::vector<int32_t> labels(count);
    for (size_t i = 0; i < count; ++i) {
        labels[i] = int32_t(random.below(4));
        for (size_t p = 0; p < 64; ++p) {
            const size_t quarter = p / 8 / 4 * 2 + p % 8 / 4;
            images[i * 64 + p] =
                uint8_t(random.below(120) + (quarter == size_t(labels[i]) ? 90 : 0));
        }
    }
    return image_dataset(std::move(images), std::move(labels), Shape{8, 8, 1}, 4, {0.3f}, {0.25f});
}

BatchNorm random_norm(size_t c, uint64_t seed, bool affine = true) {
    BatchNorm bn;
    bn.mean = random_tensor({c}, seed);
    bn.variance = Tensor::full<float>({c}, 1.7f);
    if (affine) {
        bn.gamma = random_tensor({c}, seed + 1);
        bn.beta = random_tensor({c}, seed + 2);
    }
    return bn;
}

// input 8x8x1, conv 3x3 to 4 [, norm], activation, average pool 2, flatten, linear to 6,
// activation, linear to 4.
Graph small_network(uint64_t seed, bool norm, const Operation& activation = Activation{}) {
    Graph g;
    Conv conv{random_tensor({3, 3, 1, 4}, seed, 0.4), random_tensor({4}, seed + 1, 0.1), {}};
    conv.options.pad_h = conv.options.pad_w = 1;
    size_t at = add_node(g, "input", Input{{8, 8, 1}}, {});
    at = add_node(g, "conv", conv, {at});
    if (norm) at = add_node(g, "bn", random_norm(4, seed + 5), {at});
    at = add_node(g, "act1", activation, {at});
    at = add_node(g, "pool", AveragePool{}, {at});
    at = add_node(g, "flatten", Flatten{}, {at});
    at = add_node(g, "fc1",
                  Linear{random_tensor({64, 6}, seed + 2, 0.2), random_tensor({6}, seed + 3, 0.1)},
                  {at});
    at = add_node(g, "act2", activation, {at});
    at = add_node(g, "fc2", Linear{random_tensor({6, 4}, seed + 4, 0.5), Tensor()}, {at});
    add_node(g, "output", Output{}, {at});
    return g;
}

// input 8x8x1, conv to 4, act1, then a block: conv2 + act1 -> act2, flatten, linear to 4.
Graph residual_network(uint64_t seed) {
    Graph g;
    Conv first{random_tensor({3, 3, 1, 4}, seed, 0.4), Tensor(), {}};
    Conv second{random_tensor({3, 3, 4, 4}, seed + 1, 0.2), Tensor(), {}};
    first.options.pad_h = first.options.pad_w = second.options.pad_h = second.options.pad_w = 1;
    const size_t input = add_node(g, "input", Input{{8, 8, 1}}, {});
    const size_t conv1 = add_node(g, "conv1", first, {input});
    const size_t act1 = add_node(g, "act1", Activation{}, {conv1});
    const size_t conv2 = add_node(g, "conv2", second, {act1});
    const size_t bn2 = add_node(g, "bn2", random_norm(4, seed + 3), {conv2});
    const size_t act2 = add_node(g, "act2", Activation{}, {bn2, act1});
    const size_t flat = add_node(g, "flatten", Flatten{}, {act2});
    const size_t fc =
        add_node(g, "fc", Linear{random_tensor({256, 4}, seed + 2, 0.1), Tensor()}, {flat});
    add_node(g, "output", Output{}, {fc});
    return g;
}

Tensor run(Compute& compute, const Graph& g, const Tensor& x, int T = 1) {
    ForwardOptions options;
    options.T = size_t(T);
    return mean_logits(compute, nullptr, forward(compute, g, {}, x, options)).value;
}

double largest_difference(const Tensor& a, const Tensor& b) {
    REQUIRE(a.shape() == b.shape());
    double worst = 0;
    for (size_t i = 0; i < a.elements(); ++i)
        worst = std::max(worst, std::fabs(double(a.data<float>()[i]) - b.data<float>()[i]));
    return worst;
}

bool same_bits(const Tensor& a, const Tensor& b) {
    return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

bool same_graph(const Graph& a, const Graph& b) {
    if (a.nodes.size() != b.nodes.size() || !(a.edges == b.edges)) return false;
    for (size_t i = 0; i < a.nodes.size(); ++i) {
        if (a.nodes[i].name != b.nodes[i].name || a.nodes[i].op.index() != b.nodes[i].op.index())
            return false;
        std::vector<Tensor> first, second;
        for_each_tensor(a.nodes[i],
                        [&](const char*, const Tensor& t, TensorRole) { first.push_back(t); });
        for_each_tensor(b.nodes[i],
                        [&](const char*, const Tensor& t, TensorRole) { second.push_back(t); });
        for (size_t k = 0; k < first.size(); ++k) {
            if (first[k].defined() != second[k].defined()) return false;
            if (first[k].defined() && !same_bits(first[k], second[k])) return false;
        }
    }
    return true;
}

Graph deep_copy(Graph g) {
    for (Node& node : g.nodes)
        for_each_tensor(node, [](const char*, Tensor& t, TensorRole) {
            if (t.defined()) t = t.clone();
        });
    return g;
}

std::string message(const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.what();
    }
    return "nothing was thrown";
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

ConvertOptions quick_options() {
    ConvertOptions o;
    o.T = 4;
    o.qcfs_epochs = 2;
    o.if_epochs = 2;
    o.calibration_samples = 200;
    return o;
}

const Node& node_of(const Graph& g, const std::string& name) {
    return g.nodes[find_node(g, name)];
}

}  // namespace

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
    const std::string what = message([&] { check_convertible(g); });
    CHECK(contains(what, "'act1' sigmoid"));
    CHECK(contains(what, "'act2' tanh"));
    const Graph spiking =
        to_spikes(to_qcfs(small_network(1, false), {{2, {1}, 0}}, 4, {}), "if", 4);
    CHECK(contains(message([&] { check_convertible(spiking); }), "'act1' is a spiking neuron"));
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
    const std::string what = message([&] { fold_batch_norm(sum); });
    CHECK(contains(what, "'bn_first' comes after 'input'"));
    CHECK(contains(what, "'bn_act' comes after 'act2'"));
    CHECK(contains(what, "'bn_sum' comes after a sum"));
    CHECK_FALSE(contains(what, "'bn2'"));

    Graph shared = residual_network(1);
    shared.edges.push_back({find_node(shared, "conv2"), find_node(shared, "act2")});
    check(shared);
    CHECK(contains(message([&] { fold_batch_norm(shared); }), "'bn2' shares 'conv2'"));
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
    CHECK(contains(message([&] { to_spikes(qcfs, "exact", T + 1); }), "T is 9, 'act1' has L = 8"));
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
    CHECK(contains(message([&] { fold_amplitudes(each); }),
                   "'act1' has a threshold per neuron, 'pool'"));
}

TEST_CASE("convert: strategies, thresholds and statistics of a small network") {
    Compute compute(Device{}, 1);
    const auto training = quarters(600, 70), test = quarters(200, 71);
    Model model;
    model.graph = small_network(72, true);
    model.info.dataset = "quarters";
    // The network has to know something first: a short training of the ANN.
    TrainOptions ann;
    ann.epochs = 6;
    ann.optim.lr = 1e-2;
    model.graph = train(compute, model.graph, model.info, *training, nullptr, ann).graph;
    const Graph before = deep_copy(model.graph);

    SUBCASE("qcfs_if_ft, by auto") {
        const auto options = quick_options();
        const Converted c = convert(compute, model, *training, test.get(), options);
        CHECK(same_graph(model.graph, before));
        const Statistics& s = c.statistics;
        CHECK(s.strategy == "qcfs_if_ft");
        CHECK(s.T == 4);
        CHECK(s.levels == 4);
        REQUIRE(s.if_accuracy);
        CHECK(*s.if_accuracy > 60);  // chance is 25
        CHECK(s.accuracy_at_t.size() == 16);
        CHECK(s.accuracy_at_t[3] == *s.if_accuracy);
        CHECK(s.test_samples == 200);
        REQUIRE(s.layers.size() == 2);
        CHECK(s.layers[0].neurons == 256);
        CHECK(s.layers[0].possible == 256 * 200 * 4);
        CHECK(s.layers[0].threshold_min <= s.layers[0].threshold_mean);
        CHECK(s.layers[0].threshold_mean <= s.layers[0].threshold_max);
        CHECK(s.fold_compared == (256 + 6) * 4 * 60);
        double counted = 0;
        for (const double n : s.layers[1].activation_histogram) counted += n;
        CHECK(counted == 6 * 200);
        CHECK(c.model.info.T == 4);
        for (const Node& node : c.model.graph.nodes)
            CHECK_FALSE(std::holds_alternative<BatchNorm>(node.op));

        // The convolution sees each picture once: 22 x 22 pairs of pixel and kernel position.
        REQUIRE(s.energy);
        CHECK(s.energy->layers.at(0).macs == 200 * (22 * 22) * 4);
        CHECK(s.energy->layers.at(2).acs == s.layers[1].spikes * 4);
        CHECK(s.energy->steps == 4);

        const Json json = to_json(s);
        for (const char* key : {"strategy", "T", "ann_accuracy", "qcfs_accuracy", "if_accuracy",
                                "layers", "sparsity", "conversion_time", "seed", "energy",
                                "accuracy_at_t", "validation_accuracy", "conversion_gap"})
            CHECK_MESSAGE(json.contains(key), key);
        CHECK(json["conversion_gap"].get<double>() ==
              doctest::Approx(*s.ann_accuracy - *s.if_accuracy));

        const Converted again = convert(compute, model, *training, test.get(), options);
        CHECK(same_graph(again.model.graph, c.model.graph));
        CHECK(again.statistics.accuracy_at_t == s.accuracy_at_t);

        // What the statistics say is what the saved network does.
        MeasureOptions measure;
        measure.T = 4;
        const Measured m = measure_sparsity(compute, c.model.graph, *test, measure);
        CHECK(m.accuracy == *s.if_accuracy);
        CHECK(m.sparsity() == *s.sparsity);
        CHECK(m.layers[1].spikes == s.layers[1].spikes);
    }
    SUBCASE("without test data the accuracies are null") {
        auto options = quick_options();
        options.qcfs_epochs = options.if_epochs = 1;
        const Json json = to_json(convert(compute, model, *training, nullptr, options).statistics);
        for (const char* key : {"ann_accuracy", "qcfs_accuracy", "if_accuracy", "accuracy_at_t",
                                "sparsity", "spikes", "conversion_gap"})
            CHECK_MESSAGE(json[key].is_null(), key);
        CHECK_FALSE(json["validation_accuracy"].is_null());
    }
    SUBCASE("baselines train nothing") {
        auto options = quick_options();
        options.T = 32;
        for (const char* strategy : {"percentile", "max", "none"}) {
            options.strategy = strategy;
            const Converted c = convert(compute, model, *training, test.get(), options);
            CHECK(c.statistics.strategy == strategy);
            CHECK_FALSE(c.statistics.qcfs_accuracy);
            if (options.strategy == "none")
                for (const auto& layer : c.statistics.layers) CHECK(layer.threshold_max == 1);
            else
                CHECK(*c.statistics.if_accuracy > *c.statistics.ann_accuracy - 10);
        }
    }
    SUBCASE("qcfs_direct with the exact neuron is the QCFS network") {
        auto options = quick_options();
        options.neuron = "exact";
        const Converted c = convert(compute, model, *training, test.get(), options);
        CHECK(c.statistics.strategy == "qcfs_direct");
        CHECK(c.statistics.levels == 4);
        CHECK(std::fabs(*c.statistics.if_accuracy - *c.statistics.qcfs_accuracy) <= 0.5);
        options.strategy = "qcfs_if_ft";
        CHECK(contains(message([&] { convert(compute, model, *training, nullptr, options); }),
                       "no gradient"));
    }
    SUBCASE("corrections, other neurons, folding after tuning") {
        auto options = quick_options();
        options.strategy = "qcfs_direct";
        options.bias_calibration = options.membrane_calibration = true;
        CHECK(*convert(compute, model, *training, test.get(), options).statistics.if_accuracy > 50);
        options = quick_options();
        options.neuron = "lif";
        options.fold = "after";
        options.if_epochs = 6;
        CHECK(*convert(compute, model, *training, test.get(), options).statistics.if_accuracy > 50);
        options = quick_options();
        options.neuron = "signed";
        CHECK(*convert(compute, model, *training, test.get(), options).statistics.if_accuracy > 50);
    }
    SUBCASE("stages are dumped, and what is no option is refused") {
        auto options = quick_options();
        const auto folder =
            std::filesystem::temp_directory_path() / ("nc_dump_" + std::to_string(::getpid()));
        options.dump = folder.string();
        options.qcfs_epochs = options.if_epochs = 1;
        convert(compute, model, *training, nullptr, options);
        size_t stages = 0;
        for (const auto& file : std::filesystem::directory_iterator(folder)) {
            check(load_model(file.path().string()).graph);
            ++stages;
        }
        CHECK(stages == 7);  // check calibrate qcfs fold spikes tune amplitudes
        std::filesystem::remove_all(folder);
        options = quick_options();
        options.strategy = "qcfs_direkt";
        CHECK(contains(message([&] { convert(compute, model, *training, nullptr, options); }),
                       "unknown strategy 'qcfs_direkt'"));
        options = quick_options();
        options.stop = [] { return true; };
        CHECK_THROWS_AS(convert(compute, model, *training, nullptr, options), Interrupted);
    }
    SUBCASE("a spiking network is tuned further") {
        auto options = quick_options();
        const Converted c = convert(compute, model, *training, test.get(), options);
        const Converted tuned = finetune(compute, c.model, *training, test.get(), options);
        CHECK(tuned.statistics.T == 4);
        CHECK(*tuned.statistics.if_accuracy > 60);
        CHECK_FALSE(same_graph(tuned.model.graph, c.model.graph));
        CHECK_THROWS_AS(finetune(compute, model, *training, nullptr, options), Error);
    }
}

TEST_CASE("convert: a residual network, folded before and after tuning") {
    Compute compute(Device{}, 1);
    const auto training = quarters(400, 80), test = quarters(100, 81);
    Model model;
    model.graph = residual_network(82);
    TrainOptions ann;
    ann.epochs = 4;
    ann.optim.lr = 1e-2;
    model.graph = train(compute, model.graph, model.info, *training, nullptr, ann).graph;
    for (const char* fold : {"before", "after"}) {
        auto options = quick_options();
        options.fold = fold;
        options.strategy = "qcfs_if_ft";
        const Converted c = convert(compute, model, *training, test.get(), options);
        CHECK(*c.statistics.if_accuracy > 50);
        CHECK(std::holds_alternative<Scale>(node_of(c.model.graph, "act1_amplitude").op));
    }
    // auto: three weight layers are not deep; T is 32 for residual graphs.
    auto options = quick_options();
    options.T = 0;
    options.qcfs_epochs = options.if_epochs = 0;
    const Converted c = convert(compute, model, *training, nullptr, options);
    CHECK(c.statistics.strategy == "qcfs_if_ft");
    CHECK(c.statistics.T == 32);
}

TEST_CASE("convert: auto takes qcfs_direct for residual graphs with eight weight layers") {
    Compute compute(Device{}, 1);
    std::vector<uint8_t> images(40 * 16 * 16 * 3);
    Random random(90);
    for (auto& byte : images) byte = uint8_t(random.bits());
    const auto data = image_dataset(images, std::vector<int32_t>(40, 1), Shape{16, 16, 3}, 10,
                                    {0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f});
    Model model;
    model.graph = make_model("resnet20", Shape{16, 16, 3}, 10, {});
    auto options = quick_options();
    options.qcfs_epochs = 0;
    options.T = 2;
    const Converted c = convert(compute, model, *data, nullptr, options);
    CHECK(c.statistics.strategy == "qcfs_direct");
    CHECK(c.statistics.layers.size() == 19);
}

TEST_CASE("convert: training rates follow recipe and depth") {
    const Graph shallow = small_network(1, true);
    const Graph deep = make_model("resnet20", Shape{32, 32, 3}, 10, {});
    ConvertOptions o;
    CHECK(qcfs_training(shallow, o).optim.lr == 1e-3);
    CHECK(qcfs_training(shallow, o).optim.threshold_lr == 5e-2);
    CHECK(qcfs_training(shallow, o).optim.weight_decay == 1e-5);
    CHECK(qcfs_training(shallow, o).epochs == 5);
    CHECK(
        qcfs_training(small_network(1, true, Qcfs{Tensor::full<float>({1}, 1.0f), 8}), o).epochs ==
        0);
    CHECK(tuning(shallow, o, 8).optim.lr == 3e-3);
    CHECK(tuning(deep, o, 8).optim.lr == 1e-4);
    CHECK(tuning(deep, o, 8).optim.clip_norm == 1);
    CHECK(tuning(deep, o, 8).T == 8);
    o.recipe = "cifar";
    CHECK(qcfs_training(deep, o).optim.kind == OptimOptions::Kind::sgd);
    CHECK(qcfs_training(deep, o).optim.momentum == 0.9);
}

TEST_CASE("convert: temporal data brings its own T") {
    class Frames : public Dataset {
     public:
        size_t size() const override { return 4; }
        Shape sample_shape() const override { return {8, 8, 1}; }
        int classes() const override { return 4; }
        int steps() const override { return 10; }
        int32_t label(size_t) const override { return 0; }
        Batch batch(Compute& compute, const std::vector<uint32_t>& indices, const AugmentOptions&,
                    Random&) const override {
            return {compute.zeros({10, indices.size(), 8, 8, 1}),
                    std::vector<int32_t>(indices.size(), 0), true};
        }
    };
    const Graph g = small_network(1, false);
    CHECK(deployment_steps(g, 0, 0, Frames()) == 10);
    CHECK(deployment_steps(g, 10, 0, Frames()) == 10);
    const std::string what = message([&] { deployment_steps(g, 8, 0, Frames()); });
    CHECK(contains(what, "T = 10"));
    CHECK(contains(what, "T = 8"));
    const auto still = quarters(4, 1);
    CHECK(deployment_steps(g, 0, 0, *still) == 16);
    CHECK(deployment_steps(residual_network(1), 0, 0, *still) == 32);
    CHECK(deployment_steps(g, 0, 12, *still) == 12);
}

namespace {

// Real images, or null where there are none.
std::unique_ptr<DataSets> real_images(std::string& name) {
    for (const char* candidate : {"fashion-mnist", "mnist"}) {
        DataRequest request;
        request.name = name = candidate;
        try {
            return std::make_unique<DataSets>(load_data(request));
        } catch (const Error&) {
        }
    }
    return nullptr;
}

std::unique_ptr<Dataset> leading(const Dataset& data, size_t count) {
    std::vector<uint32_t> indices(std::min(count, data.size()));
    for (size_t i = 0; i < indices.size(); ++i) indices[i] = uint32_t(i);
    return subset(data, indices);
}

}  // namespace

TEST_CASE("convert: LeNet on real images, the same spikes on every instruction set and path") {
    std::string name;
    const auto data = real_images(name);
    if (!data) return test::skip("neither fashion-mnist nor mnist is here");
    const bool full = std::getenv("NC_FULL") != nullptr;
    Compute compute(Device{}, 1);
    const auto training = leading(*data->train, 3000), held = leading(*data->test, 500);
    Model model;
    model.graph = make_model("lenet", Shape{28, 28, 1}, 10, {});
    TrainOptions ann;
    ann.epochs = 2;
    ann.optim.lr = 3e-3;
    model.graph = train(compute, model.graph, model.info, *training, nullptr, ann).graph;
    ConvertOptions options;
    options.T = 8;
    options.qcfs_epochs = options.if_epochs = 1;
    const Converted c = convert(compute, model, *training, held.get(), options);
    CHECK(*c.statistics.ann_accuracy > 70);  // chance is 10
    CHECK(*c.statistics.if_accuracy > 70);
    CHECK(*c.statistics.sparsity > 50);

    const auto images = leading(*data->test, full ? 1000 : 40);
    MeasureOptions measure;
    measure.T = 8;
    measure.hash = true;
    measure.path = ops::SpikePath::dense;
    const Measured first = measure_sparsity(compute, c.model.graph, *images, measure);
    CHECK(first.spikes() > 0);
    const auto compare = [&](Compute& other, ops::SpikePath path) {
        measure.path = path;
        const Measured m = measure_sparsity(other, c.model.graph, *images, measure);
        REQUIRE(m.layers.size() == first.layers.size());
        for (size_t i = 0; i < m.layers.size(); ++i) {
            CHECK_MESSAGE(m.layers[i].hash == first.layers[i].hash,
                          other.table->name << " " << m.layers[i].name);
            CHECK(m.layers[i].spikes == first.layers[i].spikes);
        }
        CHECK(m.accuracy_at_t == first.accuracy_at_t);
    };
    auto tables = test::cpu_tables();
    tables.push_back(&kernels::reference());
    for (const auto* table : tables) {
        Compute other(*table);
        for (const auto path :
             {ops::SpikePath::dense, ops::SpikePath::event, ops::SpikePath::automatic})
            compare(other, path);
    }
    Compute single(*compute.table, 1);
    compare(single, ops::SpikePath::automatic);
    // A single spike more is another hash.
    Graph other = c.model.graph;
    Linear last_hidden = std::get<Linear>(node_of(other, "fc1").op);
    last_hidden.bias = last_hidden.bias.clone();
    for (size_t i = 0; i < last_hidden.bias.elements(); ++i)
        last_hidden.bias.data<float>()[i] += 0.01f;
    other = replace(other, find_node(other, "fc1"), last_hidden);
    measure.path = ops::SpikePath::automatic;
    CHECK(measure_sparsity(compute, other, *images, measure).hash() != first.hash());
}

}  // namespace nc
