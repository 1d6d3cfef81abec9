// Filling in the statistics of a conversion.
#pragma once

#include "convert/convert.h"
#include "convert/measure.h"

namespace nc {

// One entry for every neuron layer: its size and thresholds.
void describe_neurons(const Graph&, Statistics&);

// Accuracy at every T, sparsity and spikes of the test data at statistics.T.
void measure_on(Compute&, const Graph&, const Dataset& test, const ConvertOptions&, Statistics&);

}  // namespace nc
