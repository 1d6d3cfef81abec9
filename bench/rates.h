// What nc_bench rates measures: a network's layers by themselves at chosen firing rates, adding
// over all inputs, over events, and as the runtime chooses.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/bench.h"
#include "neurons/runtime.h"

namespace nc::bench {

struct RatesCase {
    const kernels::Table<float>* table;
    size_t T = 16;
    bool temporal = false;      // samples are recordings
    std::vector<double> rates;  // of inputs that are not zero, in percent
    double seconds = 0.1;       // a layer and rate
};

struct RateRow {
    std::string name;  // of the layer and its shape
    double rate = 0;   // percent, as drawn
    Timing dense, event, automatic;
    bool chose_dense = false;
    // Of the choice against the better of both.
    double ratio() const;
};

// One thread, all steps of a sample, neurons included, layers of equal shapes once; inputs are
// drawn at random. Layers that have no choice are left out. Error when dense and event give other
// spikes or sums. Calls seen() after each row.
std::vector<RateRow> measure_rates(const Graph&, const RatesCase&,
                                   const std::function<void(const RateRow&)>& seen);

}  // namespace nc::bench
