// What a spiking network does on data: accuracy at every T, spikes and sparsity per layer, hashes
// of the spike trains.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "hw/energy.h"
#include "neurons/train.h"

namespace nc {

struct MeasureOptions {
    int T = 16;
    int curve_T = 0;  // steps of the run, at least T; temporal data and exact neurons: T
    ops::SpikePath path = ops::SpikePath::automatic;
    size_t samples = 0;  // 0: all
    bool hash = false, operations = false;
    std::vector<size_t> operations_at;  // also of so many first steps, ascending, up to T
    std::function<bool()> stop;         // true: Interrupted is thrown
};

struct Measured {
    int T = 0;
    double accuracy = 0;                // percent, at T
    std::vector<double> accuracy_at_t;  // percent, of the first steps of one run
    size_t samples = 0;
    struct Layer {
        std::string name;
        size_t neurons = 0;                 // of a sample
        uint64_t spikes = 0, possible = 0;  // over the first T steps; spikes of either sign
        uint64_t hash = 0;                  // of the first T steps' trains, 0 unless asked for
    };
    std::vector<Layer> layers;  // topological order
    uint64_t spikes() const;
    uint64_t possible() const;
    // Percent of (neuron, step) pairs without a spike.
    double sparsity() const;
    // One number for all layers' trains; the same trains give it whatever the batch size, the
    // instruction set and the path.
    uint64_t hash() const;
    std::optional<Operations> operations;   // of the first T steps, when asked for
    std::vector<Operations> operations_at;  // of the first T steps for every T asked for
    double seconds = 0;
};

// Error when the graph has no neurons.
Measured measure_sparsity(Compute&, const Graph&, const Dataset&, const MeasureOptions&);

// The trains of one sample: for each neuron layer its name and, for up to `most` neurons (the first
// that spike at all), one row of T booleans.
struct Raster {
    std::string name;
    std::vector<std::vector<bool>> neurons;
};
std::vector<Raster> spike_rasters(Compute&, const Graph&, const Dataset&, uint32_t sample, int T,
                                  size_t most);

}  // namespace nc
