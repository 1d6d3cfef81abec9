// The zoo, and the interpreter: its two orders, its determinism, time, delays and recomputation.
#include "neurons/forward.h"

#include "autograd/functions.h"
#include "neurons/zoo.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

Tensor random_tensor(const Shape& shape, uint64_t seed, double scale = 1) {
    return Tensor::from(normal_values(shape.elements(), seed, scale), shape);
}

bool same_bits(const Tensor& a, const Tensor& b) {
    return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

Conv conv3(size_t cin, size_t cout, uint64_t seed) {
    return {random_tensor({3, 3, cin, cout}, seed, 0.4),
            random_tensor({cout}, seed + 1, 0.1),
            {.pad_h = 1, .pad_w = 1}};
}

BatchNorm random_norm(size_t c, uint64_t seed) {
    Tensor variance = random_tensor({c}, seed + 3);
    for (size_t i = 0; i < c; ++i)
        variance.data<float>()[i] = 0.5f + std::fabs(variance.data<float>()[i]);
    return {random_tensor({c}, seed), random_tensor({c}, seed + 1), random_tensor({c}, seed + 2),
            variance};
}

Neuron neuron(const char* kind, size_t channels = 1, float theta = 0.75f) {
    Neuron n = default_neuron(kind);
    n.theta = Tensor::full<float>({channels}, theta);
    for (size_t i = 1; i < channels; ++i) n.theta.data<float>()[i] += 0.1f * float(i);
    return n;
}

// Everything at once: norm, both neurons, both pools, a residual sum of a static and a spiking
// branch, a scale, and delays that join two layers and skip one.
Graph rich_graph(bool delays) {
    Graph g;
    const size_t in = add_node(g, "in", Input{{6, 6, 2}}, {});
    const size_t c1 = add_node(g, "c1", conv3(2, 5, 1), {in});
    const size_t n1 = add_node(g, "n1", random_norm(5, 3), {c1});
    const size_t s1 = add_node(g, "s1", neuron("if", 5), {n1});
    const size_t c2 = add_node(g, "c2", conv3(5, 5, 7), {s1});
    const size_t scale = add_node(g, "scale", Scale{random_tensor({5}, 9)}, {n1});
    const size_t bias = add_node(g, "bias", StepBias{random_tensor({3, 5}, 15)}, {scale});
    const size_t s2 = add_node(g, "s2", neuron("lif"), {c2, bias, s1});
    const size_t max = add_node(g, "max", MaxPool{}, {s2});
    const size_t c3 = add_node(g, "c3", conv3(5, 70, 11), {max});
    const size_t s3 = add_node(g, "s3", neuron("if"), {c3});
    const size_t avg =
        add_node(g, "avg", AveragePool{{.kh = 3, .kw = 3, .stride_h = 3, .stride_w = 3}}, {s3});
    const size_t flat = add_node(g, "flat", Flatten{}, {avg});
    const size_t fc =
        add_node(g, "fc", Linear{random_tensor({70, 4}, 13, 0.3), random_tensor({4}, 14)}, {flat});
    add_node(g, "out", Output{}, {fc});
    if (delays) {
        g.edges.push_back({s1, s2, 2});
        g.edges.push_back({n1, s2, 1});
        for (Edge& e : g.edges)
            if (e.from == max && e.to == c3) e.delay = 3;
    }
    check(g);
    return g;
}

// Everything that can be trained, on the tape.
Parameters leaves(Tape& tape, const Graph& g) {
    Parameters out;
    for (const Node& node : g.nodes)
        for_each_tensor(node, [&](const char* field, const Tensor& t, TensorRole role) {
            if (t.defined() && role != TensorRole::statistic)
                out[node.name + "." + field] = tape.leaf(t);
        });
    return out;
}

Tensor run(Compute& compute, const Graph& g, const Tensor& x, const ForwardOptions& options) {
    return forward(compute, g, {}, x, options).output.value;
}

}  // namespace

