// Hardware models: synaptic operations against brute force, energy against arithmetic by hand.
#include <map>

#include "hw/energy.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

// Weights of which about 30 % are zero.
Tensor sparse_weights(const Shape& shape, uint64_t seed) {
    auto w = normal_values(shape.elements(), seed);
    const auto keep = spike_values(shape.elements(), seed + 1, 0.7);
    for (size_t i = 0; i < w.size(); ++i) w[i] *= keep[i];
    return Tensor::from(w, shape);
}

Neuron neuron(float theta) {
    Neuron n;
    n.theta = Tensor::full<float>({1}, theta);
    return n;
}

// What a node took and gave, kept.
struct Seen {
    std::vector<float> x, y;
    bool x_time = false;
};

struct Run {
    Operations operations;
    std::vector<Operations> at;  // of the first 1 .. steps steps
    std::map<std::string, Seen> seen;
};

Run run(const Graph& g, const Tensor& input, size_t steps, bool temporal, size_t limit = 0) {
    Compute compute(Device{}, 1);
    std::vector<size_t> marks;
    for (size_t t = 1; t <= (limit > 0 ? limit : steps); ++t) marks.push_back(t);
    OperationCounter counter(g, limit, marks);
    Run out;
    ForwardOptions options;
    options.T = steps;
    options.temporal_input = temporal;
    options.observe = [&](const Observation& o) {
        counter.observe(o);
        Seen& seen = out.seen[g.nodes[o.node].name];
        if (o.x.defined()) seen.x = o.x.to_vector<float>();
        seen.y = o.y.to_vector<float>();
        seen.x_time = o.x_time;
    };
    forward(compute, g, {}, input, options);
    out.operations = counter.result();
    for (const size_t t : marks) out.at.push_back(counter.result(t));
    return out;
}

const LayerOperations& layer(const Operations& operations, const std::string& name) {
    for (const auto& l : operations.layers)
        if (l.name == name) return l;
    FAIL("no layer " << name);
    return operations.layers.front();
}

// For every output and kernel position of one sample: visit(input element, weight element).
template <class Visit>
void for_each_product(const kernels::ConvShape& s, Visit visit) {
    const long cin = long(s.cin / s.groups), cout = long(s.cout / s.groups);
    for (long oy = 0; oy < long(s.out_h()); ++oy)
        for (long ox = 0; ox < long(s.out_w()); ++ox)
            for (long o = 0; o < long(s.cout); ++o)
                for (long ky = 0; ky < long(s.kh); ++ky)
                    for (long kx = 0; kx < long(s.kw); ++kx) {
                        const long y =
                            oy * long(s.stride_h) + ky * long(s.dilation_h) - long(s.pad_h);
                        const long x =
                            ox * long(s.stride_w) + kx * long(s.dilation_w) - long(s.pad_w);
                        if (y < 0 || x < 0 || y >= long(s.h) || x >= long(s.w)) continue;
                        for (long c = 0; c < cin; ++c)
                            visit(size_t((y * long(s.w) + x) * long(s.cin) + o / cout * cin + c),
                                  size_t(((ky * long(s.kw) + kx) * cin + c) * long(s.cout) + o));
                    }
}

}  // namespace

