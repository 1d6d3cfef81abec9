// One quantised network, one set of integers, every backend: does each neuron's current, membrane
// and spike agree at every step?
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "engine/graph.h"
#include "io/json.h"

namespace nc {

struct VerifyOptions {
    int T = 16;
    size_t samples = 1000;          // the first of the data set
    size_t reference_samples = 50;  // of these, on the slow reference table
    int threads = 0;                // 0: all
    Compute* device = nullptr;      // a device that takes part in floats
    std::function<bool()> stop;     // true: Interrupted is thrown
};

// What one backend did, compared with the Loihi-2 profile on the fastest table of this machine.
struct VerifiedBackend {
    std::string name;  // "loihi avx2", "float reference", ...
    std::string kind;  // "simulator", "float with the same integers", "simulator, the standard"
    size_t samples = 0;
    uint64_t neuron_steps = 0, spikes = 0;
    uint64_t u_different = 0, v_different = 0, s_different = 0, logits_different = 0;
    uint64_t wraps = 0, clips = 0;  // of 24-bit registers
    double accuracy = 0;            // percent, of these samples
    std::string first;              // the first difference: population, step, neuron, both values
    bool agrees() const { return u_different + v_different + s_different + logits_different == 0; }
};

struct Verification {
    int T = 0;
    std::vector<VerifiedBackend> backends;
    std::vector<std::string> left_out;  // backends that cannot take part, and why
    bool passed() const;
};

// Error (kind model) when the graph is not quantised. A float network of the same integers has the
// same bits while every sum and membrane stays below 2^24. Leaky neurons truncate, which floats do
// not: their currents come from the float network and their membranes, in 1/64 weight, are computed
// in double, where trunc(v (4096 - dv) / 4096) is exact.
Verification verify(const Graph&, const Dataset&, const VerifyOptions&);
Json to_json(const Verification&);

}  // namespace nc
