// Fills in the statistics of a conversion and gives them as JSON.
#include "convert/statistics.h"

#include <algorithm>

namespace nc {

void describe_neurons(const Graph& g, Statistics& s) {
    const auto shapes = infer_shapes(g);
    for (const size_t i : topological_order(g)) {
        const auto* neuron = std::get_if<Neuron>(&g.nodes[i].op);
        if (!neuron) continue;
        LayerStatistics layer;
        layer.name = g.nodes[i].name;
        layer.neurons = shapes[i].elements();
        const auto theta = neuron->theta.to_vector<float>();
        const auto [low, high] = std::minmax_element(theta.begin(), theta.end());
        layer.threshold_min = *low;
        layer.threshold_max = *high;
        double sum = 0;
        for (const float t : theta) sum += t;
        layer.threshold_mean = sum / double(theta.size());
        s.layers.push_back(std::move(layer));
    }
}

size_t frames_of(const Dataset& data, const std::string& ann_frames) {
    return data.steps() > 0 && ann_frames != "sum" ? size_t(data.steps()) : 1;
}

void measure_on(Compute& compute, const Graph& g, const Dataset& test, const ConvertOptions& o,
                Statistics& s) {
    MeasureOptions options;
    options.T = s.T;
    options.curve_T = o.curve_T;
    options.operations = true;
    for (int t = 1; t < s.T; t *= 2) options.operations_at.push_back(size_t(t));
    options.operations_at.push_back(size_t(s.T));
    options.stop = o.stop;
    const Measured m = measure_sparsity(compute, g, test, options);
    const size_t frames = frames_of(test, o.ann_frames);
    s.if_accuracy = m.accuracy;
    s.accuracy_at_t = m.accuracy_at_t;
    s.sparsity = m.sparsity();
    s.test_samples = m.samples;
    s.energy = energy(*m.operations, digital_45nm(), frames);
    for (const Operations& at : m.operations_at)
        s.costs.push_back({int(at.steps), m.accuracy_at_t.at(at.steps - 1),
                           energy(at, digital_45nm(), frames).picojoules});
    for (LayerStatistics& layer : s.layers)
        for (const auto& found : m.layers)
            if (found.name == layer.name) {
                layer.spikes = found.spikes;
                layer.possible = found.possible;
            }
}

namespace {

Json number(const std::optional<double>& value) {
    return value ? Json(*value) : Json(nullptr);
}

Json to_json(const LayerStatistics& layer) {
    Json out;
    out["name"] = layer.name;
    out["neurons"] = layer.neurons;
    out["threshold"] = {
        {"min", layer.threshold_min}, {"mean", layer.threshold_mean}, {"max", layer.threshold_max}};
    const bool counted = layer.possible > 0;
    out["sparsity"] =
        counted ? Json(100 * (1 - double(layer.spikes) / double(layer.possible))) : Json(nullptr);
    out["spikes"] = counted ? Json(layer.spikes) : Json(nullptr);
    out["possible_spikes"] = counted ? Json(layer.possible) : Json(nullptr);
    if (!layer.activation_histogram.empty())
        out["activation_histogram"] = {{"low", layer.histogram_low},
                                       {"high", layer.histogram_high},
                                       {"counts", layer.activation_histogram}};
    return out;
}

}  // namespace

Json to_json(const Statistics& s) {
    Json out;
    out["strategy"] = s.strategy;
    if (!s.neuron.empty()) out["neuron"] = s.neuron;
    out["T"] = s.T;
    if (s.levels > 0) out["levels"] = s.levels;
    out["ann_accuracy"] = number(s.ann_accuracy);
    out["qcfs_accuracy"] = number(s.qcfs_accuracy);
    out["if_accuracy"] = number(s.if_accuracy);
    out["validation_accuracy"] = number(s.validation_accuracy);
    out["conversion_gap"] =
        s.ann_accuracy && s.if_accuracy ? Json(*s.ann_accuracy - *s.if_accuracy) : Json(nullptr);
    out["accuracy_at_t"] = s.accuracy_at_t.empty() ? Json(nullptr) : Json(s.accuracy_at_t);
    out["test_samples"] = s.test_samples > 0 ? Json(s.test_samples) : Json(nullptr);
    out["sparsity"] = number(s.sparsity);
    uint64_t spikes = 0, possible = 0;
    for (const auto& layer : s.layers) spikes += layer.spikes, possible += layer.possible;
    out["spikes"] = possible > 0 ? Json(spikes) : Json(nullptr);
    out["possible_spikes"] = possible > 0 ? Json(possible) : Json(nullptr);
    out["energy"] = s.energy ? to_json(*s.energy) : Json(nullptr);
    for (const Statistics::Cost& cost : s.costs)
        out["costs"].push_back(
            {{"T", cost.T}, {"accuracy", cost.accuracy}, {"picojoules", cost.picojoules}});
    out["conversion_time"] = s.conversion_time;
    out["seed"] = s.seed;
    if (s.fold_compared > 0)
        out["amplitude_folding"] = {{"spikes_compared", s.fold_compared},
                                    {"spikes_different", s.fold_different}};
    out["layers"] = Json::array();
    for (const auto& layer : s.layers) out["layers"].push_back(to_json(layer));
    out["warnings"] = s.warnings;
    return out;
}

}  // namespace nc
