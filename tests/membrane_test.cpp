// Membranes and thresholds against their recurrences, in both orders and on every table.
#include "neurons/membrane.h"

#include "io/model.h"
#include "neurons/forward.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

constexpr size_t T = 12, N = 3;
const Shape sample = {2, 3, 4};

Tensor random(size_t n, uint64_t seed, double centre, double scale = 0.2) {
    std::vector<float> values = normal_values(n, seed, scale);
    for (float& x : values) x += float(centre);
    return Tensor::from(values, Shape{n});
}

// Parameters of one, C and all elements in turn, so that each way of sharing is met.
Membrane membrane(bool leaky, bool synapse, bool spiking) {
    Membrane m;
    m.dt = 1e-3;
    m.r = random(24, 1, 1);
    if (leaky) {
        m.tau = Tensor::from<float>({5e-3f, 8e-3f, 2e-3f, 1e-2f}, {4});
        m.v_leak = random(24, 2, 0.1);
    }
    if (synapse) {
        m.tau_syn = Tensor::full<float>({1}, 3e-3f);
        m.w_in = random(4, 3, 4);
    }
    if (spiking) {
        m.threshold = random(24, 4, 0.6, 0.1);
        m.v_reset = random(4, 5, -0.2, 0.1);
    }
    return m;
}

Graph around(Operation op) {
    Graph g;
    const size_t in = add_node(g, "in", Input{sample}, {});
    const size_t m = add_node(g, "m", std::move(op), {in});
    add_node(g, "out", Output{}, {m});
    check(g);
    return g;
}

Tensor drive(uint64_t seed, bool temporal = true) {
    const size_t rows = temporal ? T * N : N;
    const Tensor x = Tensor::from(normal_values(rows * sample.elements(), seed), {rows, 24});
    return temporal ? x.reshape({T, N, 2, 3, 4}) : x.reshape({N, 2, 3, 4});
}

float of(const Tensor& t, size_t i) {
    return t.data<float>()[i % t.elements()];
}

// The recurrence, one neuron at a time. [T, N, 24]
std::vector<float> expected(const Membrane& m, const Tensor& x, bool temporal) {
    const size_t size = sample.elements();
    std::vector<float> y(T * N * size);
    for (size_t n = 0; n < N; ++n)
        for (size_t e = 0; e < size; ++e) {
            float v = 0, i = 0;
            for (size_t t = 0; t < T; ++t) {
                const float now = x.data<float>()[((temporal ? t * N : 0) + n) * size + e];
                if (m.tau_syn.defined()) {
                    const float k = float(m.dt / double(of(m.tau_syn, e)));
                    i = i + (now * of(m.w_in, e) - i) * k;
                } else {
                    i = now;
                }
                const float push = i * of(m.r, e);
                if (m.tau.defined()) {
                    const float k = float(m.dt / double(of(m.tau, e)));
                    v = v + ((of(m.v_leak, e) - v) + push) * k;
                } else {
                    v = v + push;
                }
                float& out = y[(t * N + n) * size + e];
                out = v;
                if (!m.threshold.defined()) continue;
                out = v > of(m.threshold, e) ? 1.0f : 0.0f;
                if (out == 1) v = of(m.v_reset, e);
            }
        }
    return y;
}

std::vector<float> run(Compute& compute, const Graph& g, const Tensor& x, bool temporal,
                       bool step_by_step = false) {
    ForwardOptions how;
    how.T = T;
    how.temporal_input = temporal;
    how.step_by_step = step_by_step;
    return forward(compute, g, {}, x, how).output.value.to_vector<float>();
}

}  // namespace

TEST_CASE("a membrane follows its recurrence bit for bit, on every table and in both orders") {
    for (const bool temporal : {true, false})
        for (const bool leaky : {false, true})
            for (const bool synapse : {false, true})
                for (const bool spiking : {false, true}) {
                    if (synapse && !leaky) continue;
                    CAPTURE(temporal);
                    CAPTURE(leaky);
                    CAPTURE(synapse);
                    CAPTURE(spiking);
                    const Membrane m = membrane(leaky, synapse, spiking);
                    const Graph g = around(m);
                    const Tensor x = drive(7, temporal);
                    const std::vector<float> want = expected(m, x, temporal);
                    if (spiking) {
                        const auto ones = size_t(std::count(want.begin(), want.end(), 1.0f));
                        CHECK(ones > want.size() / 50);
                        CHECK(ones < want.size() / 2);
                    }
                    Compute reference(kernels::reference());
                    CHECK(run(reference, g, x, temporal) == want);
                    CHECK(run(reference, g, x, temporal, true) == want);
                    for (const auto* table : tables_to_test()) {
                        CAPTURE(table->name);
                        Compute compute(*table);
                        CHECK(run(compute, g, x, temporal) == want);
                    }
                }
}