TEST_CASE("fan-out and dense MACs of convolutions equal an enumeration of every product") {
    size_t tried = 0;
    for (size_t kernel : {size_t(1), size_t(2), size_t(3), size_t(5)})
        for (size_t stride : {size_t(1), size_t(2), size_t(3)})
            for (size_t pad : {size_t(0), size_t(1), size_t(2)})
                for (size_t dilation : {size_t(1), size_t(2)})
                    for (size_t groups : {size_t(1), size_t(2)}) {
                        const Shape input = {7, 6, 4};
                        Conv conv;
                        conv.weight = sparse_weights({kernel, 2, 4 / groups, 6}, kernel + stride);
                        conv.options = {stride,   3 - stride % 3, pad,   2 - pad,
                                        dilation, 3 - dilation,   groups};
                        if (dilation * (kernel - 1) + 1 > 7 + 2 * pad) continue;
                        const auto s = ops::conv_shape(input.with_leading(1), conv.weight.shape(),
                                                       conv.options);
                        const float* w = conv.weight.data<float>();
                        std::vector<uint64_t> want(input.elements());
                        uint64_t dense = 0;
                        for_each_product(s, [&](size_t i, size_t k) {
                            want[i] += w[k] != 0;
                            ++dense;
                        });
                        const Node node = {"conv", conv};
                        CHECK(fan_out(node, input) == want);
                        CHECK(dense_macs(node, input) == dense);
                        ++tried;
                    }
    CHECK(tried > 100);

    const Linear linear = {Tensor::from<float>({1, 0, 2, 0, 0, -1}, {3, 2}), {}};
    CHECK(fan_out({"linear", linear}, {3}) == std::vector<uint64_t>{1, 1, 1});
    CHECK(dense_macs({"linear", linear}, {3}) == 6);
    CHECK_THROWS_AS(accumulations({"linear", linear}, {3}, {1, 2}), Error);
}

TEST_CASE("operations of a spiking network equal a walk over every spike") {
    Graph g;
    size_t at = add_node(g, "input", Input{{9, 8, 2}}, {});
    at = add_node(g, "conv1", Conv{sparse_weights({3, 3, 2, 4}, 1), {}, {.pad_h = 1, .pad_w = 1}},
                  {at});
    at = add_node(g, "n1", neuron(0.8f), {at});
    at = add_node(g, "pool", AveragePool{{.kh = 2, .kw = 2, .stride_h = 2, .stride_w = 2}}, {at});
    at = add_node(
        g, "conv2",
        Conv{sparse_weights({3, 3, 4, 6}, 3), {}, {.stride_h = 2, .pad_h = 1, .pad_w = 1}}, {at});
    at = add_node(g, "n2", neuron(0.3f), {at});
    at = add_node(g, "flatten", Flatten{}, {at});
    at = add_node(g, "linear", Linear{sparse_weights({48, 5}, 5), {}}, {at});
    add_node(g, "output", Output{}, {at});
    const size_t N = 3, T = 5;
    const auto x = Tensor::from(normal_values(N * 9 * 8 * 2, 7), {N, 9, 8, 2});

    for (size_t limit : {size_t(0), size_t(2)}) {
        const Run r = run(g, x, T, false, limit);
        const size_t steps = limit == 0 ? T : limit;
        CHECK(r.operations.samples == N);
        CHECK(r.operations.steps == steps);
        CHECK(r.operations.layers.size() == 3);

        // The first layer is analog and constant: every product once a sample.
        const auto& first = layer(r.operations, "conv1");
        CHECK(first.analog);
        CHECK(first.cached);
        CHECK(first.acs == 0);
        CHECK(first.macs == N * first.dense_macs);

        // The second sees pooled spikes: each spike of a window adds w / 4 for itself.
        const auto& conv = std::get<Conv>(g.nodes[find_node(g, "conv2")].op);
        const auto s = ops::conv_shape({1, 4, 4, 4}, conv.weight.shape(), conv.options);
        const std::vector<float>& spikes = r.seen.at("n1").y;
        uint64_t acs = 0, spike_count = 0;
        for (size_t row = 0; row < steps * N; ++row) {
            const float* y = spikes.data() + row * 9 * 8 * 4;
            for (size_t i = 0; i < 9 * 8 * 4; ++i) spike_count += y[i] != 0;
            for_each_product(s, [&](size_t i, size_t k) {
                if (conv.weight.data<float>()[k] == 0) return;
                const size_t c = i % 4, px = i / 4 % 4, py = i / 16;
                for (size_t dy = 0; dy < 2; ++dy)
                    for (size_t dx = 0; dx < 2; ++dx)
                        acs += y[((2 * py + dy) * 8 + 2 * px + dx) * 4 + c] != 0;
            });
        }
        CHECK(spike_count > 100);
        CHECK(layer(r.operations, "conv2").acs == acs);
        CHECK(layer(r.operations, "conv2").macs == 0);

        const float* w = std::get<Linear>(g.nodes[find_node(g, "linear")].op).weight.data<float>();
        uint64_t linear = 0;
        const std::vector<float>& second = r.seen.at("n2").y;
        for (size_t row = 0; row < steps * N; ++row)
            for (size_t i = 0; i < 48; ++i)
                for (size_t o = 0; o < 5; ++o)
                    linear += second[row * 48 + i] != 0 && w[i * 5 + o] != 0;
        CHECK(linear > 0);
        CHECK(layer(r.operations, "linear").acs == linear);
        CHECK(r.operations.acs() == acs + linear);
        CHECK(r.operations.macs() == first.macs);
    }
    // One run counts its beginnings too.
    const Run whole = run(g, x, T, false), two = run(g, x, T, false, 2);
    CHECK(whole.at[1].acs() == two.operations.acs());
    CHECK(whole.at[1].acs() < whole.at[2].acs());
    CHECK(whole.at[1].macs() == two.operations.macs());
    CHECK(whole.at.back().acs() == whole.operations.acs());
}

