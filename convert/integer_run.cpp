// Batches through a simulator, and whose readout points at the label.
#include "convert/integer_run.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "hw/fpga.h"
#include "hw/loihi.h"
#include "neurons/train.h"

namespace nc {

IntegerBatch integer_batch(Compute& compute, const IntegerNetwork& net, const Dataset& data,
                           size_t first, size_t N) {
    std::vector<uint32_t> indices(N);
    std::iota(indices.begin(), indices.end(), uint32_t(first));
    Random random(0);
    IntegerBatch out;
    out.N = N;
    out.floats = data.batch(compute, indices, {}, random);
    out.events = input_events(net, out.floats.x.data<float>(), out.floats.x.elements());
    return out;
}

IntegerEvaluation evaluate_integers(Compute& compute, const Graph& g, const Dataset& data, int T,
                                    IntegerTarget target, const std::function<bool()>& stop) {
    constexpr size_t most_neurons = size_t(1) << 23;  // a batch's; their state is tens of bytes
    const IntegerNetwork net = integer_network(g);
    const size_t readout = net.populations.size() - 1;
    const size_t classes = net.populations[readout].size();
    size_t neurons = 1;
    for (const Population& p : net.populations) neurons += p.size();
    const size_t batch = std::clamp<size_t>(most_neurons / neurons, 1, 100);
    FpgaPlan plan;
    IntegerEvaluation out;
    if (target == IntegerTarget::fpga) {
        plan = fpga_plan(net, T);
        out.step_bound = plan.step_bound(data.steps() > 0);
    }
    std::vector<uint64_t> right(size_t(T), 0);
    const auto begin = std::chrono::steady_clock::now();
    while (out.samples < data.size()) {
        const IntegerBatch b = integer_batch(compute, net, data, out.samples,
                                             std::min(batch, data.size() - out.samples));
        const auto observe = [&](const IntegerStep& s) {
            if (s.population != readout) return;
            for (size_t n = 0; n < b.N; ++n) {
                const int32_t* row = s.v + n * classes;
                right[size_t(s.t)] +=
                    std::max_element(row, row + classes) - row == b.floats.labels[n];
            }
        };
        if (target == IntegerTarget::loihi) {
            const LoihiRun run =
                run_loihi(compute, net, b.events, b.N, T, b.floats.temporal, observe);
            out.neuron_steps += run.neuron_steps;
            out.spikes += run.spikes;
            out.wraps += run.wraps;
            out.clips += run.clips;
        } else {
            const FpgaRun run = run_fpga(plan, net, b.events, b.N, T, b.floats.temporal, observe,
                                         compute.queue.threads);
            out.neuron_steps += run.neuron_steps;
            out.spikes += run.spikes;
            out.worst_step = std::max(out.worst_step, run.worst_step);
            for (const uint64_t c : run.cycles) out.cycles += double(c);
        }
        out.samples += b.N;
        if (stop && stop()) throw Interrupted();
    }
    const double samples = double(std::max<size_t>(out.samples, 1));
    for (const uint64_t n : right) out.accuracy_at_t.push_back(100 * double(n) / samples);
    out.cycles /= samples;
    out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return out;
}

}  // namespace nc
