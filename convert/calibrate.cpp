// Percentiles of pre-activations over calibration samples, and QCFS in the place of activations.
#include "convert/calibrate.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>

#include "engine/graph_edit.h"

namespace nc {

UpperPercentile::UpperPercentile(double percentile, size_t most)
    : percentile_(percentile),
      keep_(std::min(most, size_t(std::ceil((1 - percentile / 100) * double(most)))) + 2) {}

void UpperPercentile::push(float value) {
    const auto larger = std::greater<float>();
    if (heap_.size() == keep_) {
        std::pop_heap(heap_.begin(), heap_.end(), larger);
        heap_.pop_back();
    }
    heap_.push_back(value);
    std::push_heap(heap_.begin(), heap_.end(), larger);
}

double UpperPercentile::value() const {
    std::vector<float> top = heap_;
    std::sort(top.begin(), top.end());
    const double rank = percentile_ / 100 * double(count_ - 1);
    const double in_top = std::max(0.0, rank - double(count_ - top.size()));
    const size_t below = std::min(size_t(in_top), top.size() - 1);
    const size_t above = std::min(below + 1, top.size() - 1);
    return top[below] + (in_top - double(below)) * (double(top[above]) - top[below]);
}

namespace {

// What one activation's inputs and outputs have shown so far.
struct Collected {
    std::vector<UpperPercentile> channels;
    UpperPercentile layer;
    double lost = 0, mass = 0;
};

void collect(Collected& c, const Tensor& given_x, const Tensor& given_y) {
    const Tensor x = given_x.to_host(), y = given_y.to_host();
    const size_t cols = x.shape().back(), n = x.elements();
    const float* px = x.data<float>();
    const float* py = y.data<float>();
    for (size_t row = 0; row < n; row += cols)
        for (size_t j = 0; j < cols; ++j) {
            const float value = px[row + j];
            const double out = std::fabs(double(py[row + j]));
            c.mass += out;
            if (value > 0) {
                if (!c.channels.empty()) c.channels[j].add(value);
                c.layer.add(value);
            } else {
                c.lost += out;
            }
        }
}

float chosen(const UpperPercentile& channel, const UpperPercentile& layer, const Operation& op) {
    constexpr size_t enough = 100;
    double lambda = 2;
    if (channel.count() >= enough)
        lambda = channel.value();
    else if (layer.count() > 0)
        lambda = layer.value();
    const auto* a = std::get_if<Activation>(&op);
    if (a && a->kind == kernels::Activation::relu6) lambda = std::min(lambda, 6.0);
    return float(std::max(lambda, 1e-4));
}

EvaluateOptions run_options(const std::string& ann_frames) {
    EvaluateOptions run;
    run.ann_frames = ann_frames;
    run.batch = 100;
    return run;
}

}  // namespace

std::vector<CalibratedLayer> calibrate(Compute& compute, const Graph& g, const Dataset& samples,
                                       const CalibrateOptions& options) {
    if (!(options.percentile > 0 && options.percentile <= 100))
        throw Error("[calibrate] the percentile must be above 0 and at most 100: " +
                    std::to_string(options.percentile));
    if (samples.size() == 0) throw Error("[calibrate] no calibration samples", ErrorKind::data);
    std::map<size_t, Collected> collected;
    EvaluateOptions run = run_options(options.ann_frames);
    run.observe = [&](const Observation& o) {
        if (options.stop && options.stop()) throw Interrupted();
        const Operation& op = g.nodes[o.node].op;
        if (!is_activation(op) || std::holds_alternative<Qcfs>(op)) return;
        auto found = collected.find(o.node);
        if (found == collected.end()) {
            const size_t cols = o.x.shape().back();
            const size_t most = o.x.elements() / o.N * samples.size();
            Collected fresh{{}, UpperPercentile(options.percentile, most)};
            if (options.per_channel)
                fresh.channels.assign(cols, UpperPercentile(options.percentile, most / cols));
            found = collected.emplace(o.node, std::move(fresh)).first;
        }
        collect(found->second, o.x, o.y);
    };
    evaluate(compute, g, samples, run);

    std::vector<CalibratedLayer> out;
    for (const size_t node : topological_order(g)) {
        const auto found = collected.find(node);
        if (found == collected.end()) continue;
        const Collected& c = found->second;
        CalibratedLayer layer{node, {}, c.mass > 0 ? c.lost / c.mass : 0};
        for (const auto& channel : c.channels)
            layer.lambda.push_back(chosen(channel, c.layer, g.nodes[node].op));
        if (c.channels.empty()) layer.lambda.push_back(chosen(c.layer, c.layer, g.nodes[node].op));
        out.push_back(std::move(layer));
    }
    return out;
}

Graph to_qcfs(Graph g, const std::vector<CalibratedLayer>& layers, int levels, const Warn& warn) {
    for (const CalibratedLayer& layer : layers) {
        const Node& node = g.nodes[layer.node];
        const auto* a = std::get_if<Activation>(&node.op);
        const bool plain =
            a && (a->kind == kernels::Activation::relu || a->kind == kernels::Activation::relu6);
        if (!plain && warn) {
            char share[32];
            std::snprintf(share, sizeof share, "%.2f %%", 100 * layer.lost);
            warn("activation '" + node.name + "' loses its negative lobe: " + share +
                 " of its mass over the calibration samples");
        }
        const Shape shape{layer.lambda.size()};
        g = replace(std::move(g), layer.node, Qcfs{Tensor::from(layer.lambda, shape), levels});
    }
    return g;
}

Graph with_levels(Graph g, int levels) {
    for (Node& node : g.nodes)
        if (auto* q = std::get_if<Qcfs>(&node.op)) q->levels = levels;
    return g;
}

std::vector<CalibratedLayer> constant_thresholds(const Graph& g, float lambda) {
    std::vector<CalibratedLayer> out;
    for (const size_t node : topological_order(g))
        if (is_activation(g.nodes[node].op) && !std::holds_alternative<Qcfs>(g.nodes[node].op))
            out.push_back({node, {lambda}, 0});
    return out;
}

std::vector<InputHistogram> input_histograms(Compute& compute, const Graph& g,
                                             const Dataset& samples, const std::string& ann_frames,
                                             const std::function<bool()>& stop) {
    constexpr size_t bins = 80;
    std::map<size_t, InputHistogram> found;
    for (size_t i = 0; i < g.nodes.size(); ++i)
        if (const auto* q = std::get_if<Qcfs>(&g.nodes[i].op)) {
            const auto lambda = q->lambda.to_vector<float>();
            const double most = *std::max_element(lambda.begin(), lambda.end());
            found[i] = {g.nodes[i].name, -2 * most, 2 * most, std::vector<double>(bins, 0)};
        }
    EvaluateOptions run = run_options(ann_frames);
    run.observe = [&](const Observation& o) {
        if (stop && stop()) throw Interrupted();
        const auto it = found.find(o.node);
        if (it == found.end()) return;
        InputHistogram& h = it->second;
        const double per_bin = bins / (h.high - h.low);
        const Tensor here = o.x.to_host();
        const float* x = here.data<float>();
        for (size_t i = 0; i < here.elements(); ++i) {
            const double place = (x[i] - h.low) * per_bin;
            h.counts[place > 0 ? size_t(std::min(place, double(bins - 1))) : 0] += 1;
        }
    };
    evaluate(compute, g, samples, run);
    std::vector<InputHistogram> out;
    for (const size_t node : topological_order(g))
        if (const auto it = found.find(node); it != found.end()) out.push_back(it->second);
    return out;
}

}  // namespace nc
