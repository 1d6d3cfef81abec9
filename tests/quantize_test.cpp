// Quantisation, and every backend's agreement with the same integers.
#include <set>

#include "convert/fold.h"
#include "convert/measure.h"
#include "convert/quantize.h"
#include "convert/spikes.h"
#include "convert/verify.h"
#include "hw/loihi.h"
#include "tests/convert_networks.h"

using namespace nc;
using namespace nc::test;

namespace {

// A network of QCFS activations as conversion leaves it: neurons, BatchNorm and amplitudes folded.
Graph spiking(Graph g, const std::string& neuron = "if") {
    for (size_t i = 0; i < g.nodes.size(); ++i)
        if (std::holds_alternative<Activation>(g.nodes[i].op)) {
            const size_t channels = infer_shapes(g)[i].back();
            std::vector<float> lambda(channels);
            for (size_t c = 0; c < channels; ++c) lambda[c] = 0.7f + 0.2f * float(c % 5);
            g = replace(std::move(g), i, Qcfs{Tensor::from(lambda, Shape{channels}), 8});
        }
    return fold_amplitudes(to_spikes(fold_batch_norm(std::move(g)), neuron, 8));
}

// conv, pool, neuron; a strided residual block with a projection; a global pool.
Graph deep_network(uint64_t seed) {
    const auto conv = [&](size_t in, size_t out, size_t k, size_t stride, uint64_t s) {
        Conv c{random_tensor({k, k, in, out}, seed + s, 0.5 / double(k)),
               random_tensor({out}, seed + s + 50, 0.1),
               {}};
        c.options.pad_h = c.options.pad_w = k / 2;
        c.options.stride_h = c.options.stride_w = stride;
        return c;
    };
    Graph g;
    size_t at = add_node(g, "input", Input{{8, 8, 1}}, {});
    at = add_node(g, "conv1", conv(1, 6, 3, 1, 1), {at});
    at = add_node(g, "pool1", AveragePool{}, {at});  // before the activation
    const size_t act1 = add_node(g, "act1", Activation{}, {at});
    at = add_node(g, "conv2", conv(6, 5, 3, 2, 2), {act1});
    at = add_node(g, "act2", Activation{}, {at});
    at = add_node(g, "conv3", conv(5, 5, 3, 1, 3), {at});
    const size_t way = add_node(g, "way", conv(6, 5, 1, 2, 4), {act1});
    const size_t act3 = add_node(g, "act3", Activation{}, {at, way});
    at = add_node(g, "conv4", conv(5, 5, 3, 1, 5), {act3});
    at = add_node(g, "act4", Activation{}, {at, act3});
    at = add_node(g, "gap", GlobalAveragePool{}, {at});
    at = add_node(g, "fc", Linear{random_tensor({5, 4}, seed + 6, 0.5), random_tensor({4}, 9, 0.1)},
                  {at});
    add_node(g, "output", Output{}, {at});
    return g;
}

// Every other population leaks.
Graph leaky(Graph g, double beta) {
    bool leaks = true;
    for (Node& node : g.nodes)
        if (auto* neuron = std::get_if<Neuron>(&node.op)) {
            if (leaks) {
                neuron->rule.beta = beta;
                neuron->v0_fraction = 0;
                neuron->v0 = {};
            }
            leaks = !leaks;
        }
    return g;
}

QuantizeOptions options(int bits = 8) {
    QuantizeOptions o;
    o.bits = bits;
    o.T = 11;  // no power of two
    o.calibration_samples = 40;
    return o;
}

}  // namespace

TEST_CASE("quantise: whole numbers within their ranges, close to the network in floats") {
    Compute compute(Device{}, 1);
    const auto data = quarters(60, 1);
    const Graph g = spiking(small_network(3, true));
    double errors[2] = {};
    for (const int bits : {8, 4}) {
        const Quantized q = quantize(compute, g, *data, options(bits));
        const IntegerNetwork net = integer_network(q.graph);
        REQUIRE(net.populations.size() == 4);  // input, two of neurons, readout
        CHECK(net.populations[2].synapses[0].pooled);
        CHECK(net.populations[3].depth == 3);
        int largest = 0;
        for (const Population& p : net.populations)
            for (const Synapses& s : p.synapses)
                for (const int8_t w : s.weight) largest = std::max(largest, std::abs(int(w)));
        CHECK(largest == (1 << (bits - 1)) - 1);
        for (const QuantizedLayer& l : q.layers) {
            CHECK(l.headroom <= 0.76);
            errors[bits == 4] += l.weight_error;
        }
        MeasureOptions how;
        how.T = 8;
        const double before = measure_sparsity(compute, g, *data, how).accuracy;
        const double after = measure_sparsity(compute, q.graph, *data, how).accuracy;
        CHECK(std::abs(before - after) < 20);
    }
    CHECK(errors[0] < 0.1);
    CHECK(errors[1] > 3 * errors[0]);
}

