// How many spikes folding changed.
#include "convert/fold.h"

#include <map>

namespace nc {

namespace {

// The packed spikes of one batch, per neuron: 1 where the output is not zero, sign apart.
using Trains = std::map<std::string, std::vector<int8_t>>;

Trains spike_trains(Compute& compute, const Graph& g, const Tensor& x, bool temporal, size_t T) {
    Trains out;
    ForwardOptions run;
    run.T = T;
    run.temporal_input = temporal;
    run.observe = [&](const Observation& o) {
        if (!std::holds_alternative<Neuron>(g.nodes[o.node].op)) return;
        auto& train = out[g.nodes[o.node].name];
        const Tensor here = o.y.to_host();
        const float* y = here.data<float>();
        train.resize(o.y.elements());
        for (size_t i = 0; i < train.size(); ++i) train[i] = int8_t((y[i] > 0) - (y[i] < 0));
    };
    forward(compute, g, {}, x, run);
    return out;
}

}  // namespace

SpikeDifference compare_spikes(Compute& compute, const Graph& a, const Graph& b,
                               const Dataset& samples, int T, const std::function<bool()>& stop) {
    SpikeDifference out;
    const Graph first_graph = on_device(a, compute), second_graph = on_device(b, compute);
    Loader loader(compute, samples, 50, false, 0, 0, {});
    for (Batch batch; loader.next(batch);) {
        if (stop && stop()) throw Interrupted();
        const Trains first = spike_trains(compute, first_graph, batch.x, batch.temporal, size_t(T));
        const Trains second =
            spike_trains(compute, second_graph, batch.x, batch.temporal, size_t(T));
        for (const auto& [name, train] : first) {
            const auto& other = second.at(name);
            out.compared += train.size();
            for (size_t i = 0; i < train.size(); ++i) out.different += train[i] != other[i];
        }
    }
    return out;
}

}  // namespace nc
