// Which networks the runtime computes in integers: quantised ones, whose sums and membranes are
// whole numbers that fit.
#pragma once

#include <optional>
#include <vector>

#include "engine/graph.h"
#include "kernels/kernels.h"

namespace nc::plan {

struct WholeNetwork {
    std::vector<bool> counts;  // by node: a Scale that makes counts of a pool's averages
    std::vector<bool> native;  // by node: weights that meet spikes, or counts of them, alone
    size_t most_steps = 0;     // so many at most keep every membrane within 32 bits
};

// The graph in integers, where all of it is whole: an input scale, weights within +-127, thresholds
// and the membranes' starts, >= and reset by subtraction or to zero, a leak of (4096 - dv) / 4096,
// pools of spikes as counts, and currents below 2^24, which floats hold as well. As hw/integers
// takes it (that also has delays). Nothing otherwise.
std::optional<WholeNetwork> whole_network(const Graph&);

// dv of 4096 of a neuron in integers; 0: IF.
int32_t decay_of(const Neuron&);

}  // namespace nc::plan
