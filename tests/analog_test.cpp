// The inference runtime of analog networks: the interpreter's logits to within rounding, the same
// bits for any number of threads and samples, and no allocation while running.
#include "neurons/analog.h"

#include <algorithm>

#include "engine/graph_fold.h"
#include "neurons/forward.h"
#include "neurons/zoo.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

Tensor random_tensor(const Shape& shape, uint64_t seed, double scale = 1) {
    return Tensor::from(normal_values(shape.elements(), seed, scale), shape);
}

// With batch norms as after training.
Graph trained(const std::string& model, const Shape& input, const std::string& activation) {
    ZooOptions options;
    options.activation = activation;
    Graph g = make_model(model, input, 10, options);
    uint64_t seed = 1;
    for (Node& node : g.nodes)
        if (auto* bn = std::get_if<BatchNorm>(&node.op)) {
            const size_t c = bn->mean.elements();
            bn->mean = random_tensor({c}, ++seed, 0.1);
            bn->beta = random_tensor({c}, ++seed, 0.2);
        }
    return g;
}

std::vector<float> interpret(const Graph& g, const Tensor& x) {
    Compute compute(kernels::reference(), 2);
    return mean_logits(compute, nullptr, forward(compute, g, {}, x, {})).value.to_vector<float>();
}

std::vector<float> logits_of(AnalogRuntime& runtime, const Tensor& x) {
    const size_t n = x.shape()[0];
    Guarded<float> logits(n * runtime.outputs());
    runtime.run(x.data<float>(), n, logits);
    CHECK(logits.ok());
    return logits.values();
}

std::vector<const kernels::Table<float>*> cpu_tables() {
    size_t count = 0;
    const auto* all = kernels::usable(&count);
    std::vector<const kernels::Table<float>*> out;
    for (size_t i = 0; i < count; ++i)
        if (!all[i]->cuda) out.push_back(all[i]);
    return out;
}

// Bound. A layer of k terms sums in the worst case to within (k + 3) eps of its terms' absolute
// values, but roundings have either sign: sqrt(k) eps / 2 of the terms' root of squares is what
// they come to, and folding rounds each weight once more, again eps / 2 of each term. Kernels'
// tests hold the worst case for each layer; here layers multiply what came before and their own
// roundings alike, so that L layers leave logits of `largest` in size within about sqrt(L) eps
// times largest, and four sigma of thousands of logits within 8 sqrt(L) eps. F(4x4, 3x3) has
// constants that make its roundings larger: |A|, |B| and |G| bring each about 20 times as far as
// they bring the sums (Barabasz et al., 2020, measure 10 to 30), F(2x2, 3x3) twice.
double bound(const Graph& g, ConvChoice conv, double largest) {
    const double growth = conv == ConvChoice::direct ? 1 : conv == ConvChoice::winograd2 ? 2 : 20;
    return 8 * std::sqrt(double(weight_layers(g))) * growth * 0x1p-23 * largest;
}

void check_network(const Graph& g, const Tensor& x) {
    const auto want = interpret(g, x);
    double largest = 0;
    for (const float logit : want) largest = std::max(largest, std::fabs(double(logit)));
    CHECK(largest > 0.01);
    for (const auto* table : cpu_tables())
        for (const ConvChoice conv : {ConvChoice::automatic, ConvChoice::direct,
                                      ConvChoice::winograd2, ConvChoice::winograd4}) {
            if (table == &kernels::reference() && conv != ConvChoice::direct) continue;
            INFO("table " << std::string(table->name) << " conv " << int(conv));
            AnalogOptions options;
            options.table = table;
            options.conv = conv;
            options.batch = x.shape()[0];
            AnalogRuntime runtime(g, options);
            const auto got = logits_of(runtime, x);
            REQUIRE(got.size() == want.size());
            double far = 0;
            for (size_t i = 0; i < got.size(); ++i)
                far = std::max(far, std::fabs(double(got[i]) - double(want[i])));
            CHECK(far <= bound(g, conv, largest));
            if (table == &kernels::reference()) continue;
            options.threads = 3;
            AnalogRuntime threads(g, options);
            CHECK(logits_of(threads, x) == got);
            CHECK(logits_of(threads, x) == got);
        }
}

}  // namespace

TEST_CASE("analog: every network of the zoo, every instruction set and method") {
    for (const std::string& name : model_names()) {
        // Layers as the others have them, that take most of a minute under the address sanitizer.
        if (sanitized && (name == "resnet18" || name == "vgg16")) continue;
        INFO("model " << name);
        const bool flat = name == "mlp" || name == "dqn";
        const bool small = name == "resnet18" || name == "vgg16" || name == "resnet20";
        const Shape sample = flat              ? Shape{20}
                             : name == "vgg16" ? Shape{32, 32, 3}
                             : small           ? Shape{16, 16, 3}
                                               : Shape{20, 22, 2};
        check_network(trained(name, sample, "relu"),
                      random_tensor(sample.with_leading(name == "vgg16" ? 1 : 3), 5));
    }
}

TEST_CASE("analog: quantised activations") {
    // One rounding may move a value by a level, so no bound holds; where none does they agree.
    Graph g = trained("lenet", {20, 20, 1}, "qcfs");
    const Tensor x = random_tensor({4, 20, 20, 1}, 6);
    const auto want = interpret(g, x);
    AnalogOptions options;
    options.batch = 4;
    AnalogRuntime runtime(g, options);
    const auto got = logits_of(runtime, x);
    double far = 0, largest = 0;
    for (size_t i = 0; i < got.size(); ++i) {
        far = std::max(far, std::fabs(double(got[i]) - double(want[i])));
        largest = std::max(largest, std::fabs(double(want[i])));
    }
    CHECK(far <= bound(g, ConvChoice::winograd4, largest));
}

