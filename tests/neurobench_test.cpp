// NeuroBench's metrics against a literal retelling of the package: every layer run once more with
// all that is not zero set to one, its outputs added up, a sample and a step at a time.
#include "hw/neurobench.h"

#include "tests/check.h"
#include "tests/convert_networks.h"

using namespace nc;
using namespace nc::test;

namespace {

using Values = std::vector<double>;

struct Map {
    size_t h = 1, w = 1, c = 0;
    Values at;
};

struct Layer {  // kh = 0: linear
    size_t kh = 0, kw = 0, in = 0, out = 0, stride = 1, pad = 0;
    Values weight, bias;  // [kh, kw, in, out] or [in, out]; bias may be empty

    Map operator()(const Map& x) const {
        Map y;
        if (kh == 0) {
            y.c = out;
            y.at.assign(out, 0);
            for (size_t o = 0; o < out; ++o) {
                for (size_t i = 0; i < in; ++i) y.at[o] += x.at[i] * weight[i * out + o];
                if (!bias.empty()) y.at[o] += bias[o];
            }
            return y;
        }
        y.h = (x.h + 2 * pad - kh) / stride + 1;
        y.w = (x.w + 2 * pad - kw) / stride + 1;
        y.c = out;
        for (size_t oy = 0; oy < y.h; ++oy)
            for (size_t ox = 0; ox < y.w; ++ox)
                for (size_t o = 0; o < out; ++o) {
                    double sum = bias.empty() ? 0 : bias[o];
                    for (size_t ky = 0; ky < kh; ++ky)
                        for (size_t kx = 0; kx < kw; ++kx) {
                            const long iy = long(oy * stride + ky) - long(pad);
                            const long ix = long(ox * stride + kx) - long(pad);
                            if (iy < 0 || ix < 0 || iy >= long(x.h) || ix >= long(x.w)) continue;
                            for (size_t i = 0; i < in; ++i)
                                sum += x.at[(size_t(iy) * x.w + size_t(ix)) * in + i] *
                                       weight[((ky * kw + kx) * in + i) * out + o];
                        }
                    y.at.push_back(sum);
                }
        return y;
    }
};

// The package's counters.
struct Package {
    double macs = 0, acs = 0, dense = 0, updates = 0, zeros = 0, outputs = 0;

    static Values binary(Values v, bool all_ones) {
        for (double& x : v) x = all_ones || x != 0 ? 1 : 0;
        return v;
    }
    Map connection(const Layer& layer, const Map& x) {
        bool spiking = true;
        for (const double v : x.at) spiking = spiking && (v == 0 || v == 1 || v == -1);
        for (const bool total : {false, true}) {
            Layer copy = layer;
            copy.weight = binary(copy.weight, total);
            copy.bias.clear();
            Map ones = x;
            ones.at = binary(ones.at, total);
            double sum = 0;
            for (const double v : copy(ones).at) sum += v;
            (total ? dense : spiking ? acs : macs) += sum;
        }
        return layer(x);
    }
    // v: the membranes, empty before the first step.
    Map neurons(const Map& x, Values& v, const Values& theta, double beta, bool zero, double start,
                bool negative, std::vector<int>& sent) {
        Map y = x;
        const bool first = v.empty();
        if (first)
            for (size_t i = 0; i < x.at.size(); ++i) v.push_back(start * theta[i % theta.size()]);
        sent.resize(v.size());
        for (size_t i = 0; i < v.size(); ++i) {
            const double before = v[i], limit = theta[i % theta.size()];
            v[i] = beta * v[i] + x.at[i];
            y.at[i] = v[i] >= limit ? 1 : negative && v[i] < 0 && sent[i] > 0 ? -1 : 0;
            if (y.at[i] > 0) v[i] = zero ? 0 : v[i] - limit;
            if (y.at[i] < 0) v[i] += limit;
            sent[i] += int(y.at[i]);
            updates += first || v[i] - before != 0;
            zeros += y.at[i] == 0;
            ++outputs;
        }
        return y;
    }
};

// Multiples of 1/16, so that every sum is exact in any order; a third of them zero.
Tensor sixteenths(const Shape& shape, uint64_t seed) {
    Random random(seed);
    std::vector<float> values(shape.elements());
    for (float& v : values)
        v = random.below(3) == 0 ? 0.0f : float(int64_t(random.below(25)) - 12) / 16;
    return Tensor::from(values, shape);
}

Layer layer_of(const Tensor& weight, const Tensor& bias, size_t stride = 1, size_t pad = 0) {
    Layer out;
    const bool conv = weight.shape().rank() == 4;
    if (conv) {
        out.kh = weight.shape()[0];
        out.kw = weight.shape()[1];
    }
    out.in = weight.shape()[weight.shape().rank() - 2];
    out.out = weight.shape().back();
    out.stride = stride;
    out.pad = pad;
    for (const float w : weight.to_vector<float>()) out.weight.push_back(w);
    if (bias.defined())
        for (const float b : bias.to_vector<float>()) out.bias.push_back(b);
    return out;
}

Neuron neuron(const Tensor& theta, double beta = 1, double start = 0.5) {
    Neuron n;
    n.theta = theta;
    n.amplitude = Neuron::Amplitude::one;
    n.v0_fraction = start;
    n.rule.beta = beta;
    return n;
}

NeuroBench count(const Graph& g, const Tensor& x, size_t T, bool temporal, size_t batch) {
    Compute compute(Device{}, 1);
    NeuroBenchCounter counter(g);
    ForwardOptions options;
    options.T = T;
    options.temporal_input = temporal;
    options.observe = [&](const Observation& o) { counter.observe(o); };
    const size_t N = x.shape()[temporal ? 1 : 0];
    for (size_t n = 0; n < N && !temporal; n += batch)
        forward(compute, g, {}, x.slice(n, std::min(N, n + batch)), options);
    if (temporal) forward(compute, g, {}, x, options);
    return counter.result();
}

void same(const NeuroBench& have, const Package& want, size_t samples) {
    const auto N = double(samples);
    CHECK(have.samples == samples);
    CHECK(have.effective_macs == want.macs / N);
    CHECK(have.effective_acs == want.acs / N);
    CHECK(have.dense == want.dense / N);
    CHECK(have.membrane_updates == want.updates / N);
    CHECK(have.activation_sparsity == want.zeros / want.outputs);
    CHECK(want.macs + want.acs > 0);
    CHECK(want.macs + want.acs < want.dense);
}

}  // namespace