TEST_CASE("zoo: the networks have the layers and sizes they are named for") {
    const Shape grey{28, 28, 1}, colour{32, 32, 3}, events{34, 34, 2};
    const auto parameters = [](const char* name, const Shape& input) {
        return parameter_count(make_model(name, input, 10, {}));
    };
    // Weights, batch norms (2 a channel), biases where no norm follows.
    CHECK(parameters("mlp", grey) == 784 * 256 + 512 + 256 * 256 + 512 + 2570);
    CHECK(parameters("lenet", grey) == 150 + 12 + 2400 + 32 + 48000 + 240 + 10080 + 168 + 850);
    CHECK(parameters("cnn", grey) == 288 + 64 + 18432 + 128 + 3136 * 128 + 256 + 1290);
    CHECK(parameters("cnn-nmnist", events) == 1600 + 64 + 51200 + 128 + 73728 + 256 + 20490);
    CHECK(parameters("cnn-nmnist-3x3", events) == 608 + 18496 + 73856 + 20490);
    CHECK(parameters("resnet20", colour) == 269722 + 512 + 64 + 2048 + 128);
    CHECK(parameters("resnet18", colour) == 11173962);
    CHECK(weight_layers(make_model("vgg16", colour, 10, {})) == 16);
    CHECK(parameters("dqn", {4}) == 4 * 128 + 128 + 128 * 128 + 128 + 1290);
    CHECK(is_residual(make_model("resnet20", colour, 10, {})));
    CHECK(weight_layers(make_model("resnet20", colour, 10, {})) == 22);  // 20 and two shortcuts
    for (const auto& name : model_names())
        for (const char* activation : {"relu", "qcfs", "if", "lif"}) {
            ZooOptions options;
            options.activation = activation;
            const Graph g = make_model(name, name == "dqn" ? Shape{4} : events, 10, options);
            CHECK(is_spiking(g) == (options.activation == "if" || options.activation == "lif"));
        }
}

TEST_CASE("zoo: weights depend on the seed only, and have Kaiming's variance") {
    const Shape grey{28, 28, 1};
    const auto weight = [&](uint64_t seed) {
        ZooOptions options;
        options.seed = seed;
        const Graph g = make_model("mlp", grey, 10, options);
        return std::get<Linear>(g.nodes[find_node(g, "fc1")].op).weight;
    };
    CHECK(same_bits(weight(1), weight(1)));
    CHECK_FALSE(same_bits(weight(1), weight(2)));
    double squares = 0;
    for (const float w : weight(3).to_vector<float>()) squares += double(w) * w;
    // 200704 draws: the mean square's relative deviation is sqrt(2 / n) = 0.0032.
    CHECK(squares / (784 * 256) == doctest::Approx(2.0 / 784).epsilon(0.015));
}

TEST_CASE("zoo: what does not exist or does not fit is named") {
    const auto make = [](const std::string& name, const Shape& shape, const ZooOptions& o = {}) {
        return error_of([&] { make_model(name, shape, 10, o); });
    };
    CHECK(contains(make("lenett", {28, 28, 1}), "'lenett' | did you mean 'lenet'?"));
    CHECK(contains(make("cnn-nmnist", {3, 3, 2}), "cnn-nmnist needs larger images"));
    CHECK(contains(make("lenet", {784}), "[H, W, C]"));
    ZooOptions odd;
    odd.activation = "rlu";
    CHECK(contains(make("mlp", {28, 28, 1}, odd), "did you mean 'relu'?"));
    CHECK(contains(error_of([] { default_neuron("lff"); }), "did you mean 'lif'?"));
}

TEST_CASE("forward: both orders, every thread count and every path give the same bits") {
    for (const bool delays : {false, true})
        for (const bool temporal : {false, true}) {
            const Graph g = rich_graph(delays);
            const Tensor x =
                temporal ? random_tensor({7, 3, 6, 6, 2}, 20) : random_tensor({3, 6, 6, 2}, 20);
            ForwardOptions options;
            options.T = 7;
            options.temporal_input = temporal;
            Compute one(Device{}, 1), three(Device{}, 3);
            const Tensor y = run(one, g, x, options);
            CHECK(y.shape() == Shape{7, 3, 4});
            CHECK(same_bits(y, run(one, g, x, options)));
            CHECK(same_bits(y, run(three, g, x, options)));
            for (const auto path : {ops::SpikePath::dense, ops::SpikePath::event}) {
                options.path = path;
                CHECK(same_bits(y, run(one, g, x, options)));
            }
            options.step_by_step = true;
            CHECK(same_bits(y, run(one, g, x, options)));
            size_t count = 0;
            const auto* tables = kernels::usable(&count);
            for (size_t i = 0; i < count; ++i) {
                if (tables[i]->cuda) continue;
                CAPTURE(tables[i]->name);
                Compute other(*tables[i], 1);
                options.step_by_step = false;
                options.path = ops::SpikePath::automatic;
                CHECK(same_bits(y, run(other, g, x, options)));
            }
        }
}