TEST_CASE("a membrane's state goes on from one call to the next") {
    Compute compute;
    const Membrane m = membrane(true, true, true);
    const Tensor x = drive(8).reshape({T * N, 2, 3, 4});
    const Tensor whole = run_membrane(compute, m, x, T, false, nullptr);
    Tensor state;
    const Tensor first = run_membrane(compute, m, x.slice(0, 5 * N), 5, false, &state);
    const Tensor second = run_membrane(compute, m, x.slice(5 * N, T * N), T - 5, false, &state);
    std::vector<float> both = first.to_vector<float>(), rest = second.to_vector<float>();
    both.insert(both.end(), rest.begin(), rest.end());
    CHECK(both == whole.to_vector<float>());
    CHECK(contains(error_of([&] { run_membrane(compute, m, x.slice(0, 1), 1, false, &state); }),
                   "state [2, 3, 24] for [2, 1, 24]"));
}

TEST_CASE("a threshold compares strictly, of either sign, and lets static input stay static") {
    Compute compute;
    const Tensor at = Tensor::from<float>({-0.5f, 0, 0.25f, 1}, {4});
    const Graph g = around(Threshold{at});
    Tensor x = drive(9);
    float* values = x.data<float>();
    for (size_t i = 0; i < x.elements(); i += 3) values[i] = of(at, i);  // ties
    std::vector<float> want(x.elements());
    for (size_t i = 0; i < want.size(); ++i) want[i] = values[i] > of(at, i) ? 1.0f : 0.0f;
    CHECK(run(compute, g, x, true) == want);
    ForwardOptions how;
    how.T = T;
    const Forwarded still = forward(compute, g, {}, drive(10, false), how);
    CHECK_FALSE(still.time);
    CHECK(still.output.shape() == Shape{1, N, 2, 3, 4});
}

TEST_CASE("a scale may have a value for every element") {
    Compute compute;
    const Tensor scale = random(24, 11, 0, 1), x = drive(12);
    const auto y = run(compute, around(Scale{scale}), x, true);
    for (size_t i = 0; i < y.size(); ++i)
        REQUIRE(y[i] == x.data<float>()[i] * scale.data<float>()[i % 24]);
}

TEST_CASE("membranes are refused by name where they make no sense") {
    const auto refused = [](Membrane m) { return error_of([&] { around(m); }); };
    Membrane m = membrane(true, true, true);
    m.tau = m.v_leak = {};
    CHECK(contains(refused(m), "node 'm' (membrane): tau_syn without tau"));
    m = membrane(true, false, true);
    m.v_reset = {};
    CHECK(contains(refused(m), "v_reset undefined"));
    m = membrane(true, false, true);
    m.tau = Tensor::from<float>({1, 2, 0, 1}, {4});
    CHECK(contains(refused(m), "tau[2] is 0"));
    m.tau = Tensor::full<float>({5}, 1);
    CHECK(contains(refused(m), "tau [5] for an input [2, 3, 4]"));
    m = membrane(true, false, true);
    m.dt = 0;
    CHECK(contains(refused(m), "dt is 0"));

    Compute compute;
    Tape tape(compute);
    const Graph g = around(membrane(true, false, true));
    ForwardOptions how;
    how.T = T;
    CHECK(contains(error_of([&] { forward(compute, g, {}, drive(13, false), how, &tape); }),
                   "membrane 'm' has no gradient"));
}

TEST_CASE("a model with membranes is written and read back") {
    const TempFolder folder;
    Model model;
    model.graph = around(membrane(true, true, true));
    const size_t last = find_node(model.graph, "out");
    model.graph.nodes[last].op = Threshold{Tensor::full<float>({1}, 0.5f)};
    add_node(model.graph, "end", Output{}, {last});
    save_model(folder / "m.safetensors", model);
    const Model back = load_model(folder / "m.safetensors");
    Compute compute;
    const Tensor x = drive(14);
    CHECK(run(compute, back.graph, x, true) == run(compute, model.graph, x, true));
    CHECK(std::get<Membrane>(back.graph.nodes[find_node(back.graph, "m")].op).dt == 1e-3);
}
