// Runs a spiking network over data and counts: accuracy at every T, spikes, hashes.
#include "convert/measure.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>

namespace nc {

namespace {

// A word into a hash (the finaliser of SplitMix64; Steele et al., OOPSLA 2014).
uint64_t mixed(uint64_t hash, uint64_t word) {
    uint64_t z = (hash ^ word) + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// One step of one sample: 32 neurons a word, a spike's sign in two bits.
uint64_t hash_step(uint64_t hash, const float* y, size_t neurons) {
    for (size_t i = 0; i < neurons; i += 32) {
        uint64_t word = 0;
        const size_t end = std::min(neurons, i + 32);
        for (size_t j = i; j < end; ++j)
            word = word << 2 | uint64_t(y[j] > 0) | uint64_t(y[j] < 0) << 1;
        hash = mixed(hash, word);
    }
    return hash;
}

void count_spikes(Measured::Layer& layer, const Observation& o, size_t steps) {
    const size_t per_step = o.y.elements() / o.T;
    layer.neurons = per_step / o.N;
    layer.possible += steps * per_step;
    if (o.bits.defined()) {
        const Tensor here = o.bits.to_host();
        const uint64_t* words = here.data<uint64_t>();
        const size_t count = steps * ((per_step + 63) / 64);
        for (size_t i = 0; i < count; ++i) layer.spikes += uint64_t(std::popcount(words[i]));
    } else {
        const Tensor here = o.y.to_host();
        const float* y = here.data<float>();
        for (size_t i = 0; i < steps * per_step; ++i) layer.spikes += y[i] != 0;
    }
}

void hash_spikes(Measured::Layer& layer, const Observation& o, size_t steps) {
    const Tensor here = o.y.to_host();
    const float* y = here.data<float>();
    for (size_t n = 0; n < o.N; ++n)
        for (size_t t = 0; t < steps; ++t)
            layer.hash = hash_step(layer.hash, y + (t * o.N + n) * layer.neurons, layer.neurons);
}

// An exact neuron spikes once it has seen all steps: of a longer run the first T are another
// network's.
bool sees_all_steps(const Graph& g) {
    return std::any_of(g.nodes.begin(), g.nodes.end(), [](const Node& node) {
        const auto* neuron = std::get_if<Neuron>(&node.op);
        return neuron && neuron->rule.spiking == kernels::Spiking::exact;
    });
}

}  // namespace

uint64_t Measured::spikes() const {
    uint64_t sum = 0;
    for (const Layer& layer : layers) sum += layer.spikes;
    return sum;
}

uint64_t Measured::possible() const {
    uint64_t sum = 0;
    for (const Layer& layer : layers) sum += layer.possible;
    return sum;
}

double Measured::sparsity() const {
    return 100 * (1 - double(spikes()) / double(possible()));
}

uint64_t Measured::hash() const {
    uint64_t all = 0;
    for (const Layer& layer : layers) all = mixed(all, layer.hash);
    return all;
}

Measured measure_sparsity(Compute& compute, const Graph& g, const Dataset& data,
                          const MeasureOptions& options) {
    if (!is_spiking(g))
        throw Error("[sparsity] the network has no spiking neurons", ErrorKind::model,
                    "convert it first");
    if (options.T < 1) throw Error("[sparsity] T must be at least 1: " + std::to_string(options.T));
    EvaluateOptions run;
    const bool longer = data.steps() == 0 && !sees_all_steps(g);
    run.T = longer ? std::max(options.T, options.curve_T) : options.T;
    run.samples = options.samples;
    run.path = options.path;
    std::map<size_t, Measured::Layer> layers;
    OperationCounter counter(g, size_t(options.T), options.operations_at);
    run.observe = [&](const Observation& o) {
        if (options.stop && options.stop()) throw Interrupted();
        if (options.operations) counter.observe(o);
        if (!emits_spikes(g.nodes[o.node].op) || !o.time) return;
        Measured::Layer& layer = layers[o.node];
        const size_t steps = std::min(o.T, size_t(options.T));
        count_spikes(layer, o, steps);
        if (options.hash) hash_spikes(layer, o, steps);
    };
    const Evaluation evaluation = evaluate(compute, g, data, run);

    Measured out;
    out.T = options.T;
    out.accuracy_at_t = evaluation.accuracy_at_t;
    out.accuracy = out.accuracy_at_t.at(size_t(options.T) - 1);
    out.samples = evaluation.samples;
    out.seconds = evaluation.seconds;
    if (options.operations) out.operations = counter.result();
    for (const size_t t : options.operations_at) out.operations_at.push_back(counter.result(t));
    for (const size_t node : topological_order(g))
        if (const auto found = layers.find(node); found != layers.end()) {
            found->second.name = g.nodes[node].name;
            out.layers.push_back(found->second);
        }
    return out;
}

std::vector<Raster> spike_rasters(Compute& compute, const Graph& g, const Dataset& data,
                                  uint32_t sample, int T, size_t most) {
    std::map<size_t, Raster> found;
    ForwardOptions run;
    run.T = size_t(T);
    run.observe = [&](const Observation& o) {
        if (!emits_spikes(g.nodes[o.node].op) || !o.time) return;
        Raster& raster = found[o.node];
        raster.name = g.nodes[o.node].name;
        const size_t neurons = o.y.elements() / o.T;
        const Tensor here = o.y.to_host();
        const float* y = here.data<float>();
        for (size_t i = 0; i < neurons && raster.neurons.size() < most; ++i) {
            std::vector<bool> train(o.T);
            for (size_t t = 0; t < o.T; ++t) train[t] = y[t * neurons + i] != 0;
            if (std::find(train.begin(), train.end(), true) != train.end())
                raster.neurons.push_back(train);
        }
    };
    Random unused(0);
    const Batch batch = data.batch(compute, {sample}, {}, unused);
    run.temporal_input = batch.temporal;
    forward(compute, on_device(g, compute), {}, batch.x, run);
    std::vector<Raster> out;
    for (const size_t node : topological_order(g))
        if (const auto it = found.find(node); it != found.end()) out.push_back(it->second);
    return out;
}

}  // namespace nc