TEST_CASE("forward: samples do not see each other, and the spikes are not all alike") {
    const Graph g = rich_graph(false);
    const Tensor x = random_tensor({4, 6, 6, 2}, 21);
    Compute compute(Device{}, 1);
    ForwardOptions options;
    options.T = 5;
    uint64_t spikes = 0, possible = 0;
    options.observe = [&](const Observation& o) {
        if (!std::holds_alternative<Neuron>(g.nodes[o.node].op)) return;
        CHECK(o.time);
        CHECK(o.y.shape()[0] == 20);
        const float* y = o.y.data<float>();
        uint64_t here = 0;
        for (size_t i = 0; i < o.y.elements(); ++i) here += y[i] != 0;
        CHECK(here == compute.kernels<float>().spike.count(compute.queue, o.bits.data<uint64_t>(),
                                                           o.bits.elements()));
        spikes += here;
        possible += o.y.elements();
    };
    const Tensor all = run(compute, g, x, options);
    CHECK(spikes > possible / 50);
    CHECK(spikes < possible / 2);
    options.observe = nullptr;
    for (size_t i = 0; i < 4; ++i) {
        const Tensor alone = run(compute, g, x.slice(i, i + 1), options);
        for (size_t t = 0; t < 5; ++t)
            for (size_t k = 0; k < 4; ++k)
                CHECK(alone.data<float>()[t * 4 + k] == all.data<float>()[(t * 4 + i) * 4 + k]);
    }
}

TEST_CASE("forward: what comes before the first neuron of a static input runs once") {
    const Graph g = rich_graph(false);
    Compute compute(Device{}, 1);
    ForwardOptions options;
    options.T = 5;
    std::map<std::string, std::pair<bool, size_t>> seen;
    options.observe = [&](const Observation& o) {
        seen[g.nodes[o.node].name] = {o.time, o.y.shape()[0]};
        if (g.nodes[o.node].name == "s1") CHECK_FALSE(o.x_time);
    };
    run(compute, g, random_tensor({2, 6, 6, 2}, 22), options);
    CHECK(seen.size() == g.nodes.size());
    for (const char* name : {"in", "c1", "n1", "scale"})
        CHECK(seen[name] == std::pair<bool, size_t>(false, 2));
    for (const char* name : {"s1", "c2", "s2", "max", "fc", "out"})
        CHECK(seen[name] == std::pair<bool, size_t>(true, 10));
}

TEST_CASE("forward: a recurrent layer by hand") {
    // v = 0.5 v + x + w s(t - 1), spike at 1, reset by subtraction; the output is 3 s.
    Graph g;
    const size_t in = add_node(g, "in", Input{{1}}, {});
    const size_t add = add_node(g, "add", Add{}, {in});
    const size_t s = add_node(g, "s", neuron("lif", 1, 1.0f), {add});
    const size_t back = add_node(g, "back", Linear{Tensor::full<float>({1, 1}, -0.75f), {}}, {s});
    const size_t out = add_node(g, "fc", Linear{Tensor::full<float>({1, 1}, 3), {}}, {s});
    add_node(g, "out", Output{}, {out});
    g.edges.push_back({back, add, 1});
    check(g);
    const std::vector<float> x = {0.5f, 0.75f, 1.0f, 0.25f, 2.0f, 0.0f, 0.875f, 1.5f, -1.0f, 3.0f};
    Compute compute(Device{}, 1);
    ForwardOptions options;
    options.temporal_input = true;
    const Tensor y = run(compute, g, Tensor::from(x, {10, 1, 1}), options);
    float v = 0, spike = 0;
    int spikes = 0;
    for (size_t t = 0; t < 10; ++t) {
        v = 0.5f * v + (x[t] - 0.75f * spike);
        spike = v >= 1 ? 1.0f : 0.0f;
        v -= spike;
        spikes += int(spike);
        CHECK(y.data<float>()[t] == 3 * spike);
    }
    CHECK(spikes >= 2);
    CHECK(spikes <= 8);
    Tape tape(compute);
    CHECK(contains(error_of([&] {
                       forward(compute, g, {}, Tensor::from(x, {10, 1, 1}), options, &tape);
                   }),
                   "recurrent"));
}

