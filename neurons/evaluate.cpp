// Accuracy at every t and spikes per layer, from one run over the samples.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>

#include "neurons/train.h"

namespace nc {
namespace {

uint64_t count_spikes(Compute& compute, const Observation& o) {
    if (o.bits.defined()) {
        const auto& spike = compute.kernels<float>().spike;
        compute.reserve(spike.count_scratch());
        return spike.count(compute.queue, o.bits.data<uint64_t>(), o.bits.elements());
    }
    const Tensor here = o.y.to_host();
    const float* y = here.data<float>();
    return uint64_t(here.elements()) - uint64_t(std::count(y, y + here.elements(), 0.0f));
}

// Adds the steps of `output` [T, N, K] up and counts the right answers after each.
void count_correct(Compute& compute, const Tensor& output, const std::vector<int32_t>& labels,
                   std::vector<uint64_t>& correct) {
    const size_t T = output.shape()[0], N = output.shape()[1], K = output.shape()[2];
    correct.resize(std::max(correct.size(), T));
    Tensor sums = compute.empty(output.shape());
    sums.slice(0, 1).assign(output.slice(0, 1));
    for (size_t t = 1; t < T; ++t)
        compute.kernels<float>().elementwise.add(compute.queue, sums.slice(t - 1, t).data<float>(),
                                                 output.slice(t, t + 1).data<float>(),
                                                 sums.slice(t, t + 1).data<float>(), N * K);
    const std::vector<int32_t> best = ops::argmax(compute, sums.reshape({T * N, K}));
    for (size_t t = 0; t < T; ++t)
        for (size_t i = 0; i < labels.size(); ++i) correct[t] += best[t * N + i] == labels[i];
}

// As many samples at once as keep the activations small; a device needs more of them to be busy.
size_t batch_of(const Compute& compute, const EvaluateOptions& options, size_t T) {
    const size_t rows = compute.on_host() ? 1024 : 4096;
    return std::max<size_t>(1, std::min(options.batch, rows / std::max<size_t>(1, T)));
}

}  // namespace

Frames frames_for(Compute& compute, const Graph& graph, const Batch& batch,
                  const std::string& ann_frames) {
    if (ann_frames != "mean" && ann_frames != "sum")
        throw Error("[frames] ann_frames is mean or sum, not '" + ann_frames + "'");
    if (batch.temporal && ann_frames == "sum" && !is_spiking(graph))
        return {ops::sum_leading(compute, batch.x), false};
    return {batch.x, batch.temporal};
}

double Evaluation::sparsity() const {
    uint64_t spikes = 0, possible = 0;
    for (const Layer& layer : layers) {
        spikes += layer.spikes;
        possible += layer.possible;
    }
    if (possible == 0) return std::numeric_limits<double>::quiet_NaN();
    return 100 * (1 - double(spikes) / double(possible));
}

Evaluation evaluate(Compute& compute, const Graph& graph, const Dataset& data,
                    const EvaluateOptions& options) {
    if (options.T < 1) throw Error("[evaluate] T must be at least 1: " + std::to_string(options.T));
    if (data.size() == 0) throw Error("[evaluate] there are no samples", ErrorKind::data);
    const auto start = std::chrono::steady_clock::now();
    std::unique_ptr<Dataset> part;
    if (options.samples > 0 && options.samples < data.size()) {
        std::vector<uint32_t> first(options.samples);
        std::iota(first.begin(), first.end(), 0u);
        part = subset(data, std::move(first));
    }
    const Dataset& samples = part ? *part : data;
    const bool spiking = is_spiking(graph);
    const size_t T =
        samples.steps() > 0 ? size_t(samples.steps()) : (spiking ? size_t(options.T) : 1);

    Evaluation result;
    std::map<size_t, size_t> place;  // of a node in result.layers
    ForwardOptions how;
    how.T = size_t(options.T);
    how.path = options.path;
    if (spiking || options.observe)
        how.observe = [&](const Observation& o) {
            if (options.observe) options.observe(o);
            if (!emits_spikes(o.graph.nodes[o.node].op) || !o.time) return;
            const auto [it, fresh] = place.try_emplace(o.node, result.layers.size());
            if (fresh) result.layers.push_back({o.graph.nodes[o.node].name, 0, 0});
            result.layers[it->second].spikes += count_spikes(compute, o);
            result.layers[it->second].possible += o.y.elements();
        };
    std::vector<uint64_t> correct;
    const Graph here = on_device(graph, compute);
    Loader loader(compute, samples, batch_of(compute, options, T), false, 0, 0, {});
    Batch batch;
    while (loader.next(batch)) {
        const Frames frames = frames_for(compute, graph, batch, options.ann_frames);
        how.temporal_input = frames.temporal;
        const Forwarded out = forward(compute, here, {}, frames.x, how);
        if (spiking) {
            count_correct(compute, out.output.value, batch.labels, correct);
        } else {
            const Tensor logits = mean_logits(compute, nullptr, out).value;
            count_correct(compute, logits.reshape(logits.shape().with_leading(1)), batch.labels,
                          correct);
        }
        result.samples += batch.labels.size();
    }
    for (const uint64_t n : correct)
        result.accuracy_at_t.push_back(100 * double(n) / double(result.samples));
    result.accuracy = result.accuracy_at_t.back();
    result.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

}  // namespace nc
