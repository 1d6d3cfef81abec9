// The metrics of NeuroBench 2.3 (Yik et al., The NeuroBench framework, Nature Communications 2025),
// by its names and rules, counted on data.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "io/json.h"
#include "neurons/train.h"

namespace nc {

// Fractions, not percent, as NeuroBench gives them; operations and updates are per sample, summed
// over T.
struct NeuroBench {
    size_t samples = 0, steps = 0;
    uint64_t footprint = 0;  // bytes of parameters and buffers as the graph holds them
    uint64_t parameters = 0;
    double connection_sparsity = 0;  // zero weights of Linear and Conv, to 4 decimals
    double classification_accuracy = 0;
    double activation_sparsity = 0;  // zero outputs of neurons
    double effective_macs = 0, effective_acs = 0, dense = 0;
    double membrane_updates = 0;
};

// The static metrics of a graph: footprint, parameters and connection_sparsity.
NeuroBench static_metrics(const Graph&);

// Follows forward() through ForwardOptions::observe (or EvaluateOptions::observe), layer by layer.
// - Every Linear and Conv meets its input at every step, a constant one too: non-zero inputs times
//   the non-zero weights they reach are Effective_MACs, or Effective_ACs where the input of this
//   sample at this step holds nothing but -1, 0 and 1. (The package decides for a whole batch at
//   once; this is its answer for batches of one.) Dense counts zeros too, padding never; biases are
//   no synaptic operations.
// - A membrane is updated when it differs from that of the step before, both after the reset; at
//   the first step every membrane is.
class NeuroBenchCounter {
 public:
    // Error (kind model) on neurons of two phases, which have no membrane at a step.
    explicit NeuroBenchCounter(const Graph&);
    void observe(const Observation&);
    // All but the accuracy. Error when nothing was counted.
    NeuroBench result() const;

 private:
    void count_synapses(const Observation&);
    void count_updates(const Observation&, const Neuron&);

    Graph graph_;
    std::vector<Shape> shapes_;
    std::map<size_t, std::vector<uint64_t>> fan_out_;  // by node, an element each
    size_t samples_ = 0, steps_ = 0;
    uint64_t macs_ = 0, acs_ = 0, dense_ = 0, updates_ = 0, zeros_ = 0, outputs_ = 0;
};

// Runs the network over the data. Error when it has no neurons.
NeuroBench neurobench(Compute&, const Graph&, const Dataset&, const EvaluateOptions&);

// The keys of the package, and nothing else.
Json to_json(const NeuroBench&);

}  // namespace nc
