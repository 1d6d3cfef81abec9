// The structural passes before calibration: what cannot be converted is refused by name, every call
// site gets its own tensors, and max pooling makes way for spikes.
#pragma once

#include <functional>
#include <string>

#include "engine/graph_fold.h"

namespace nc {

using Warn = std::function<void(const std::string&)>;  // may be empty

// What a pass does with a MaxPool that stands next to an activation.
enum class MaxPools {
    average,     // becomes average pooling, before or after the activation
    keep_analog  // stays where no activation has come before it since the last weight layer
};

// Error (kind model), every offending node named: Sigmoid and Tanh (no spiking form), neurons (the
// network spikes already), delayed edges, no activation at all.
void check_convertible(const Graph&);

// Every node gets tensors of its own: one that two call sites share (a module used twice) would be
// trained, calibrated and folded for one of them and wrong for the other.
Graph split_shared(Graph);

// MaxPool of spikes has no meaning for a rate, so it becomes average pooling; each change, and each
// MaxPool that stays, is a warning.
Graph replace_max_pools(Graph, MaxPools, const Warn&);

bool is_activation(const Operation&);  // Activation, PRelu, Qcfs

}  // namespace nc