TEST_CASE(
    "forward: a delayed edge brings zeros first, and its gradient comes back as much earlier") {
    Graph g;
    const size_t in = add_node(g, "in", Input{{2}}, {});
    const size_t add = add_node(g, "add", Add{}, {});
    add_node(g, "out", Output{}, {add});
    g.edges.push_back({in, add, 2});
    check(g);
    Compute compute(Device{}, 1);
    ForwardOptions options;
    options.temporal_input = true;
    const Tensor x = random_tensor({5, 1, 2}, 30);
    const Tensor y = run(compute, g, x, options);
    for (size_t t = 0; t < 5; ++t)
        for (size_t k = 0; k < 2; ++k)
            CHECK(y.data<float>()[t * 2 + k] == (t < 2 ? 0 : x.data<float>()[(t - 2) * 2 + k]));

    // The same behind a weight, so that there is a gradient: dw = sum over the steps that arrive.
    Graph h;
    const size_t i = add_node(h, "in", Input{{1}}, {});
    const size_t w = add_node(h, "w", Linear{Tensor::full<float>({1, 1}, 2), {}}, {i});
    const size_t a = add_node(h, "add", Add{}, {});
    add_node(h, "out", Output{}, {a});
    h.edges.push_back({w, a, 3});
    Tape tape(compute);
    const Var weight = tape.leaf(std::get<Linear>(h.nodes[w].op).weight);
    const Tensor steps = Tensor::from(std::vector<float>{1, 10, 100, 1000, 10000}, {5, 1, 1});
    const Forwarded f = forward(compute, h, {{"w.weight", weight}}, steps, options, &tape);
    tape.backward(fn::sum(compute, &tape, f.output));
    CHECK(tape.gradient(weight).item() == 11);
}

TEST_CASE("forward: an ANN on recordings keeps the frames apart until the mean") {
    const Graph g = make_model("mlp", {2, 2, 2}, 3, {});
    Compute compute(Device{}, 1);
    const Tensor x = random_tensor({4, 5, 2, 2, 2}, 31);
    ForwardOptions options;
    options.temporal_input = true;
    const Forwarded f = forward(compute, g, {}, x, options);
    CHECK(f.output.shape() == Shape{4, 5, 3});
    const Tensor mean = mean_logits(compute, nullptr, f).value;
    for (size_t n = 0; n < 5; ++n)
        for (size_t k = 0; k < 3; ++k) {
            double sum = 0;
            for (size_t t = 0; t < 4; ++t) sum += f.output.value.data<float>()[(t * 5 + n) * 3 + k];
            CHECK(mean.data<float>()[n * 3 + k] == doctest::Approx(sum / 4).epsilon(1e-5));
        }
}

TEST_CASE("forward: recomputing gives the loss and the gradients of the plain path") {
    ZooOptions zoo;
    zoo.activation = "lif";
    const Graph g = make_model("cnn-nmnist", {12, 12, 2}, 4, zoo);
    const Tensor x = random_tensor({16, 4, 12, 12, 2}, 33);
    std::map<std::string, Tensor> gradients[2];
    double losses[2];
    size_t peaks[2];
    Compute compute(Device{}, 1);
    for (const int recompute : {0, 1}) {
        compute.allocator->reset_peak();
        const size_t before = compute.allocator->live_bytes();
        Tape tape(compute);
        const Parameters variables = leaves(tape, g);
        ForwardOptions options;
        options.temporal_input = options.training = true;
        options.recompute = recompute == 1;
        Var loss;
        {
            const Forwarded f = forward(compute, g, variables, x, options, &tape);
            CHECK(f.statistics.size() == 3);
            CHECK(f.statistics.at("bn1").rows == 16 * 4 * 144);
            loss =
                fn::cross_entropy(compute, &tape, mean_logits(compute, &tape, f), {0, 1, 2, 3}, 0);
        }
        tape.backward(loss);
        losses[recompute] = loss.value.item();
        peaks[recompute] = compute.allocator->peak_bytes() - before;
        for (const auto& [name, v] : variables)
            if (const Tensor d = tape.gradient(v); d.defined()) gradients[recompute][name] = d;
    }
    CHECK(losses[1] == doctest::Approx(losses[0]).epsilon(1e-4));
    CHECK(gradients[0].size() == gradients[1].size());
    CHECK(gradients[0].size() >= 11);
    // Batch statistics differ in the last bits, so a spike may move: the bound is on the whole.
    for (const auto& entry : gradients[0]) {
        const std::string& name = entry.first;
        const Tensor& d = entry.second;
        CAPTURE(name);
        double difference = 0, norm = 0;
        const auto a = d.to_vector<float>(), b = gradients[1].at(name).to_vector<float>();
        for (size_t i = 0; i < a.size(); ++i) {
            difference += std::pow(double(a[i]) - b[i], 2);
            norm += std::pow(double(a[i]), 2);
        }
        CHECK(std::sqrt(difference) <= 0.02 * std::sqrt(norm) + 1e-6);
    }
    CHECK(peaks[1] < peaks[0]);
}

