// QCFS becomes spiking neurons, and what can be corrected afterwards without training.
#pragma once

#include <string>

#include "convert/passes.h"
#include "neurons/train.h"

namespace nc {

// Every QCFS becomes a neuron with theta = lambda and amplitude theta:
//   "if"      beta 1, v(0) = theta / 2
//   "lif"     beta 0.5, v(0) = 0; only tuning makes it follow the QCFS network
//   "signed"  IF that also takes spikes back
//   "exact"   the two-phase neuron; Error unless every QCFS has T levels
// Error on another name.
Graph to_spikes(Graph, const std::string& neuron, int T);

// These corrections want neurons with amplitude theta and no BatchNorm. They compare each neuron's
// mean output over T with what a QCFS of as many levels gives in its place, layer by layer: a layer
// is measured after those before it were corrected.
struct CorrectOptions {
    int T = 16;
    int levels = 8;
    std::string ann_frames = "mean";
    std::function<bool()> stop;
};
// The difference goes into the bias of a weight layer that feeds the neuron, per channel (Li et
// al., ICML 2021); a bias is one number for all steps. Neurons without such a layer are a warning.
Graph correct_bias(Compute&, Graph, const Dataset& samples, const CorrectOptions&, const Warn&);
// A bias for every channel and step goes in front of each neuron, and is what the mean output of
// that step falls short of; steps are measured after those before them were corrected (Wu et al.,
// "FTBC: Forward Temporal Bias Correction for Optimizing ANN-SNN Conversion", ECCV 2024). Takes a
// pass over the samples for every neuron and step.
Graph correct_step_bias(Compute&, Graph, const Dataset& samples, const CorrectOptions&);
// The difference times T goes into v(0), per channel, kept within [0, theta].
Graph correct_membrane(Compute&, Graph, const Dataset& samples, const CorrectOptions&);

}  // namespace nc
