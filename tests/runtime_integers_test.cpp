// Quantised networks through the runtime: every spike and sum is the integer simulator's, on every
// instruction set and path.
#include "hw/fpga.h"
#include "neurons/forward.h"
#include "neurons/runtime.h"
#include "neurons/runtime_stages.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

class WholeValues {
 public:
    explicit WholeValues(uint64_t seed) : random_(seed) {}
    Tensor tensor(const Shape& shape, int64_t low, int64_t high) {
        std::vector<float> x(shape.elements());
        for (float& v : x) v = float(low + int64_t(random_() % uint64_t(high - low + 1)));
        return Tensor::from(x, shape);
    }
    Tensor weight(const Shape& shape, int64_t most = 127) { return tensor(shape, -most, most); }

 private:
    std::mt19937_64 random_;
};

Neuron neuron(WholeValues& values, size_t n, int64_t theta, bool leaky, bool to_zero = false) {
    Neuron out;
    if (leaky) theta /= 4;  // what leaks away never adds up
    out.theta = values.tensor({n}, theta / 2, theta);
    out.amplitude = Neuron::Amplitude::one;
    out.v0_fraction = 0;
    if (leaky) {
        out.rule.beta = 0.5;
    } else {
        std::vector<float> half = out.theta.to_vector<float>();
        for (float& v : half) v = std::floor(v / 2);
        out.v0 = Tensor::from(half, {n});
    }
    if (to_zero) out.rule.reset = kernels::Reset::to_value;
    return out;
}

size_t counts(Graph& g, const std::string& name, size_t window, size_t from) {
    return add_node(g, name, Scale{Tensor::full<float>({1}, float(window))}, {from});
}

// Convolutions, wide and grouped, on spikes and on counts, pools that overlap, a residual of scaled
// spikes, one of three, a global pool, linear layers.
Graph whole_graph(bool leaky, uint64_t seed, int64_t weight = 127) {
    Graph g;
    WholeValues v(seed);
    const ops::ConvOptions same = {.pad_h = 1, .pad_w = 1};
    const auto conv = [&](size_t cin, size_t cout, ops::ConvOptions o, int64_t most) {
        return Conv{v.weight({3, 3, cin, cout}, most), v.tensor({cout}, -60, 60), o};
    };
    const size_t in = add_node(g, "in", Input{{8, 8, 2}, 20}, {});
    const size_t c1 = add_node(g, "c1", conv(2, 20, same, 31), {in});
    const size_t s1 = add_node(g, "s1", neuron(v, 20, 3000, leaky), {c1});
    const size_t c2 = add_node(g, "c2", conv(20, 20, same, weight), {s1});
    const size_t scale = add_node(g, "scale", Scale{v.weight({20})}, {s1});
    const size_t s2 = add_node(g, "s2", neuron(v, 8 * 8 * 20, 700, leaky), {scale, c2});
    const size_t grouped =
        add_node(g, "grouped", conv(5, 20, {.pad_h = 1, .pad_w = 1, .groups = 4}, weight), {s2});
    const size_t c3 = add_node(
        g, "c3", conv(20, 20, {.pad_h = 2, .pad_w = 2, .dilation_h = 2, .dilation_w = 2}, weight),
        {s2});
    const size_t again = add_node(g, "again", Scale{v.weight({20})}, {s1});
    const size_t s3 = add_node(g, "s3", neuron(v, 1, 900, leaky), {c3, grouped, again});
    const size_t avg = add_node(
        g, "avg",
        AveragePool{{.kh = 2, .kw = 2, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}},
        {s3});
    const size_t count = counts(g, "avg_count", 4, avg);
    const size_t c4 = add_node(g, "c4", conv(20, 70, same, weight), {count});
    const size_t short4 =
        add_node(g, "short4", Conv{v.weight({1, 1, 20, 70}, weight), {}, {}}, {count});
    const size_t s4 = add_node(g, "s4", neuron(v, 70, 1500, leaky), {c4, short4});
    const size_t all = add_node(g, "all", GlobalAveragePool{}, {s3});
    const size_t total = counts(g, "all_count", 64, all);
    const size_t wide =
        add_node(g, "wide", Linear{v.weight({20, 30}, weight), v.tensor({30}, -9, 9)}, {total});
    const size_t s5 = add_node(g, "s5", neuron(v, 30, 9000, leaky), {wide});
    const size_t flat = add_node(g, "flat", Flatten{}, {s4});
    const Shape image = infer_shapes(g)[s4];
    const size_t fc1 =
        add_node(g, "fc1", Linear{v.weight({image.elements(), 130}, weight), {}}, {flat});
    const size_t s6 = add_node(g, "s6", neuron(v, 130, 2000, leaky), {fc1});
    const size_t fc2 =
        add_node(g, "fc2", Linear{v.weight({130, 5}, weight), v.tensor({5}, -40, 40)}, {s6});
    const size_t fc3 = add_node(g, "fc3", Linear{v.weight({30, 5}, weight), {}}, {s5});
    add_node(g, "out", Output{}, {fc2, fc3});
    check(g);
    return g;
}

