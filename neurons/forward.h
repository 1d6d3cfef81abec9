// The one interpreter of a Graph: with a tape it trains, without one it infers.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "autograd/functions.h"
#include "engine/graph.h"

namespace nc {

// Values of tensors by full name ("conv1.weight") that replace the graph's own; what training puts
// on the tape.
using Parameters = std::map<std::string, Var>;

// What a node took and gave; x is the sum of its edges. With time the leading axis is T * N, else
// N.
struct Observation {
    const Graph& graph;
    size_t node;
    const Tensor& x;
    const Tensor& y;
    bool time;    // y has time folded in
    bool x_time;  // x has; false before the first neuron of a static input
    size_t T, N;
    const Tensor& bits;  // packed spikes of a plain neuron, as kernels::Neuron::forward writes
                         // them; else undefined
};

struct ForwardOptions {
    size_t T = 1;                 // steps of a spiking graph on static input
    bool temporal_input = false;  // input is [T, N, ...]; T above is then taken from it
    bool training = false;        // batch norm uses and returns batch statistics
    bool step_by_step = false;    // one step through the whole graph at a time; inference only
    bool recompute =
        false;  // training: keep packed spikes only, run weight layers again in the backward pass
    ops::SpikePath path = ops::SpikePath::automatic;  // of canonical sums
    std::function<void(const Observation&)>
        observe;  // called for each node in order (layer by layer only)
    // Does a neuron's work in the interpreter's place where it gives a tensor, not an undefined
    // one: from x [T * N, ...] (x_time) or [N, ...] its zeros and ones [T * N, ...] (layer by
    // layer, inference only).
    std::function<Tensor(size_t node, const Tensor& x, bool x_time)> neuron;
};

struct Forwarded {
    Var output;  // the Output node's value: [T, N, K] when time, else [1, N, K]
    bool time = false;
    std::map<std::string, fn::BatchStatistics> statistics;  // by BatchNorm node, when training
};

// Static input [N, ...]: layers before the first neuron run once. A spiking graph without a tape
// and not training computes every weight layer as the canonical sum (its BatchNorm, if not folded,
// by running statistics). An ANN on temporal input runs each frame; its time axis stays in the
// output. Input, parameters and the graph's tensors are where compute works (on_device). Error on
// shapes that do not fit.
Forwarded forward(Compute&, const Graph&, const Parameters&, const Tensor& input,
                  const ForwardOptions&, Tape* tape = nullptr);

// Mean over T of Forwarded::output: logits [N, K].
Var mean_logits(Compute&, Tape*, const Forwarded&);

}  // namespace nc
