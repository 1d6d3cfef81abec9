// Spiking networks on a CUDA device: the CPU's bits, in every order, recorded, and after a
// conversion there.
#include <map>

#include "convert/calibrate.h"
#include "convert/fold.h"
#include "convert/measure.h"
#include "convert/quantize.h"
#include "convert/spikes.h"
#include "convert/verify.h"
#include "neurons/recorded.h"
#include "tests/devices.h"

using namespace nc;
using namespace nc::test;

namespace {

// A converted network without training: thresholds given, everything folded.
Graph converted(Graph g, const std::string& neuron, float lambda) {
    g = fold_batch_norm(std::move(g));
    g = to_qcfs(g, constant_thresholds(g, lambda), 4, {});
    return fold_amplitudes(to_spikes(std::move(g), neuron, 4));
}

// Every node's output of a run.
std::map<std::string, Tensor> outputs(Compute& compute, const Graph& g, const Tensor& x, size_t T,
                                      ops::SpikePath path) {
    std::map<std::string, Tensor> out;
    ForwardOptions how;
    how.T = T;
    how.path = path;
    how.observe = [&](const Observation& o) { out[o.graph.nodes[o.node].name] = o.y.to_host(); };
    forward(compute, on_device(g, compute), {}, x.to(*compute.allocator), how);
    return out;
}

}  // namespace

TEST_CASE(
    "device: a converted network gives the CPU's bits, layer by layer, step by step, recorded") {
    Compute host(Device{}, 1);
    const Tensor x = random_tensor({2, 8, 8, 1}, 5);
    const size_t T = 4;
    on_devices([&](Compute& compute) {
        for (const Graph& g : {converted(small_network(3, true), "if", 0.6f),
                               converted(residual_network(4), "if", 0.5f),
                               converted(small_network(6, false), "lif", 0.3f),
                               converted(small_network(3, true), "signed", 0.6f),
                               converted(residual_network(4), "exact", 0.5f)}) {
            const auto wanted = outputs(host, g, x, T, ops::SpikePath::dense);
            uint64_t spikes = 0;
            for (const auto path : {ops::SpikePath::dense, ops::SpikePath::automatic}) {
                const auto found = outputs(compute, g, x, T, path);
                for (const auto& given : wanted) {
                    const std::string& name = given.first;
                    const Tensor& y = given.second;
                    CHECK_MESSAGE(same_bits(y, found.at(name)), name);
                    if (std::holds_alternative<Neuron>(node_of(g, name).op))
                        for (const float v : y.to_vector<float>()) spikes += v != 0;
                }
            }
            CHECK(spikes > 100);
            const auto logits = [&](const Tensor& input) {
                return run(compute, on_device(g, compute), input.to(*compute.allocator), int(T))
                    .to_host();
            };
            RecordedForward recorded(compute, g, x.shape(), T);
            for (int again = 0; again < 2; ++again) CHECK(same_bits(recorded.run(x), logits(x)));
            const Tensor other = random_tensor({2, 8, 8, 1}, 77);
            CHECK(same_bits(recorded.run(other.to(*compute.allocator)), logits(other)));
            CHECK(!same_bits(logits(other), logits(x)));
            CHECK(contains(error_of([&] { recorded.run(x.slice(0, 1)); }), "[1, 8, 8, 1]"));
        }
        // Unfolded, with thresholds of 1, and one step after the other.
        Graph direct = fold_batch_norm(spiking_network());
        ForwardOptions steps;
        steps.T = T;
        steps.step_by_step = true;
        const auto stepped = [&](Compute& c) {
            return forward(c, on_device(direct, c), {}, x.to(*c.allocator), steps)
                .output.value.to_host();
        };
        CHECK(same_bits(stepped(compute), stepped(host)));
    });
}

TEST_CASE("device: frames over time and delayed edges give the CPU's bits") {
    Compute host(Device{}, 1);
    Graph g = converted(residual_network(4), "if", 0.5f);
    for (Edge& e : g.edges)
        if (g.nodes[e.from].name == "act1" && g.nodes[e.to].name == "act2") e.delay = 1;
    const Tensor frames = random_tensor({3, 2, 8, 8, 1}, 9);
    ForwardOptions how;
    how.temporal_input = true;
    const auto logits = [&](Compute& c, const Graph& network) {
        return forward(c, on_device(network, c), {}, frames.to(*c.allocator), how)
            .output.value.to_host();
    };
    on_devices([&](Compute& compute) { CHECK(same_bits(logits(compute, g), logits(host, g))); });
}