struct Simulated {
    std::map<std::string, std::vector<uint64_t>> spikes;  // by neuron: packed, step after step
    std::vector<int64_t> logits;
};

Simulated simulate(const Graph& g, const std::vector<float>& x, bool temporal, int T) {
    const IntegerNetwork net = integer_network(g);
    Simulated out;
    const auto see = [&](const IntegerStep& s) {
        if (s.bits == nullptr) return;
        auto& all = out.spikes[net.populations[s.population].name];
        all.insert(all.end(), s.bits, s.bits + (s.count + 63) / 64);
    };
    const auto events = input_events(net, x.data(), x.size());
    out.logits = run_fpga(fpga_plan(net, T), net, events, 1, T, temporal, see).logits;
    return out;
}

// The spikes of a run as the simulator packs them.
std::vector<uint64_t> packed_steps(const Tensor& spikes, size_t T) {
    const size_t n = spikes.elements() / T, words = (n + 63) / 64;
    std::vector<uint64_t> out(T * words);
    const float* s = spikes.data<float>();
    for (size_t t = 0; t < T; ++t)
        for (size_t i = 0; i < n; ++i)
            out[t * words + i / 64] |= uint64_t(s[t * n + i] != 0) << i % 64;
    return out;
}

std::vector<const kernels::Table<float>*> cpu_tables() {
    size_t count = 0;
    const auto* all = kernels::usable(&count);
    std::vector<const kernels::Table<float>*> out;
    for (size_t i = 0; i < count; ++i)
        if (!all[i]->cuda) out.push_back(all[i]);
    return out;
}

void check_network(const Graph& g, bool temporal, size_t T, uint64_t seed) {
    const size_t frame = 8 * 8 * 2;
    std::vector<float> x = normal_values((temporal ? T : 1) * frame, seed);
    if (temporal)
        for (size_t i = 0; i < x.size(); ++i)
            if (i % 3 != 0) x[i] = 0;
    const Simulated want = simulate(g, x, temporal, int(T));
    for (const auto& [name, bits] : want.spikes) {
        const std::string neuron = name;
        INFO("neuron " << neuron);
        size_t spikes = 0;
        for (const uint64_t word : bits) spikes += size_t(__builtin_popcountll(word));
        CHECK(spikes > 0);
    }
    for (const auto* table : cpu_tables())
        for (const RuntimePath path :
             {RuntimePath::automatic, RuntimePath::dense, RuntimePath::event})
            for (const size_t threads : {1, 3}) {
                if (table == &kernels::reference() && threads > 1) continue;
                INFO("table " << std::string(table->name) << " path " << int(path) << " threads "
                              << threads);
                RuntimeOptions options;
                options.threads = threads;
                options.T = T;
                options.temporal = temporal;
                options.path = path;
                options.record = true;
                options.table = table;
                Runtime runtime(g, options);
                REQUIRE(runtime.integers());
                for (int again = 0; again < 2; ++again) {
                    std::vector<float> logits(5), outputs(T * 5);
                    runtime.run(x.data(), temporal, T, 1, logits.data(), nullptr, outputs.data());
                    for (size_t k = 0; k < 5; ++k) {
                        int64_t sum = 0;
                        for (size_t t = 0; t < T; ++t) sum += int64_t(outputs[t * 5 + k]);
                        CHECK(sum == want.logits[k]);
                    }
                    for (const auto& [name, bits] : want.spikes) {
                        const std::string neuron = name;
                        INFO("neuron " << neuron);
                        CHECK(packed_steps(runtime.spikes(neuron), T) == bits);
                    }
                }
                for (const LayerActivity& a : runtime.activity())
                    if (a.name == "c2" || a.name == "c4" || a.name == "fc1") {
                        CHECK(a.integers);
                        CHECK(a.events > 0);
                    }
            }
}

}  // namespace

