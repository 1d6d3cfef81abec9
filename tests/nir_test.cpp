// Our networks as NIR: they come back spike for spike, and what NIR cannot say is refused.
#include "engine/graph_fold.h"
#include "neurons/zoo.h"
#include "tests/nir_networks.h"

using namespace nc;
using namespace nc::test;

namespace {

// A spiking network with a residual, thresholds per channel, global pooling and everything NIR
// must be helped with.
Graph spiking_network(uint64_t seed, const std::function<Tensor(size_t, uint64_t)>& thresholds) {
    const auto conv = [&](size_t k, size_t cin, size_t cout, size_t groups, uint64_t s) {
        Conv out{random_tensor({k, k, cin / groups, cout}, s, 0.5),
                 random_tensor({cout}, s + 1, 0.1),
                 {}};
        out.options.pad_h = out.options.pad_w = k / 2;
        out.options.groups = groups;
        return out;
    };
    const auto neuron = [&](size_t c, uint64_t s) {
        Neuron n = default_neuron("if");
        n.theta = thresholds(c, s);
        return n;
    };
    Graph g;
    const size_t in = add_node(g, "input", Input{{8, 6, 2}}, {});
    size_t at = add_node(g, "stem", conv(3, 2, 6, 1, seed), {in});
    const size_t s1 = add_node(g, "s1", neuron(6, seed + 2), {at});
    at = add_node(g, "wide", conv(3, 6, 6, 3, seed + 3), {s1});
    at = add_node(g, "s2", neuron(6, seed + 5), {at});
    at = add_node(g, "narrow", conv(1, 6, 6, 1, seed + 6), {at});
    at = add_node(g, "sum", Add{}, {at, s1});
    const size_t s3 = add_node(g, "s3", neuron(6, seed + 8), {at});
    const size_t pool = add_node(g, "pool", AveragePool{}, {s3});
    Conv flat = conv(3, 6, 8, 1, seed + 9);
    flat.weight = random_tensor({1, 3, 6, 8}, seed + 9, 0.5);
    flat.options.pad_h = 0;
    at = add_node(g, "rows", flat, {pool});
    at = add_node(g, "s4", neuron(8, seed + 11), {at});
    at = add_node(g, "everywhere", GlobalAveragePool{}, {at});
    at = add_node(g, "fc", Linear{random_tensor({8, 4}, seed + 12), random_tensor({4}, seed + 13)},
                  {at});
    add_node(g, "output", Output{}, {at});
    check(g);
    return g;
}

Tensor thresholds_between(size_t n, uint64_t seed) {
    Random random(seed);
    std::vector<float> out(n);
    for (float& t : out) t = 0.4f + 1.2f * random.uniform();
    return Tensor::from(out, Shape{n});
}

}  // namespace

TEST_CASE("a network comes back from a NIR file spike for spike, at T = 1, 8 and 32") {
    const TempFolder folder;
    const Tensor x = random_tensor({5, 8, 6, 2}, 21);
    Model model;
    model.graph = spiking_network(3, thresholds_between);
    model.info.T = 8;
    model.info.dataset = "cifar10";
    model.info.mean = {0.5f, 0.25f};
    model.info.std = {0.25f, 0.5f};
    for (const char* start : {"metadata", "bias"})
        for (const char* pool : {"avg", "sum"})
            for (const char* compat : {"strict", "full"}) {
                CAPTURE(start);
                CAPTURE(pool);
                CAPTURE(compat);
                const NirOptions options = parse_nir_options(start, pool, compat);
                const Graph form = nir_form(model.graph, options, model.info.T);
                to_nir(folder / "net.nir", model, options);
                const Model back = from_nir(folder / "net.nir");
                // Written again it is the same file.
                CHECK(same_tree(graph_to_nir(nir_form(back.graph, options, model.info.T)),
                                graph_to_nir(form)));
                CHECK(back.info.T == 8);
                CHECK(back.info.dataset == "cifar10");
                CHECK(back.info.std == model.info.std);
                for (const int T : {1, 8, 32}) {
                    CAPTURE(T);
                    const auto before = spikes(form, x, T), after = spikes(back.graph, x, T);
                    CHECK(before.size() == 4);
                    CHECK((T == 1 || total(before) > 1000));
                    CHECK(before == after);
                    Compute compute;
                    CHECK(same_bits(run(compute, form, x, T), run(compute, back.graph, x, T)));
                }
                // What a neuron is, not only what it does.
                const auto& n = std::get<Neuron>(back.graph.nodes[find_node(back.graph, "s3")].op);
                CHECK(n.rule.reset == kernels::Reset::subtract);
                CHECK(n.rule.compare == kernels::Compare::greater_equal);
                CHECK(n.theta.to_vector<float>() == std::vector<float>{1});
                CHECK(n.v0.defined() == (std::string(start) == "metadata"));
            }
}

TEST_CASE("thresholds that are powers of two are normalised without changing a spike") {
    const Graph g = spiking_network(5, powers_of_two);
    const Tensor x = random_tensor({5, 8, 6, 2}, 22);
    for (const char* pool : {"avg", "sum"}) {
        const auto before = spikes(fold_amplitudes(g), x, 16);
        const auto after =
            spikes(nir_form(g, parse_nir_options("metadata", pool, "strict")), x, 16);
        CHECK(total(before) > 500);
        CHECK(before == after);
    }
}

