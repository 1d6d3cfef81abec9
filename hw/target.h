// Hardware as data: limits, what an arithmetic operation costs, who says so; and where the
// populations of a network go on it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hw/integers.h"
#include "io/json.h"

namespace nc {

struct EnergyConstant {
    double picojoules;
    std::string source;
};

struct Target {
    std::string name;
    EnergyConstant mac;  // multiply and accumulate, 32-bit float
    EnergyConstant ac;   // accumulate alone
};

// A generic digital chip in 45 nm (Horowitz, ISSCC 2014).
Target digital_45nm();

// A limit of a chip; absent where nobody has published it.
struct Limit {
    int64_t value;
    std::string source;
};

struct Chip {
    std::string name;
    std::optional<Limit> cores;  // of a chip; a larger network takes several chips
    std::optional<Limit> neurons_per_core;
    std::optional<Limit> bits_per_core;   // of memory
    std::optional<Limit> weight_bits;     // sign included
    std::optional<Limit> fan_in;          // synapses of a neuron
    std::optional<Limit> delay;           // steps beyond the one that every synapse takes
    std::optional<Limit> threshold_bits;  // unsigned
    std::optional<Limit> bias_mantissa_bits, bias_exponent_bits;  // signed, unsigned
    std::optional<Limit> decay_bits;                              // unsigned
    std::optional<Limit> state_bits;                              // of u and v, signed
    std::optional<Limit> payload_bits;                            // of a graded event, signed
};

Chip loihi2();
// By name: loihi2, and its aliases loihi and loihi2_sim. Error with a suggestion.
Chip chip_named(const std::string&);

// How one population lies on cores of its own. Neurons of one core share a convolution's kernel;
// all other synapses are each neuron's own. A pool costs no neurons: each of the spikes it counts
// meets the weight after it.
struct PlacedPopulation {
    std::string name;
    size_t neurons = 0;
    size_t cores = 0;
    size_t neurons_of_a_core = 0;  // of the fullest
    uint64_t bits_of_a_core = 0;   // of synapses, of the fullest
    uint64_t bits = 0;             // of synapses, over all its cores
    uint64_t fan_in = 0;           // of a neuron, the largest
    int delay = 0;                 // the largest
};

struct Placement {
    Chip chip;
    std::vector<PlacedPopulation> populations;  // but the input, which events bring in
    size_t neurons = 0, cores = 0, chips = 0;   // chips: 0 where cores of a chip are unknown
    uint64_t bits = 0;                          // of synapses
};

// Error (kind model) that names the population and the limit that does not fit. Memory is that of
// weights alone: how the chip stores addresses, routes and neuron states is not published.
Placement place(const IntegerNetwork&, const Chip&);

// With every limit and its source.
Json to_json(const Placement&);

// Whether the input's current comes in: it then brings the bias with it, which needs no register.
bool hears_input(const Population&);

// A bias (in units of a weight) as the chip holds it: bias * 64 = mantissa << exponent, with the
// smallest exponent of 6 or more that will do. Empty when there is none.
struct BiasParts {
    int32_t mantissa, exponent;
};
std::optional<BiasParts> bias_parts(int32_t bias, const Chip&);

}  // namespace nc