// An observed run takes each node on its own.
TEST_CASE("forward: a ReLU done by the batch norm before it changes no bit, no gradient") {
    Compute compute;
    Graph g;
    const size_t in = add_node(g, "in", Input{{6, 6, 2}}, {});
    const size_t c1 = add_node(g, "c1", conv3(2, 5, 1), {in});
    const size_t n1 = add_node(g, "n1", random_norm(5, 3), {c1});
    const size_t r1 = add_node(g, "r1", Activation{}, {n1});
    const size_t c2 = add_node(g, "c2", conv3(5, 5, 7), {r1});
    const size_t n2 = add_node(g, "n2", random_norm(5, 11), {c2});  // read twice
    const size_t r2 = add_node(g, "r2", Activation{}, {n2});
    const size_t n3 = add_node(g, "n3", random_norm(5, 15), {r2});
    const size_t r3 = add_node(g, "r3", Activation{}, {n3, n2});  // of a sum
    const size_t flat = add_node(g, "flat", Flatten{}, {r3});
    const size_t fc =
        add_node(g, "fc", Linear{random_tensor({180, 4}, 13, 0.3), random_tensor({4}, 14)}, {flat});
    add_node(g, "out", Output{}, {fc});
    const Tensor x = random_tensor({4, 6, 6, 2}, 5);
    for (const bool training : {true, false}) {
        std::map<std::string, Tensor> results[2];
        for (const bool observed : {false, true}) {
            Tape tape(compute);
            const Parameters variables = leaves(tape, g);
            ForwardOptions options;
            options.training = training;
            size_t seen = 0;
            if (observed) options.observe = [&](const Observation&) { ++seen; };
            const Forwarded f = forward(compute, g, variables, x, options, &tape);
            CHECK(seen == (observed ? g.nodes.size() : 0));
            results[observed]["output"] = f.output.value;
            for (const auto& [name, batch] : f.statistics) {
                results[observed][name + " mean"] = batch.mean;
                results[observed][name + " variance"] = batch.variance;
            }
            tape.backward(
                fn::cross_entropy(compute, &tape, mean_logits(compute, &tape, f), {0, 1, 2, 3}, 0));
            for (const auto& [name, v] : variables) results[observed][name] = tape.gradient(v);
        }
        CHECK(results[0].size() == results[1].size());
        for (const auto& entry : results[0]) {
            INFO(entry.first);
            REQUIRE(entry.second.defined());
            CHECK(same_bits(entry.second, results[1].at(entry.first)));
        }
    }
}

TEST_CASE("forward: shapes and options that do not fit are named") {
    const Graph g = rich_graph(false);
    Compute compute(Device{}, 1);
    const auto refused = [&](const Tensor& x, const ForwardOptions& options) {
        return error_of([&] { forward(compute, g, {}, x, options); });
    };
    CHECK(contains(refused(random_tensor({1, 5, 6, 2}, 1), {}),
                   "samples are [5, 6, 2], the network takes [6, 6, 2]"));
    CHECK(contains(refused(random_tensor({3}, 1), {}), "no sample axes"));
    ForwardOptions none;
    none.T = 0;
    CHECK(contains(refused(random_tensor({1, 6, 6, 2}, 1), none), "T must be at least 1"));
    ForwardOptions observed;
    observed.step_by_step = true;
    observed.observe = [](const Observation&) {};
    CHECK(contains(refused(random_tensor({1, 6, 6, 2}, 1), observed), "step by step"));
    Graph ann = make_model("mlp", {2, 2, 1}, 3, {});
    ann.edges[1].delay = 1;
    CHECK(contains(error_of([&] {
                       forward(compute, ann, {}, random_tensor({1, 2, 2, 1}, 1), {});
                   }),
                   "delayed edges need time"));
    Graph exact = rich_graph(false);
    std::get<Neuron>(exact.nodes[find_node(exact, "s1")].op).rule.spiking = kernels::Spiking::exact;
    ForwardOptions steps;
    steps.step_by_step = true;
    steps.T = 4;
    CHECK(contains(error_of([&] {
                       forward(compute, exact, {}, random_tensor({1, 6, 6, 2}, 1), steps);
                   }),
                   "'s1' is exact"));
}