TEST_CASE("frames of events count as spikes, graded frames as MACs at every step") {
    Graph g;
    size_t at = add_node(g, "input", Input{{6}}, {});
    at = add_node(g, "linear", Linear{Tensor::full<float>({6, 4}, 0.5f), {}}, {at});
    at = add_node(g, "neuron", neuron(1), {at});
    add_node(g, "output", Output{}, {at});
    const size_t T = 7, N = 2;
    const auto events = spike_values(T * N * 6, 1, 0.4);
    uint64_t spikes = 0;
    for (float e : events) spikes += e != 0;

    const Run binary = run(g, Tensor::from(events, {T, N, 6}), T, true);
    CHECK(layer(binary.operations, "linear").acs == spikes * 4);
    CHECK(binary.operations.macs() == 0);

    auto graded = events;
    graded[3] = 2;
    const Run counts = run(g, Tensor::from(graded, {T, N, 6}), T, true);
    const auto& linear = layer(counts.operations, "linear");
    CHECK(linear.analog);
    CHECK_FALSE(linear.cached);
    CHECK(linear.macs == T * N * 24);
    CHECK(linear.acs == 0);

    const Run still = run(g, Tensor::from(spike_values(N * 6, 2, 0.5), {N, 6}), T, false);
    CHECK(layer(still.operations, "linear").cached);
    CHECK(layer(still.operations, "linear").macs == N * 24);
}

TEST_CASE("a residual branch is charged one accumulation for each spike that reaches a weight") {
    Graph g;
    const size_t input = add_node(g, "input", Input{{8}}, {});
    const size_t a = add_node(g, "a", Linear{sparse_weights({8, 8}, 1), {}}, {input});
    const size_t n1 = add_node(g, "n1", neuron(0.5f), {a});
    const size_t b = add_node(g, "b", Linear{sparse_weights({8, 8}, 3), {}}, {n1});
    const size_t scale =
        add_node(g, "scale", Scale{Tensor::from<float>({1, 1, 0, 1, 1, 1, 1, 2}, {8})}, {n1});
    const size_t n2 = add_node(g, "n2", neuron(0.5f), {b, scale});
    const size_t n3 = add_node(g, "n3", neuron(0.5f), {n2, n1});
    add_node(g, "output", Output{}, {n3});
    const size_t N = 4, T = 6;
    const Run r = run(g, Tensor::from(normal_values(N * 8, 5), {N, 8}), T, false);
    uint64_t scaled = 0, direct = 0;
    for (size_t i = 0; i < T * N * 8; ++i) {
        const bool first = r.seen.at("n1").y[i] != 0, second = r.seen.at("n2").y[i] != 0;
        scaled += first && i % 8 != 2;
        direct += size_t(first) + size_t(second);
    }
    CHECK(scaled > 0);
    CHECK(layer(r.operations, "scale").acs == scaled);
    CHECK(layer(r.operations, "n3").acs == direct);
}

