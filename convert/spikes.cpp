// QCFS becomes neurons; corrections of rates without training.
#include "convert/spikes.h"

#include <algorithm>
#include <map>
#include <variant>

#include "engine/graph_edit.h"
#include "neurons/zoo.h"

namespace nc {

Graph to_spikes(Graph g, const std::string& neuron, int T) {
    Neuron form = default_neuron(neuron == "lif" ? "lif" : "if");
    form.amplitude = Neuron::Amplitude::theta;
    // Through a reset the gradient is multiplied by 1 - theta * slope: with a width of its own,
    // whatever the threshold, it grows with T where thresholds are large and dies where they are
    // small. ResNet-20 on CIFAR-10, one epoch at T = 8: 65.4 % to 71.6 % with it, no gain without.
    form.rule.scale_width = true;
    if (neuron == "signed") {
        form.rule.spiking = kernels::Spiking::negative;
    } else if (neuron == "exact") {
        form.rule.spiking = kernels::Spiking::exact;
    } else if (neuron != "if" && neuron != "lif") {
        throw Error("[spikes] unknown neuron '" + neuron + "'", ErrorKind::usage,
                    "one of: if, lif, signed, exact");
    }
    for (size_t i = 0; i < g.nodes.size(); ++i) {
        const auto* q = std::get_if<Qcfs>(&g.nodes[i].op);
        if (!q) continue;
        if (neuron == "exact" && q->levels != T)
            throw Error("[spikes] the exact neuron needs T = L: T is " + std::to_string(T) + ", '" +
                        g.nodes[i].name + "' has L = " + std::to_string(q->levels));
        form.theta = q->lambda;
        g = replace(std::move(g), i, form);
    }
    return g;
}

namespace {

using Means = std::map<std::string, std::vector<double>>;

// Mean output of every neuron or QCFS per channel, over samples, space and the steps from `first`
// to T.
Means mean_outputs(Compute& compute, const Graph& g, const Dataset& samples,
                   const CorrectOptions& options, int T, int first = 0) {
    Means sums;
    std::map<std::string, size_t> rows;
    EvaluateOptions run;
    run.T = T;
    run.ann_frames = options.ann_frames;
    run.observe = [&](const Observation& o) {
        if (options.stop && options.stop()) throw Interrupted();
        const Node& node = g.nodes[o.node];
        if (!std::holds_alternative<Neuron>(node.op) && !std::holds_alternative<Qcfs>(node.op))
            return;
        const size_t rows_of_step = o.y.shape()[0] / (o.time ? o.T : 1);
        const Tensor here =
            o.y.slice(o.time ? size_t(first) * rows_of_step : 0, o.y.shape()[0]).to_host();
        const size_t cols = here.shape().back(), n = here.elements();
        auto& sum = sums[node.name];
        sum.resize(cols, 0);
        rows[node.name] += n / cols;
        const float* y = here.data<float>();
        for (size_t i = 0; i < n; ++i) sum[i % cols] += y[i];
    };
    evaluate(compute, g, samples, run);
    for (auto& [name, sum] : sums)
        for (double& s : sum) s /= double(rows[name]);
    return sums;
}

// The same network with rates for spikes: what its neurons approach as T grows.
Graph as_rates(Graph g, int levels) {
    for (size_t i = 0; i < g.nodes.size(); ++i)
        if (const auto* n = std::get_if<Neuron>(&g.nodes[i].op))
            g = replace(std::move(g), i, Qcfs{n->theta, levels});
    return g;
}

// What each channel's mean over the steps from `first` to T falls short of `want`.
std::vector<double> shortfall(Compute& compute, const Graph& g, size_t node, const Means& want,
                              const Dataset& samples, const CorrectOptions& options, int T,
                              int first = 0) {
    std::vector<double> out = want.at(g.nodes[node].name);
    const auto have = mean_outputs(compute, g, samples, options, T, first).at(g.nodes[node].name);
    for (size_t c = 0; c < out.size(); ++c) out[c] -= have[c];
    return out;
}

// A Linear or Conv in front of the node, with nothing but average pools between; else the node.
size_t feeding_layer(const Graph& g, size_t node) {
    for (const size_t e : inputs_of(g, node)) {
        size_t at = g.edges[e].from;
        while (std::holds_alternative<AveragePool>(g.nodes[at].op)) {
            const auto in = inputs_of(g, at);
            if (in.size() != 1) break;
            at = g.edges[in[0]].from;
        }
        if (is_weight_layer(g.nodes[at].op) && outputs_of(g, at).size() == 1) return at;
    }
    return node;
}

template <class Layer>
Layer with_more_bias(Layer layer, const std::vector<double>& more) {
    std::vector<float> bias(more.size());
    for (size_t c = 0; c < more.size(); ++c)
        bias[c] =
            float((layer.bias.defined() ? layer.bias.template data<float>()[c] : 0) + more[c]);
    layer.bias = Tensor::from(bias, Shape{bias.size()});
    return layer;
}

std::vector<size_t> neurons_in_order(const Graph& g) {
    std::vector<size_t> out;
    for (const size_t node : topological_order(g))
        if (std::holds_alternative<Neuron>(g.nodes[node].op)) out.push_back(node);
    return out;
}

}  // namespace

Graph correct_bias(Compute& compute, Graph g, const Dataset& samples, const CorrectOptions& options,
                   const Warn& warn) {
    const Means want =
        mean_outputs(compute, as_rates(g, options.levels), samples, options, options.T);
    for (const size_t node : neurons_in_order(g)) {
        const size_t layer = feeding_layer(g, node);
        if (layer == node) {
            if (warn)
                warn("'" + g.nodes[node].name +
                     "' has no weight layer of its own: its bias is "
                     "not calibrated");
            continue;
        }
        const auto more = shortfall(compute, g, node, want, samples, options, options.T);
        const Operation op = g.nodes[layer].op;
        if (const auto* conv = std::get_if<Conv>(&op))
            g = replace(std::move(g), layer, with_more_bias(*conv, more));
        else
            g = replace(std::move(g), layer, with_more_bias(std::get<Linear>(op), more));
    }
    return g;
}

Graph correct_step_bias(Compute& compute, Graph g, const Dataset& samples,
                        const CorrectOptions& options) {
    const Means want =
        mean_outputs(compute, as_rates(g, options.levels), samples, options, options.T);
    for (const size_t node : neurons_in_order(g)) {
        const size_t channels = want.at(g.nodes[node].name).size(), steps = size_t(options.T);
        const std::string name = unique_name(g, g.nodes[node].name + "_bias");
        g = insert_before(std::move(g), node, name,
                          StepBias{Tensor::full<float>({steps, channels}, 0)});
        const size_t added = g.nodes.size() - 1;
        std::vector<float> bias(steps * channels);
        for (size_t t = 0; t < steps; ++t) {
            const auto more =
                shortfall(compute, g, node, want, samples, options, int(t) + 1, int(t));
            for (size_t c = 0; c < channels; ++c) bias[t * channels + c] = float(more[c]);
            g = replace(std::move(g), added, StepBias{Tensor::from(bias, Shape{steps, channels})});
        }
    }
    return sorted(g);
}

Graph correct_membrane(Compute& compute, Graph g, const Dataset& samples,
                       const CorrectOptions& options) {
    const Means want =
        mean_outputs(compute, as_rates(g, options.levels), samples, options, options.T);
    for (const size_t node : neurons_in_order(g)) {
        const auto more = shortfall(compute, g, node, want, samples, options, options.T);
        Neuron neuron = std::get<Neuron>(g.nodes[node].op);
        const auto theta = neuron.theta.to_vector<float>();
        std::vector<float> thetas(more.size()), v0(more.size());
        for (size_t c = 0; c < v0.size(); ++c) {
            thetas[c] = theta[c % theta.size()];
            const double start = neuron.v0.defined()
                                     ? neuron.v0.data<float>()[c % neuron.v0.elements()]
                                     : neuron.v0_fraction * thetas[c];
            v0[c] = float(std::clamp(start + options.T * more[c], 0.0, double(thetas[c])));
        }
        neuron.theta = Tensor::from(thetas, Shape{thetas.size()});
        neuron.v0 = Tensor::from(v0, Shape{v0.size()});
        g = replace(std::move(g), node, neuron);
    }
    return g;
}

}  // namespace nc