TEST_CASE("BatchNorm of a network that was trained through its spikes goes into the weights") {
    Graph g;
    size_t at = add_node(g, "input", Input{{6, 6, 2}}, {});
    at = add_node(g, "conv", Conv{random_tensor({3, 3, 2, 4}, 3), {}, {.pad_h = 1, .pad_w = 1}},
                  {at});
    const auto each = [](std::vector<float> v) { return Tensor::from<float>(v, {4}); };
    at = add_node(g, "bn",
                  BatchNorm{each({1, 0.5f, 2, -1}), each({0.1f, 0, -0.2f, 0.3f}),
                            each({0.2f, -0.1f, 0, 0.5f}), each({1, 4, 0.5f, 2})},
                  {at});
    Neuron n = default_neuron("lif");
    n.theta = Tensor::full<float>({1}, 0.75f);
    at = add_node(g, "s", n, {at});
    add_node(g, "output", Output{}, {at});
    const Graph form = nir_form(g);
    for (const Node& node : form.nodes) CHECK_FALSE(std::holds_alternative<BatchNorm>(node.op));
    const Tensor x = random_tensor({5, 6, 6, 2}, 24);
    const auto before = spikes(g, x, 12), after = spikes(form, x, 12);
    // Rounding may move a spike at a tie.
    REQUIRE(before.size() == after.size());
    size_t different = 0, all = 0;
    for (const auto& [name, train] : before) {
        const auto& other = after.at(name);
        REQUIRE(train.size() == other.size());
        for (size_t i = 0; i < train.size(); ++i) different += train[i] != other[i], ++all;
    }
    CHECK(total(before) > all / 20);
    CHECK(different * 1000 < all);
}

TEST_CASE("the strict form has no convolution that the reference's type check refuses") {
    const Graph strict = nir_form(spiking_network(6, thresholds_between));
    for (const Node& n : strict.nodes)
        if (const auto* conv = std::get_if<Conv>(&n.op)) {
            CHECK(conv->options.groups == 1);
            CHECK(conv->weight.shape()[0] == conv->weight.shape()[1]);
        }
    for (const Node& n : strict.nodes) CHECK_FALSE(std::holds_alternative<Add>(n.op));
}

TEST_CASE("v(0) in the bias gives every neuron as much over T steps") {
    Graph g;
    const size_t in = add_node(g, "input", Input{{2}}, {});
    const size_t fc = add_node(g, "fc", Linear{Tensor::full<float>({2, 3}, 0), {}}, {in});
    Neuron n = default_neuron("if");
    n.theta = Tensor::from<float>({0.5f, 1, 2}, {3});
    const size_t s = add_node(g, "s", n, {fc});
    add_node(g, "output", Output{}, {s});
    const NirOptions bias = parse_nir_options("bias", "avg", "strict");
    const Graph form = nir_form(g, bias, 4);
    const auto& layer = std::get<Linear>(form.nodes[find_node(form, "fc")].op);
    CHECK(layer.bias.to_vector<float>() == std::vector<float>{0.125f, 0.125f, 0.125f});
    CHECK(contains(error_of([&] { nir_form(g, bias, 0); }), "has no T"));
    g.edges[1].from = in;  // nothing with a bias before the neuron
    g.nodes[fc].op = Add{};
    g.nodes[s].op = default_neuron("if");
    std::get<Neuron>(g.nodes[s].op).theta = Tensor::full<float>({1}, 1);
    g.edges = {{in, s}, {s, find_node(g, "output")}, {in, fc}, {fc, s}};
    CHECK(contains(error_of([&] { nir_form(g, bias, 4); }), "'s' (neuron): v(0) cannot become"));
}

TEST_CASE("leaky neurons are LIF nodes that come back with their own beta") {
    Graph g;
    const size_t in = add_node(g, "input", Input{{4}}, {});
    Neuron n = default_neuron("lif");
    n.theta = Tensor::full<float>({1}, 1);
    n.rule.beta = 0.9;
    const size_t s = add_node(g, "s", n, {in});
    add_node(g, "output", Output{}, {s});
    const NirNode tree = graph_to_nir(nir_form(g));
    const NirNode& lif = tree.nodes.at("s");
    CHECK(lif.type == "LIF");
    const auto& tau = std::get<std::vector<float>>(lif.fields.at("tau").values);
    CHECK(tau.size() == 4);
    CHECK(std::abs(tau[0] - 1e-3) < 1e-9);
    const Graph back = read(tree);
    const Tensor x = random_tensor({7, 4}, 23, 0.7);
    CHECK(spikes(back, x, 20) == spikes(g, x, 20));
    CHECK(std::get<Neuron>(back.nodes[find_node(back, "s")].op).rule.beta == 0.9);
}

TEST_CASE("what NIR cannot say is refused, all of it at once") {
    Graph g = small_network(4, true);
    std::string what = error_of([&] { nir_form(g); });
    CHECK(contains(what, ": 'act1' is no spiking neuron; 'act2' is no"));
    CHECK(contains(what, "makes a spiking network first"));
    g = spiking_network(7, thresholds_between);
    std::get<Neuron>(g.nodes[find_node(g, "s2")].op).rule.spiking = kernels::Spiking::negative;
    CHECK(contains(error_of([&] { nir_form(g); }), "'s2' is signed or exact"));
    Graph odd = spiking_network(7, thresholds_between);
    auto& conv = std::get<Conv>(odd.nodes[find_node(odd, "narrow")].op);
    conv.weight = random_tensor({1, 2, 6, 6}, 1);
    odd.nodes[find_node(odd, "wide")].op = odd.nodes[find_node(odd, "narrow")].op;
    CHECK(!error_of([&] { nir_form(odd); }).empty());
    CHECK(contains(error_of([] { parse_nir_options("metadata", "max", "strict"); }),
                   "--nir-pool 'max' is unknown"));
}
