// Folding constants into weights: BatchNorm into the layer before it, spike amplitudes into the
// layers after the neuron.
#pragma once

#include "engine/graph.h"

namespace nc {

bool is_weight_layer(const Operation&);  // Linear, Conv
bool passes_rates(const Operation&);     // pooling, Flatten, Scale, Add: no weights, no state

// Every BatchNorm (affine or not) goes into the Conv or Linear before it, with or without a bias;
// average pooling without padding may lie between, for it commutes. Computed in double, rounded
// once. Error (kind model) that names each BatchNorm that cannot be folded: after a sum, after
// anything but a weight layer, or where that layer's output is also used elsewhere.
Graph fold_batch_norm(Graph);

// Neurons emit 1 instead of theta: the amplitude goes into the weights of every consumer, through
// pooling and Flatten; where a consumer has no weights of its own for it (a residual edge, an
// output, a node that sums several edges) a Scale node of amplitudes takes it. Error when a
// threshold per neuron would have to go into a convolution.
Graph fold_amplitudes(Graph);

// Multiplies what a node gives by factors (one, one a channel or one an element), in its consumers:
// as above, in their weights or a Scale named after the node.
Graph fold_into_consumers(Graph, size_t node, const std::vector<float>& factors);

}  // namespace nc