TEST_CASE("quantise: rounded inputs move no mean current by more than half a unit") {
    Compute compute(Device{}, 1);
    // Mostly background, whose value is rounded, as everywhere in handwriting.
    std::vector<uint8_t> images(40 * 64, 0);
    for (size_t i = 0; i < images.size(); i += 5) images[i] = uint8_t(40 + i % 200);
    const auto data =
        image_dataset(images, std::vector<int32_t>(40, 0), Shape{8, 8, 1}, 4, {0.13f}, {0.31f});
    QuantizeOptions how = options();
    how.one_threshold = true;  // one scale, which the result tells
    for (const bool biased : {true, false}) {
        Graph g;
        size_t at = add_node(g, "input", Input{{8, 8, 1}}, {});
        at = add_node(g, "flatten", Flatten{}, {at});
        Linear first{random_tensor({64, 12}, 3, 0.3), {}};
        if (biased) first.bias = random_tensor({12}, 4, 0.2);
        at = add_node(g, "fc1", first, {at});
        at = add_node(g, "act", Activation{}, {at});
        at = add_node(g, "fc2", Linear{random_tensor({12, 4}, 5, 0.5), {}}, {at});
        add_node(g, "output", Output{}, {at});
        g = spiking(std::move(g));
        const Quantized q = quantize(compute, g, *data, how);
        const auto mean_currents = [&](const Graph& network) {
            std::vector<double> means(12, 0);
            EvaluateOptions run;
            run.T = how.T;
            run.observe = [&](const Observation& o) {
                if (!std::holds_alternative<Neuron>(network.nodes[o.node].op)) return;
                const auto x = o.x.to_vector<float>();
                for (size_t i = 0; i < x.size(); ++i) means[i % 12] += double(x[i]) / 40;
            };
            evaluate(compute, network, *data, run);
            return means;
        };
        const auto before = mean_currents(g), after = mean_currents(q.graph);
        REQUIRE(q.layers[0].scale_min == q.layers[0].scale_max);
        for (size_t c = 0; c < 12; ++c)
            CHECK(std::abs(after[c] - before[c] * q.layers[0].scale_min) < 0.51);
    }
}

TEST_CASE(
    "quantise: a pool between weights and neuron goes into the kernel without changing a sum") {
    Compute compute(Device{}, 1);
    const auto data = quarters(60, 1);
    const Graph g = spiking(deep_network(5));
    const Quantized q = quantize(compute, g, *data, options());
    const IntegerNetwork net = integer_network(q.graph);
    CHECK(net.populations[1].synapses[0].conv.kh == 4);  // 3 + 1
    CHECK(net.populations[1].synapses[0].conv.stride_h == 2);
    // The same accuracy at every step, nearly: rounding is all that changed.
    EvaluateOptions how;
    how.T = 8;
    const auto before = evaluate(compute, g, *data, how);
    const auto after = evaluate(compute, q.graph, *data, how);
    CHECK(std::abs(before.sparsity() - after.sparsity()) < 2);
}

TEST_CASE("verify: every backend agrees in every current, membrane and spike") {
    const auto data = quarters(24, 2);
    Compute compute(Device{}, 1);
    for (const Graph& g :
         {spiking(small_network(7, true)), spiking(residual_network(8)), spiking(deep_network(9)),
          leaky(spiking(residual_network(10)), 0.5), leaky(spiking(deep_network(11)), 0.8125)})
        for (const int bits : {8, 5}) {
            const Quantized q = quantize(compute, g, *data, options(bits));
            VerifyOptions how;
            how.T = 11;
            how.samples = 20;
            how.reference_samples = 6;
            how.threads = 2;
            const Verification v = verify(q.graph, *data, how);
            CHECK(v.left_out.empty());
            CHECK(v.backends.size() >= 4);
            for (const VerifiedBackend& b : v.backends) {
                CAPTURE(b.name);
                CHECK_MESSAGE(b.agrees(), b.first);
                CHECK(b.spikes > 100);
                CHECK(b.neuron_steps > b.spikes);
                CHECK(b.wraps + b.clips == 0);
            }
            CHECK(v.passed());
            CHECK(v.backends.front().samples == 20);
        }
}