namespace {

// Sums of three and two in every place, pooling with padding, activations that nothing absorbs,
// parameters per channel and per element, a convolution read twice.
Graph rich_graph() {
    Graph g;
    const auto conv = [](size_t cin, size_t cout, uint64_t seed, ops::ConvOptions o) {
        return Conv{random_tensor({3, 3, cin, cout}, seed, 0.2), random_tensor({cout}, seed + 1),
                    o};
    };
    const ops::ConvOptions same = {.pad_h = 1, .pad_w = 1};
    const size_t in = add_node(g, "in", Input{{9, 8, 5}}, {});
    const size_t scale = add_node(g, "scale", Scale{random_tensor({9 * 8 * 5}, 1)}, {in});
    const size_t c1 = add_node(g, "c1", conv(5, 20, 2, same), {scale});
    const size_t c2 = add_node(g, "c2", conv(5, 20, 4, same), {in});
    const size_t sum = add_node(g, "sum", Add{}, {c1, c2});
    const size_t r1 = add_node(g, "r1", Activation{}, {sum});
    const size_t c3 = add_node(g, "c3", conv(20, 20, 6, same), {r1});
    const size_t silu = add_node(g, "silu", Activation{kernels::Activation::silu, 0}, {c3, r1});
    const size_t prelu = add_node(g, "prelu", PRelu{random_tensor({20}, 8)}, {silu});
    const size_t grouped =
        add_node(g, "grouped", conv(5, 20, 9, {.pad_h = 1, .pad_w = 1, .groups = 4}), {prelu});
    const size_t r2 = add_node(g, "r2", Activation{}, {grouped, prelu, r1});
    const size_t max = add_node(
        g, "max", MaxPool{{.kh = 3, .kw = 3, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}},
        {r2});
    const size_t c4 = add_node(g, "c4", conv(20, 33, 11, same), {max});
    const size_t twice = add_node(g, "twice", Scale{random_tensor({1}, 13)}, {c4});
    const size_t r3 = add_node(g, "r3", Activation{}, {twice, c4});
    const size_t average = add_node(g, "average", AveragePool{}, {r3});
    const size_t flat = add_node(g, "flat", Flatten{}, {average});
    const size_t fc =
        add_node(g, "fc", Linear{random_tensor({2 * 2 * 33, 7}, 14, 0.2), {}}, {flat});
    add_node(g, "out", Output{}, {fc});
    check(g);
    return g;
}

}  // namespace

TEST_CASE("analog: every operation and every place of a sum") {
    check_network(rich_graph(), random_tensor({5, 9, 8, 5}, 15));
}

TEST_CASE("analog: a sample's logits do not depend on the others") {
    const Graph g = trained("resnet20", {16, 16, 3}, "relu");
    const Tensor x = random_tensor({7, 16, 16, 3}, 8);
    for (const size_t threads : {1, 2}) {
        AnalogOptions options;
        options.batch = 4;
        options.threads = threads;
        AnalogRuntime runtime(g, options);
        const auto all = logits_of(runtime, x);
        for (size_t n = 0; n < 7; ++n) {
            const auto one = logits_of(runtime, x.slice(n, n + 1));
            CHECK(first_difference(one.data(), all.data() + n * 10, 10) == 10);
        }
    }
}

TEST_CASE("analog: a rule chooses the method by shape and batch") {
    const Graph g = trained("resnet18", {32, 32, 3}, "relu");
    const auto method = [&](size_t batch, const std::string& name) {
        AnalogOptions options;
        options.batch = batch;
        for (const AnalogLayer& layer : AnalogRuntime(g, options).layers())
            if (layer.name == name) return layer.method;
        FAIL("no such layer");
        return kernels::ConvMethod::direct;
    };
    CHECK(method(1, "conv1") == kernels::ConvMethod::direct);
    CHECK(method(1, "layer1.0.conv1") == kernels::ConvMethod::winograd4);
    CHECK(method(1, "layer2.0.conv1") == kernels::ConvMethod::direct);  // stride 2
    CHECK(method(1, "layer4.1.conv1") == kernels::ConvMethod::direct);  // few pixels, many weights
    CHECK(method(32, "layer4.1.conv1") == kernels::ConvMethod::winograd4);
}

TEST_CASE("analog: what cannot be run is refused by name") {
    ZooOptions spiking;
    spiking.activation = "if";
    CHECK(contains(error_of([&] { AnalogRuntime r(make_model("mlp", {8}, 10, spiking)); }),
                   "'fc_act1' is a neuron"));
    Graph g = trained("mlp", {8}, "relu");
    std::get<Input>(g.nodes[0].op).scale = 2;
    CHECK(contains(error_of([&] { AnalogRuntime r(g); }), "quantised"));
    g = rich_graph();
    const size_t bn = add_node(
        g, "bn", BatchNorm{{}, {}, random_tensor({7}, 1), Tensor::full<float>({7}, 1)}, {});
    g.edges.back() = {find_node(g, "fc"), bn};
    g.edges.push_back({find_node(g, "fc"), find_node(g, "out")});
    g.edges.push_back({bn, find_node(g, "out")});
    CHECK(contains(error_of([&] { AnalogRuntime r(g); }), "'bn'"));
}