TEST_CASE("runtime in integers: IF, pictures and recordings, is the integer simulator") {
    check_network(whole_graph(false, 1), false, 35, 2);
    check_network(whole_graph(false, 3), true, 9, 4);
}

TEST_CASE("runtime in integers: LIF is cut as the integer simulator cuts it") {
    check_network(whole_graph(true, 5), false, 12, 6);
    check_network(whole_graph(true, 7), true, 12, 8);
}

TEST_CASE("runtime in integers: what floats give where they are exact, and steps one at a time") {
    const Graph g = whole_graph(false, 9);
    const size_t T = 7;
    const std::vector<float> x = normal_values(8 * 8 * 2, 10);
    RuntimeOptions options;
    options.T = T;
    Runtime whole(g, options);
    options.integers = false;
    Runtime floats(g, options);
    CHECK(whole.integers());
    CHECK_FALSE(floats.integers());
    CHECK(floats.most_steps() == SIZE_MAX);
    std::vector<float> a(5), b(5), want(T * 5), got(T * 5), one(5);
    whole.run(x.data(), false, T, 1, a.data(), nullptr, got.data());
    floats.run(x.data(), false, T, 1, b.data(), nullptr, want.data());
    CHECK(got == want);
    CHECK(a == b);
    CHECK(whole.memory_bytes() < floats.memory_bytes());
    whole.reset();
    for (size_t t = 0; t < T; ++t) {
        whole.step(t == 0 ? x.data() : nullptr, one.data(), nullptr);
        CHECK(std::equal(one.begin(), one.end(), want.begin() + std::ptrdiff_t(t * 5)));
    }
}

TEST_CASE("runtime in integers: only networks that are whole, for as long as membranes fit") {
    const Graph g = whole_graph(false, 11);
    std::vector<float> logits(5);
    const std::vector<float> x(8 * 8 * 2, 1.0f);
    Runtime runtime(g);
    REQUIRE(runtime.most_steps() < SIZE_MAX);
    CHECK(runtime.most_steps() > 1000);
    CHECK(contains(
        error_of([&] { runtime.run(x.data(), false, runtime.most_steps() + 1, 1, logits.data()); }),
        "steps, but membranes"));
    const auto floats_after = [&](const auto& change) {
        Graph other = g;
        for (Node& node : other.nodes) change(node);
        return !Runtime(other).integers();
    };
    CHECK_FALSE(floats_after([](Node&) {}));
    CHECK(floats_after([](Node& n) {
        if (auto* conv = std::get_if<Conv>(&n.op)) {
            conv->weight = conv->weight.clone();
            conv->weight.data<float>()[3] = 2.5f;
        }
    }));
    CHECK(floats_after([](Node& n) {
        if (auto* in = std::get_if<Input>(&n.op)) in->scale = 0;
    }));
    CHECK(floats_after([](Node& n) {
        if (auto* s = std::get_if<Neuron>(&n.op)) s->rule.compare = kernels::Compare::greater;
    }));
    CHECK(floats_after([](Node& n) {  // a pool of other windows than its counts
        if (n.name == "avg_count") std::get<Scale>(n.op).scale = Tensor::full<float>({1}, 3.0f);
    }));
}

TEST_CASE("runtime: dense or event by what the table's kernels cost") {
    const Graph g = whole_graph(false, 13);
    for (const bool integers : {false, true})
        for (const auto* table : cpu_tables()) {
            INFO("table " << std::string(table->name) << " integers " << integers);
            RuntimeOptions options;
            options.table = table;
            options.integers = integers;
            const plan::Plan plan = plan::compile(g, options);
            const kernels::StageCosts& costs = *kernels::stage_costs(table->name);
            size_t layers = 0;
            for (const auto& stage : plan.stages) {
                const auto* layer = std::get_if<plan::Layer>(&stage);
                if (layer == nullptr || layer->path != RuntimePath::automatic) continue;
                ++layers;
                const auto& s = layer->shape;
                const size_t inputs = s.h * s.w * s.cin;
                for (const size_t steps : {1, 16})
                    for (const double rate : {0.0, 0.01, 0.05, 0.2, 0.5, 1.0}) {
                        const auto events = size_t(rate * double(steps * inputs));
                        const bool dense = double(events) > layer->dense_above * double(steps);
                        CHECK(dense == (costs.dense(s, layer->adding, steps, events) <
                                        costs.sums(s, layer->adding, steps, events)));
                    }
            }
            CHECK(layers >= 3);
        }
}
