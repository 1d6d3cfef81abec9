// Filling in the statistics of a conversion.
#pragma once

#include "convert/convert.h"
#include "convert/measure.h"

namespace nc {

// One entry for every neuron layer: its size and thresholds.
void describe_neurons(const Graph&, Statistics&);

// How often the analog network runs for one sample.
size_t frames_of(const Dataset&, const std::string& ann_frames);

// Accuracy at every T, sparsity, spikes and energy of the test data at statistics.T.
void measure_on(Compute&, const Graph&, const Dataset& test, const ConvertOptions&, Statistics&);

}  // namespace nc
