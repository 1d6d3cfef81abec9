// The form integer targets take, still in floats: passes that quantisation begins with.
#pragma once

#include "convert/passes.h"

namespace nc {

// An average pool between a convolution and its neuron goes into a larger kernel, and every edge
// from spikes straight into a neuron, a sum or the output gets a Scale of ones, so that each way in
// has weights. The network computes the same. Error (kind model) by name where a pool cannot go.
Graph give_weights(Graph);

// After every pool of spikes a Scale by its window makes counts of averages, and the weights after
// it are divided by as much. Error where counts would not be exact in floats, or no weights follow.
Graph count_pools(Graph);

[[noreturn]] void refuse_to_quantize(const Graph&, size_t node, const std::string& what);

template <class Op>
bool is(const Graph& g, size_t node) {
    return std::holds_alternative<Op>(g.nodes[node].op);
}

inline bool has_weights(const Operation& op) {
    return is_weight_layer(op) || std::holds_alternative<Scale>(op);
}

}  // namespace nc
