// A network in integers as an FPGA computes it: event by event, registers exactly as wide as the
// weights prove they must be, cycles counted. Generated RTL and HLS follow this plan.
#pragma once

#include <cstdint>
#include <vector>

#include "hw/integers.h"

namespace nc {

// Where a source's row (or column) goes: added to the target's accumulator row and to the weight
// row.
struct FpgaTap {
    uint32_t accumulator = 0, weight = 0;
};

// Every kind of synapse as one convolution, pooling included, of which only addresses are left: a
// spike at (y, x, c) meets, for each tap of row y and each of column x, `blocks` rows of weights
// from rows[y].weight + columns[x].weight + c * blocks on, added to as many accumulator rows from
// rows[y].accumulator + columns[x].accumulator + first[c] on.
struct FpgaSynapses {
    size_t from = 0;  // a population
    int delay = 0;
    size_t queued = 1;  // steps of the source that may wait to be read, each ended by a marker
    std::vector<std::vector<FpgaTap>> rows, columns;  // by y, by x
    std::vector<uint32_t> first;  // by c: the block its weights begin at; 0 without groups
    size_t blocks = 0;            // rows of weights a tap
    std::vector<int8_t> weight;   // [kh, kw, c, blocks, lanes], 0 where nothing is connected
};

struct FpgaPopulation {
    std::string name;
    size_t height = 1, width = 1, channels = 0;
    size_t blocks = 0;         // rows of lanes a pixel: ceil(channels / lanes)
    size_t rows = 0;           // height * width * blocks
    int fraction = 0;          // bits of the membrane below the weights' unit: 6 for LIF
    int accumulator_bits = 0;  // two's complement, bias included
    int membrane_bits = 0;     // with the fraction
    std::vector<FpgaSynapses> synapses;
    uint64_t step_bound = 0;  // cycles of one step in which every source spikes, and it all over
    uint64_t load_bound = 0;  // cycles to take in a static sample; 0: does not hear the input
};

struct FpgaPlan {
    int T = 0;  // widths are proven up to so many steps
    size_t lanes = 8;
    bool pipelined = false;  // layers work at the same time, each a step behind those it hears
    std::vector<FpgaPopulation> populations;  // as in the network; [0] is the input

    // Cycles of one step, bounded: `temporal` input arrives at each.
    uint64_t step_bound(bool temporal) const;
    uint64_t memory_bits() const;  // weights, accumulators, membranes, parameters, queues
};

// lanes: weights a cycle, a power of 2 up to 64. Error (kind model) that names the population whose
// accumulators would need more than 32 bits or its membranes more than 48.
FpgaPlan fpga_plan(const IntegerNetwork&, int T, size_t lanes = 8, bool pipelined = false);

struct FpgaRun {
    std::vector<int64_t> logits;   // [N, K]
    std::vector<uint64_t> cycles;  // [N]: clearing, loading a static sample and all steps
    uint64_t worst_step = 0;       // the longest step's cycles
    uint64_t neuron_steps = 0, spikes = 0;
};
// As run_loihi: input [N, ..] static or [T, N, ..] temporal; observers get u and v in 1/64 weight.
// Error when T is longer than planned.
FpgaRun run_fpga(const FpgaPlan&, const IntegerNetwork&, const std::vector<int16_t>& input,
                 size_t N, int T, bool temporal, const ObserveIntegers& observe = {},
                 int threads = 1);

// What the hardware's phases cost, in cycles.
struct FpgaCycles {
    static constexpr uint64_t phase = 2;    // the controller: start cores, see that all are quiet
    static constexpr uint64_t open = 1;     // no synapse left: the sweep's first read
    static constexpr uint64_t synapse = 3;  // started, the marker fetched and seen
    static constexpr uint64_t skip = 1;     // a synapse that is not due, or the static input's
    static constexpr uint64_t event = 3;    // fetched, taken apart, looked up
};

}  // namespace nc