TEST_CASE("neurobench: convolutions, a residual, pooled spikes and zero weights") {
    const size_t N = 5, T = 6, h = 6, w = 8;
    const Tensor w1 = sixteenths({3, 3, 2, 4}, 1), b1 = sixteenths({4}, 2);
    const Tensor w2 = sixteenths({3, 3, 4, 4}, 3), w3 = sixteenths({2, 3, 4, 5}, 4);
    const Tensor w4 = sixteenths({20, 3}, 5), b4 = sixteenths({3}, 6);
    const Tensor theta = Tensor::from<float>({0.5f, 1, 0.75f, 1.25f}, {4});
    const Tensor one = Tensor::full<float>({1}, 1);
    Graph g;
    size_t at = add_node(g, "input", Input{{h, w, 2}}, {});
    at = add_node(g, "conv1", Conv{w1, b1, {.pad_h = 1, .pad_w = 1}}, {at});
    const size_t n1 = add_node(g, "n1", neuron(theta), {at});
    at = add_node(g, "conv2", Conv{w2, {}, {.pad_h = 1, .pad_w = 1}}, {n1});
    at = add_node(g, "n2", neuron(one), {at, n1});  // an identity residual
    at = add_node(g, "pool", AveragePool{{.kh = 2, .kw = 2, .stride_h = 2, .stride_w = 2}}, {at});
    at = add_node(g, "conv3", Conv{w3, {}, {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}},
                  {at});
    at = add_node(g, "n3", neuron(one, 0.5, 0), {at});
    at = add_node(g, "flatten", Flatten{}, {at});
    at = add_node(g, "fc", Linear{w4, b4}, {at});
    add_node(g, "output", Output{}, {at});
    const Tensor x = sixteenths({N, h, w, 2}, 9);

    Package want;
    const Layer conv1 = layer_of(w1, b1, 1, 1), conv2 = layer_of(w2, {}, 1, 1),
                conv3 = layer_of(w3, {}, 2, 1), fc = layer_of(w4, b4);
    const Values thetas = {0.5, 1, 0.75, 1.25};
    size_t graded = 0, plain = 0;
    for (size_t n = 0; n < N; ++n) {
        Values v1, v2, v3;
        std::vector<int> sent;
        for (size_t t = 0; t < T; ++t) {
            Map in{h, w, 2, {}};
            for (size_t i = 0; i < h * w * 2; ++i)
                in.at.push_back(x.data<float>()[n * h * w * 2 + i]);
            const Map s1 =
                want.neurons(want.connection(conv1, in), v1, thetas, 1, false, 0.5, false, sent);
            Map sum = want.connection(conv2, s1);
            for (size_t i = 0; i < sum.at.size(); ++i) sum.at[i] += s1.at[i];
            const Map s2 = want.neurons(sum, v2, {1}, 1, false, 0.5, false, sent);
            Map pooled{h / 2, w / 2, 4, Values(h / 2 * (w / 2) * 4)};
            for (size_t y = 0; y < h; ++y)
                for (size_t c = 0; c < w; ++c)
                    for (size_t k = 0; k < 4; ++k)
                        pooled.at[(y / 2 * (w / 2) + c / 2) * 4 + k] +=
                            s2.at[(y * w + c) * 4 + k] / 4;
            bool ones = true;
            for (const double p : pooled.at) ones = ones && (p == 0 || p == 1);
            ++(ones ? plain : graded);
            const Map s3 =
                want.neurons(want.connection(conv3, pooled), v3, {1}, 0.5, false, 0, false, sent);
            want.connection(fc, s3);
        }
    }
    CHECK(graded > 0);
    CHECK(want.acs > 0);
    for (const size_t batch : {size_t(1), size_t(2), N})
        same(count(g, x, T, false, batch), want, N);

    const NeuroBench constants = static_metrics(g);
    size_t zeros = 0, weights = 0, parameters = 0;
    for (const Layer& l : {conv1, conv2, conv3, fc}) {
        for (const double value : l.weight) zeros += value == 0;
        weights += l.weight.size();
        parameters += l.weight.size() + l.bias.size();
    }
    parameters += 4 + 1 + 1;  // thresholds
    CHECK(constants.parameters == parameters);
    CHECK(constants.footprint == 4 * parameters);
    CHECK(std::abs(constants.connection_sparsity - double(zeros) / double(weights)) <= 0.00005001);
    CHECK(std::abs(constants.connection_sparsity * 1e4 -
                   std::round(constants.connection_sparsity * 1e4)) < 1e-9);
}