TEST_CASE("energy is counted operations times constants, and may be a loss") {
    Operations operations;
    operations.samples = 10;
    operations.steps = 4;
    operations.layers = {{"first", 5000, 0, 500, true, true}, {"second", 0, 30000, 1000}};
    const Energy e = energy(operations, digital_45nm());
    CHECK(e.ann_macs == 1500);
    CHECK(e.macs == 500);
    CHECK(e.acs == 3000);
    CHECK(e.ann_picojoules == doctest::Approx(1500 * 4.6));
    CHECK(e.picojoules == doctest::Approx(500 * 4.6 + 3000 * 0.9));
    CHECK(e.saving == doctest::Approx(100 * (1 - 5000.0 / 6900)));
    CHECK(e.wrong_saving == doctest::Approx(100 * (1 - 5000.0 / 11900)));
    CHECK(energy(operations, digital_45nm(), 3).ann_macs == 4500);

    operations.layers[1].acs = 300000;
    CHECK(energy(operations, digital_45nm()).saving < 0);
    CHECK(energy(operations, digital_45nm()).wrong_saving > 0);

    // First layer cached: 500 MACs a sample. What is left of the budget, in ACs, over those fired.
    CHECK(break_even_rate(e) == doctest::Approx((1500 - 500) * 4.6 / (3000 * 0.9)));
    const Operations always = without_cache(operations);
    CHECK(always.layers[0].macs == 20000);
    CHECK(always.layers[1].acs == 300000);
    CHECK_FALSE(always.layers[0].cached);
    CHECK(break_even_rate(energy(always, digital_45nm())) == 0);

    const Json json = to_json(e);
    CHECK(json["label"] == "modelled");
    CHECK(json["mac"]["picojoules"] == 4.6);
    CHECK(json["ac"]["source"].get<std::string>().find("Horowitz") != std::string::npos);
    CHECK(json["wrong_formula"]["label"].get<std::string>().find("wrong") == 0);
    CHECK(json["layers"].size() == 2);
    CHECK_THROWS_AS(energy(Operations{}, digital_45nm()), Error);
}

TEST_CASE("counts of pooled spikes are spikes still: as many accumulations as their averages") {
    uint64_t acs[2] = {};
    for (const bool counted : {false, true}) {
        Graph g;
        size_t at = add_node(g, "input", Input{{4, 4, 2}}, {});
        at = add_node(g, "pool", AveragePool{}, {at});
        if (counted) at = add_node(g, "count", Scale{Tensor::full<float>({1}, 4)}, {at});
        at = add_node(g, "conv", Conv{sparse_weights({2, 2, 2, 3}, 1), {}, {}}, {at});
        at = add_node(g, "neuron", neuron(1), {at});
        at = add_node(g, "flatten", Flatten{}, {at});
        at = add_node(g, "fc", Linear{sparse_weights({3, 4}, 3), {}}, {at});
        add_node(g, "output", Output{}, {at});
        const size_t T = 5, N = 2;
        const Run r =
            run(g, Tensor::from(spike_values(T * N * 32, 7, 0.4), {T, N, 4, 4, 2}), T, true);
        CHECK(layer(r.operations, "conv").macs == 0);
        CHECK(r.operations.layers.size() == 2);
        acs[counted] = layer(r.operations, "conv").acs;
    }
    CHECK(acs[0] > 0);
    CHECK(acs[0] == acs[1]);
}
