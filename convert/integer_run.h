// Test data through the integer simulators: what a quantised network is worth on its target.
#pragma once

#include <functional>
#include <vector>

#include "datasets/dataset.h"
#include "hw/integers.h"

namespace nc {

enum class IntegerTarget { loihi, fpga };

struct IntegerEvaluation {
    size_t samples = 0;
    std::vector<double> accuracy_at_t;  // percent, of the readout's sums over the first t steps
    double accuracy() const { return accuracy_at_t.empty() ? 0 : accuracy_at_t.back(); }
    uint64_t neuron_steps = 0, spikes = 0;
    uint64_t wraps = 0, clips = 0;            // loihi: of 24-bit registers
    double cycles = 0;                        // fpga: a sample's, on average
    uint64_t worst_step = 0, step_bound = 0;  // fpga: cycles of a step, as seen and as bounded
    double seconds = 0;                       // of simulation
};

// The data set through one target's simulator on this CPU, T steps a sample. Error (kind model) as
// integer_network, and as fpga_plan where the registers would be too wide. stop: true: Interrupted
// is thrown.
IntegerEvaluation evaluate_integers(Compute&, const Graph&, const Dataset&, int T, IntegerTarget,
                                    const std::function<bool()>& stop = {});

// Samples [first, first + N) of a data set, and the same as an integer target takes them.
struct IntegerBatch {
    Batch floats;
    std::vector<int16_t> events;
    size_t N = 0;
};
IntegerBatch integer_batch(Compute&, const IntegerNetwork&, const Dataset&, size_t first, size_t N);

}  // namespace nc
