// Loihi in integers: Lava's fixed-point process models, quirks included, and the Loihi-2 chip as a
// quantised network is mapped to it (Davies et al., IEEE Micro 2018; Lava's CPU models).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/compute.h"
#include "hw/integers.h"

namespace nc {

// Profile `lava`: one dense connection and its neurons, ungated, as Lava computes them.
struct LavaDense {
    enum class Signs { automatic, mixed, excitatory, inhibitory };
    std::vector<int32_t> weight;  // [neurons, inputs]
    int weight_exp = 0;           // the signed sum is shifted by it; below 0 by floor
    int weight_bits = 8;          // 1 .. 8
    int message_bits = 0;         // 0: a payload counts as 1
    Signs signs = Signs::automatic;
};
// The weights as a synapse stores them: clipped, then without the bits it lacks.
std::vector<int32_t> stored_weights(const LavaDense&);

struct LavaLif {
    int32_t du = 0, dv = 0, vth = 0;
    int32_t bias_mant = 0, bias_exp = 0;  // bias = mant << exp
    std::vector<int32_t> u, v;            // before the first step; empty: 0
};

struct LavaTrace {
    std::vector<int32_t> u, v;  // [steps, neurons], v after the reset
    std::vector<uint8_t> s;     // [steps, neurons]
    uint64_t wraps = 0, clips = 0;
};
// spikes [steps, inputs], payloads. What arrives at a step was sent at the step before; spikes
// comparing strictly above vth << 6 reset v to 0. Error on sizes that do not fit.
LavaTrace run_lava(Compute&, const LavaDense&, const LavaLif&, const std::vector<int32_t>& spikes,
                   size_t neurons, size_t inputs, size_t steps);

// Profile `loihi2`: the whole network on the chip, step by step. A layer at depth d starts at step
// d + 1, runs for T steps and hears what was sent the step before; shorter ways in are delayed. u
// and v are 24-bit registers in units of 1/64 weight: u = a << 6 (and the input's current), v(0) =
// (threshold >> 1) << 6.
struct LoihiRun {
    std::vector<int64_t> logits;  // [N, K]: the readout's sums over T steps
    uint64_t wraps = 0, clips = 0;
    uint64_t neuron_steps = 0, spikes = 0;
    int steps = 0;  // T and the depth of the network
};
// input: events of N samples, [N, ..] static, or [T, N, ..] when temporal. `observe` (may be empty)
// sees every population but the input at each of its own steps.
LoihiRun run_loihi(Compute&, const IntegerNetwork&, const std::vector<int16_t>& input, size_t N,
                   int T, bool temporal, const ObserveIntegers& observe = {});

}  // namespace nc
