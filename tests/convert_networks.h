// Small networks, data and comparisons for the tests of conversion.
#pragma once

#include <algorithm>
#include <cmath>

#include "convert/convert.h"
#include "engine/graph_edit.h"
#include "tests/check.h"

namespace nc::test {

inline Tensor random_tensor(const Shape& shape, uint64_t seed, double scale = 1) {
    return Tensor::from(normal_values(shape.elements(), seed, scale), shape);
}

// k / 64 for random k in [-range, range].
inline Tensor dyadic_tensor(const Shape& shape, uint64_t seed, int range) {
    Random random(seed);
    std::vector<float> values(shape.elements());
    for (float& v : values) v = float(int64_t(random.below(uint64_t(2 * range + 1))) - range) / 64;
    return Tensor::from(values, shape);
}

// Powers of two from 1/4 to 4: a product with one is exact.
inline Tensor powers_of_two(size_t n, uint64_t seed) {
    Random random(seed);
    std::vector<float> values(n);
    for (float& v : values) v = std::ldexp(1.0f, int(random.below(5)) - 2);
    return Tensor::from(values, Shape{n});
}

// One bright quarter of an 8x8 image tells the class; noise everywhere.
inline std::unique_ptr<Dataset> quarters(size_t count, uint64_t seed) {
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

inline BatchNorm random_norm(size_t c, uint64_t seed, bool affine = true) {
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
inline Graph small_network(uint64_t seed, bool norm, const Operation& activation = Activation{}) {
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
inline Graph residual_network(uint64_t seed) {
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

inline Tensor run(Compute& compute, const Graph& g, const Tensor& x, int T = 1) {
    ForwardOptions options;
    options.T = size_t(T);
    return mean_logits(compute, nullptr, forward(compute, g, {}, x, options)).value;
}

inline double largest_difference(const Tensor& a, const Tensor& b) {
    REQUIRE(a.shape() == b.shape());
    double worst = 0;
    for (size_t i = 0; i < a.elements(); ++i)
        worst = std::max(worst, std::fabs(double(a.data<float>()[i]) - b.data<float>()[i]));
    return worst;
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
    return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

inline bool same_graph(const Graph& a, const Graph& b) {
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

inline Graph deep_copy(Graph g) {
    for (Node& node : g.nodes)
        for_each_tensor(node, [](const char*, Tensor& t, TensorRole) {
            if (t.defined()) t = t.clone();
        });
    return g;
}

inline ConvertOptions quick_options() {
    ConvertOptions o;
    o.T = 4;
    o.qcfs_epochs = 2;
    o.if_epochs = 2;
    o.calibration_samples = 200;
    return o;
}

inline const Node& node_of(const Graph& g, const std::string& name) {
    return g.nodes[find_node(g, name)];
}

}  // namespace nc::test