TEST_CASE("verify: registers that are too narrow show as clips, and as a difference from floats") {
    const auto data = quarters(8, 2);
    Compute compute(Device{}, 1);
    Quantized q = quantize(compute, spiking(small_network(7, true)), *data, options());
    for (size_t i = 0; i < q.graph.nodes.size(); ++i)
        if (auto* neuron = std::get_if<Neuron>(&q.graph.nodes[i].op)) {
            // A membrane that cannot spike climbs until its register ends.
            neuron->theta = Tensor::full<float>({1}, 131071);
            neuron->v0 = Tensor::full<float>({1}, 65535);
        }
    VerifyOptions how;
    how.T = 400;
    how.samples = 2;
    how.reference_samples = 2;
    const Verification v = verify(q.graph, *data, how);
    CHECK(v.backends.front().clips > 0);
    CHECK_FALSE(v.passed());
    CHECK(contains(v.backends.back().first, "v of 'act1'"));
}

TEST_CASE("quantise and verify refuse what they cannot take, by name") {
    Compute compute(Device{}, 1);
    const auto data = quarters(8, 2);
    const Graph g = spiking(small_network(7, true));
    const auto refused = [&](const Graph& graph, int bits = 8) {
        return error_of([&] { quantize(compute, graph, *data, options(bits)); });
    };
    CHECK(contains(refused(small_network(7, false)), "no neurons"));
    CHECK(contains(refused(g, 9), "2 to 8 bits, not 9"));
    CHECK(contains(refused(g, 1), "2 to 8 bits, not 1"));
    CHECK(contains(
        refused(to_spikes(small_network(7, true, Qcfs{Tensor::full<float>({1}, 1), 8}), "if", 8)),
        "'bn' (batch_norm): fold BatchNorm first"));
    const Graph whole = quantize(compute, g, *data, options()).graph;
    CHECK(contains(refused(whole), "quantised already"));
    CHECK(contains(error_of([&] { verify(g, *data, {}); }),
                   "the network is not quantised | `nc_convert quantize`"));
    Graph broken = whole;
    std::get<Linear>(broken.nodes[find_node(broken, "fc2")].op).weight =
        Tensor::full<float>({6, 4}, 0.5f);
    CHECK(contains(error_of([&] { integer_network(broken); }),
                   "'fc2' (linear): weight holds 0.500000"));
    VerifyOptions none;
    none.T = 0;
    CHECK(contains(error_of([&] { verify(whole, *data, none); }), "T must be at least 1: 0"));
}

TEST_CASE("weight rounding for training equals what quantisation makes of the weights") {
    const Graph g = spiking(small_network(11, false));
    std::map<std::string, Tensor> tensors;
    for (const Node& node : g.nodes)
        for_each_tensor(node, [&](const char* field, const Tensor& t, TensorRole) {
            if (t.defined()) tensors[node.name + "." + field] = t;
        });
    auto rounded = tensors;
    WeightRounding(g, 4, false).apply(rounded);
    const auto before = tensors.at("fc1.weight").to_vector<float>();
    const auto after = rounded.at("fc1.weight").to_vector<float>();
    for (size_t c = 0; c < 6; ++c) {
        float largest = 0;
        for (size_t i = c; i < before.size(); i += 6)
            largest = std::max(largest, std::abs(before[i]));
        for (size_t i = c; i < before.size(); i += 6) {
            const double level = double(after[i]) * 7 / double(largest);
            CHECK(std::abs(level - std::nearbyint(level)) < 1e-5);
            CHECK(std::abs(after[i] - before[i]) <= largest / 14 * 1.0001f);
        }
    }
    CHECK(same_bits(rounded.at("conv.bias"), tensors.at("conv.bias")));
}

TEST_CASE("training that knows it will be rounded gives back what 2-bit weights lose") {
    Compute compute(Device{}, 1);
    const auto training = quarters(400, 3), data = quarters(200, 4);
    Model model;
    model.graph = spiking(small_network(3, true));
    ConvertOptions o;
    o.if_epochs = 8;
    o.batch = 20;
    const Graph exact = finetune(compute, model, *training, nullptr, o).model.graph;
    QuantizeOptions two = options(2);
    two.clip_search = false;
    const auto accuracy = [&](const Graph& g) {
        const Quantized q = quantize(compute, g, *training, two);
        MeasureOptions how;
        how.T = two.T;
        return measure_sparsity(compute, q.graph, *data, how).accuracy;
    };
    const double after = accuracy(exact);
    const Graph aware =
        tune_rounded(compute, exact, {}, *training, two, tuning(exact, o, two.T), {});
    const double with_training = accuracy(aware);
    MESSAGE("2 bits: " << after << " %, trained for them " << with_training << " %");
    CHECK(with_training > after + 3);
    CHECK(with_training > 80);  // chance is 25
    // What was trained is in floats: finer than two bits.
    const auto w = std::get<Linear>(aware.nodes[find_node(aware, "fc1")].op).weight;
    std::set<float> values;
    for (const float x : w.to_vector<float>()) values.insert(x);
    CHECK(values.size() > w.elements() / 2);
}
