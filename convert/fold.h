// What folding constants into weights changed in the spikes: rounding may move a few.
#pragma once

#include "engine/graph_fold.h"
#include "neurons/train.h"

namespace nc {

struct SpikeDifference {
    uint64_t compared = 0, different = 0;  // (neuron, step) pairs
};
// Runs the same samples through two graphs whose neurons have the same names.
SpikeDifference compare_spikes(Compute&, const Graph&, const Graph&, const Dataset& samples, int T,
                               const std::function<bool()>& stop);

}  // namespace nc