TEST_CASE("device: a conversion runs there from end to end, and gives a network of the host's") {
    const auto data = quarters(60, 7), test = quarters(20, 8);
    Compute host(Device{}, 1);
    Model model;
    model.graph = small_network(11, true);
    ConvertOptions o = quick_options();
    o.T = 2;
    o.qcfs_epochs = o.if_epochs = 1;
    o.batch = 27;
    o.curve_T = 4;
    o.bias_calibration = "step";
    on_devices([&](Compute& compute) {
        const Converted c = convert(compute, model, *data, test.get(), o);
        CHECK(c.statistics.accuracy_at_t.size() == 4);
        CHECK(c.statistics.energy.has_value());
        // The same spikes on both, counted, hashed and priced.
        MeasureOptions measure;
        measure.T = 2;
        measure.hash = measure.operations = true;
        const Measured here = measure_sparsity(host, c.model.graph, *test, measure);
        const Measured there = measure_sparsity(compute, c.model.graph, *test, measure);
        CHECK(here.hash() == there.hash());
        CHECK(here.spikes() == there.spikes());
        CHECK(here.spikes() > 0);
        CHECK(here.accuracy_at_t == there.accuracy_at_t);
        CHECK(here.operations->acs() == there.operations->acs());
        CHECK(*c.statistics.if_accuracy == doctest::Approx(here.accuracy));
        const auto rasters = [&](Compute& where) {
            std::vector<std::vector<bool>> out;
            for (const auto& raster : spike_rasters(where, c.model.graph, *test, 0, 2, 5))
                out.insert(out.end(), raster.neurons.begin(), raster.neurons.end());
            return out;
        };
        CHECK(rasters(host) == rasters(compute));
    });
}

TEST_CASE("device: takes part in verification, with every u, v and s of the integer simulator") {
    const auto data = quarters(20, 9);
    Compute host(Device{}, 1);
    QuantizeOptions quantized;
    quantized.T = 3;
    quantized.calibration_samples = 10;
    const Graph g =
        quantize(host, converted(residual_network(4), "if", 0.5f), *data, quantized).graph;
    on_devices([&](Compute& compute) {
        VerifyOptions how;
        how.T = 3;
        how.samples = 4;
        how.device = &compute;
        const Verification v = verify(g, *data, how);
        CHECK(v.passed());
        const VerifiedBackend& last = v.backends.back();
        CHECK(last.name == std::string("float ") + compute.table->name);
        CHECK(last.spikes == v.backends.front().spikes);
        CHECK(last.spikes > 50);
    });
}

// On a card only: the emulation would take a day.
TEST_CASE("device: spikes") {
    if (kernels::cuda_backend() == nullptr)
        return skip(std::string(kernels::why_no_cuda()) +
                    "; the other cases of a device ran on the emulated one alone");
    constexpr uint64_t enough = 100'000'000, enough_spikes = 1'000'000;
    struct Case {
        const char* model;
        Shape sample;
        size_t T;
    };
    uint64_t compared = 0, spikes = 0, different = 0;
    for (const Case& c : {Case{"resnet20", {32, 32, 3}, 16}, Case{"vgg16", {32, 32, 3}, 8},
                          Case{"lenet", {28, 28, 1}, 32}}) {
        const Graph g = converted(make_model(c.model, c.sample, 10, {}), "if", 0.5f);
        Compute host;
        Compute compute(*kernels::cuda(), *kernels::cuda_backend());
        uint64_t steps = 0;
        for (uint64_t batch = 0; steps < enough / 3; ++batch) {
            const Tensor x = random_tensor(c.sample.with_leading(32), 100 + batch);
            const auto wanted = outputs(host, g, x, c.T, ops::SpikePath::automatic);
            const auto found = outputs(compute, g, x, c.T, ops::SpikePath::automatic);
            for (const auto& [name, y] : wanted) {
                if (!std::holds_alternative<Neuron>(node_of(g, name).op)) continue;
                const Tensor& z = found.at(name);
                REQUIRE(y.shape() == z.shape());
                const float *a = y.data<float>(), *b = z.data<float>();
                for (size_t i = 0; i < y.elements(); ++i) {
                    different += a[i] != b[i];
                    spikes += a[i] != 0;
                }
                steps += y.elements();
            }
        }
        compared += steps;
    }
    MESSAGE(compared << " neuron-steps compared, " << spikes << " spikes, " << different
                     << " differ");
    CHECK(compared >= enough);
    CHECK(spikes >= enough_spikes);
    CHECK(different == 0);
}
