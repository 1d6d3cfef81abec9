// Counts what NeuroBench's hooks would see, layer by layer.
#include "hw/neurobench.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "hw/energy.h"

namespace nc {

namespace {

[[noreturn]] void fail_neurobench(const std::string& what, ErrorKind kind = ErrorKind::usage) {
    throw Error("[neurobench] " + what, kind);
}

const Tensor* weights_of(const Operation& op) {
    if (const auto* linear = std::get_if<Linear>(&op)) return &linear->weight;
    if (const auto* conv = std::get_if<Conv>(&op)) return &conv->weight;
    return nullptr;
}

// The package divides in single precision and rounds the decimal expansion.
double to_four_decimals(uint64_t zeros, uint64_t weights) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4f", double(float(zeros) / float(weights)));
    return std::strtod(text, nullptr);
}

}  // namespace

NeuroBench static_metrics(const Graph& g) {
    NeuroBench out;
    uint64_t zeros = 0, weights = 0;
    for (const Node& node : g.nodes) {
        for_each_tensor(node, [&](const char*, const Tensor& t, TensorRole) {
            if (t.defined()) out.footprint += t.bytes();
        });
        const Tensor* weight = weights_of(node.op);
        if (weight == nullptr) continue;
        const float* w = weight->data<float>();
        zeros += uint64_t(std::count(w, w + weight->elements(), 0.0f));
        weights += weight->elements();
    }
    out.parameters = parameter_count(g);
    if (weights > 0) out.connection_sparsity = to_four_decimals(zeros, weights);
    return out;
}

NeuroBenchCounter::NeuroBenchCounter(const Graph& graph)
    : graph_(graph), shapes_(infer_shapes(graph)) {
    for (const Node& node : graph_.nodes) {
        if (const auto* n = std::get_if<Neuron>(&node.op);
            n && n->rule.spiking == kernels::Spiking::exact)
            fail_neurobench(
                "node '" + node.name + "' is a neuron of two phases: it has no membrane at a step",
                ErrorKind::model);
        if (std::holds_alternative<Membrane>(node.op))
            fail_neurobench("node '" + node.name +
                                "' is a membrane in physical time: its updates are not counted",
                            ErrorKind::model);
    }
}

void NeuroBenchCounter::observe(const Observation& o) {
    const Operation& op = graph_.nodes.at(o.node).op;
    if (std::holds_alternative<Input>(op)) {
        samples_ += o.N;
        steps_ = o.T;
    } else if (weights_of(op) != nullptr) {
        count_synapses(o);
    } else if (const auto* neuron = std::get_if<Neuron>(&op)) {
        count_updates(o, *neuron);
    }
}

void NeuroBenchCounter::count_synapses(const Observation& o) {
    const Node& node = graph_.nodes[o.node];
    const size_t rows = o.N * (o.x_time ? o.T : 1), size = o.x.elements() / rows;
    // A constant input is presented at every step.
    const uint64_t times = o.x_time ? 1 : o.T;
    std::vector<uint64_t>& fan = fan_out_[o.node];
    const Shape shape = shapes_[graph_.edges[inputs_of(graph_, o.node).front()].from];
    if (fan.empty()) fan = fan_out(node, shape);
    const Tensor here = o.x.to_host();
    const float* x = here.data<float>();
    for (size_t r = 0; r < rows; ++r) {
        uint64_t operations = 0;
        bool spikes = true;
        for (size_t i = 0; i < size; ++i) {
            const float value = x[r * size + i];
            if (value == 0) continue;
            operations += fan[i];
            spikes = spikes && (value == 1 || value == -1);
        }
        (spikes ? acs_ : macs_) += operations * times;
    }
    dense_ += dense_macs(node, shape) * rows * times;
}

void NeuroBenchCounter::count_updates(const Observation& o, const Neuron& neuron) {
    const size_t frame = o.y.elements() / o.T, size = frame / o.N;
    const auto beta = float(neuron.rule.beta), reset = float(neuron.rule.reset_value);
    const bool subtract = neuron.rule.reset == kernels::Reset::subtract;
    // One threshold and one v(0) for each neuron of a sample.
    auto theta = neuron.theta.to_vector<float>();
    auto v0 = neuron.v0.defined() ? neuron.v0.to_vector<float>() : theta;
    if (!neuron.v0.defined())
        for (float& v : v0) v *= float(neuron.v0_fraction);
    for (auto* values : {&theta, &v0})
        for (size_t own = values->size(), i = own; i < size; ++i)
            values->push_back((*values)[i % own]);
    std::vector<float> v(frame);
    for (size_t i = 0; i < frame; ++i) v[i] = v0[i % size];
    const Tensor x_here = o.x.to_host(), y_here = o.y.to_host();
    for (size_t t = 0; t < o.T; ++t) {
        const float* x = x_here.data<float>() + (o.x_time ? t * frame : 0);
        const float* y = y_here.data<float>() + t * frame;
        for (size_t n = 0; n < frame; n += size)
            for (size_t i = 0; i < size; ++i) {
                const float before = v[n + i], spike = y[n + i];
                float now = beta * before + x[n + i];
                if (spike > 0) now = subtract ? now - theta[i] : reset;
                if (spike < 0) now = now + theta[i];
                v[n + i] = now;
                updates_ += t == 0 || now != before;
                zeros_ += spike == 0;
            }
    }
    outputs_ += o.T * frame;
}

NeuroBench NeuroBenchCounter::result() const {
    if (samples_ == 0) fail_neurobench("no samples were counted");
    NeuroBench out = static_metrics(graph_);
    const double samples = double(samples_);
    out.samples = samples_;
    out.steps = steps_;
    if (outputs_ > 0) out.activation_sparsity = double(zeros_) / double(outputs_);
    out.effective_macs = double(macs_) / samples;
    out.effective_acs = double(acs_) / samples;
    out.dense = double(dense_) / samples;
    out.membrane_updates = double(updates_) / samples;
    return out;
}

NeuroBench neurobench(Compute& compute, const Graph& g, const Dataset& data,
                      const EvaluateOptions& options) {
    if (!is_spiking(g))
        throw Error("[neurobench] the network has no spiking neurons", ErrorKind::model,
                    "convert it first");
    NeuroBenchCounter counter(g);
    EvaluateOptions run = options;
    run.observe = [&](const Observation& o) {
        if (options.observe) options.observe(o);
        counter.observe(o);
    };
    const Evaluation evaluation = evaluate(compute, g, data, run);
    NeuroBench out = counter.result();
    out.classification_accuracy = evaluation.accuracy / 100;
    return out;
}

Json to_json(const NeuroBench& n) {
    return {{"Footprint", n.footprint},
            {"ParameterCount", n.parameters},
            {"ConnectionSparsity", n.connection_sparsity},
            {"ClassificationAccuracy", n.classification_accuracy},
            {"ActivationSparsity", n.activation_sparsity},
            {"SynapticOperations",
             {{"Effective_MACs", n.effective_macs},
              {"Effective_ACs", n.effective_acs},
              {"Dense", n.dense}}},
            {"MembraneUpdates", n.membrane_updates}};
}

}  // namespace nc