TEST_CASE("neurobench: recordings, graded and not, with leaks, resets to zero and signed spikes") {
    const size_t N = 4, T = 7;
    const Tensor w1 = sixteenths({9, 11}, 21), w2 = sixteenths({11, 6}, 22),
                 w3 = sixteenths({6, 3}, 23);
    const Tensor one = Tensor::full<float>({1}, 1), half = Tensor::full<float>({1}, 0.5f);
    Neuron leaky = neuron(half, 0.5, 0);
    leaky.rule.reset = kernels::Reset::to_value;
    Neuron both = neuron(one);
    both.rule.spiking = kernels::Spiking::negative;
    Graph g;
    size_t at = add_node(g, "input", Input{{9}}, {});
    at = add_node(g, "a", Linear{w1, {}}, {at});
    at = add_node(g, "n1", leaky, {at});
    at = add_node(g, "b", Linear{w2, {}}, {at});
    at = add_node(g, "n2", both, {at});
    at = add_node(g, "c", Linear{w3, {}}, {at});
    add_node(g, "output", Output{}, {at});
    auto events = spike_values(T * N * 9, 24, 0.4);
    for (const bool graded : {false, true}) {
        // One frame of one sample holds a 2: only that one meets weights by multiplication.
        if (graded) events[(3 * N + 2) * 9 + 4] = 2;
        Package want;
        double negative = 0;
        for (size_t n = 0; n < N; ++n) {
            Values v1, v2;
            std::vector<int> sent1, sent2;
            for (size_t t = 0; t < T; ++t) {
                Map in{1, 1, 9, {}};
                for (size_t i = 0; i < 9; ++i) in.at.push_back(events[(t * N + n) * 9 + i]);
                const Map s1 = want.neurons(want.connection(layer_of(w1, {}), in), v1, {0.5}, 0.5,
                                            true, 0, false, sent1);
                const Map s2 = want.neurons(want.connection(layer_of(w2, {}), s1), v2, {1}, 1,
                                            false, 0.5, true, sent2);
                for (const double s : s2.at) negative += s < 0;
                want.connection(layer_of(w3, {}), s2);
            }
        }
        CHECK(negative > 0);
        CHECK((want.macs > 0) == graded);
        same(count(g, Tensor::from(events, {T, N, 9}), T, true, N), want, N);
    }
}

TEST_CASE("neurobench: the whole of it over a data set, with the package's keys") {
    Compute compute(Device{}, 1);
    const auto data = quarters(30, 3);
    Neuron n = neuron(Tensor::full<float>({1}, 1));
    const Graph g = small_network(4, false, n);
    EvaluateOptions how;
    how.T = 5;
    const NeuroBench one = neurobench(compute, g, *data, how);
    how.batch = 7;
    const NeuroBench other = neurobench(compute, g, *data, how);
    CHECK(to_json(one) == to_json(other));
    CHECK(one.samples == 30);
    CHECK(one.steps == 5);
    CHECK(one.classification_accuracy == evaluate(compute, g, *data, how).accuracy / 100);
    std::vector<std::string> keys;
    const Json json = to_json(one);
    for (const auto& [key, value] : json.items()) keys.push_back(key);
    CHECK(keys == std::vector<std::string>{"Footprint", "ParameterCount", "ConnectionSparsity",
                                           "ClassificationAccuracy", "ActivationSparsity",
                                           "SynapticOperations", "MembraneUpdates"});
    keys.clear();
    for (const auto& [key, value] : json["SynapticOperations"].items()) keys.push_back(key);
    CHECK(keys == std::vector<std::string>{"Effective_MACs", "Effective_ACs", "Dense"});

    CHECK_THROWS_AS(neurobench(compute, small_network(4, false), *data, how), Error);
    n.rule.spiking = kernels::Spiking::exact;
    CHECK_THROWS_AS(neurobench(compute, small_network(4, false, n), *data, how), Error);
    CHECK_THROWS_AS(NeuroBenchCounter(g).result(), Error);
}
