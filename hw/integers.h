// The integers of a quantised network: a Graph whose tensors hold whole numbers, laid out as
// populations of neurons with 8-bit synapses between them. Loihi, FPGA, RTL and HLS all read this
// one form.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/graph.h"

namespace nc {

// Synapses from one population to another. Spikes (or, through a pool, counts of them; or the
// input's graded values) meet 8-bit weights; the sums of all of a population's synapses are its
// current.
struct Synapses {
    enum class Kind { linear, conv, diagonal };
    Kind kind = Kind::linear;
    size_t from = 0;  // a population's index, smaller than the target's own
    int delay = 0;    // steps beyond the direct way: delayed edges
    std::vector<int8_t>
        weight;  // linear [in, out], in flattened H, W, C; conv [kh, kw, cin / groups, cout];
                 // diagonal [C], from channel c to channel c of the same pixel
    kernels::ConvShape conv = {};  // conv: n = 1, of the pooled source
    bool pooled = false;           // sums of kh x kw spikes come first
    kernels::PoolShape pool = {};  // n = 1, of the source
};

struct Population {
    std::string name;  // of the graph's neuron; of its input or output
    Shape shape;       // [H, W, C] or [F]
    bool spiking =
        true;  // false: the input, and the readout, which adds its current up over the steps
    std::vector<Synapses> synapses;
    std::vector<int32_t> bias;  // [C] in units of the weights, added at every step
    std::vector<int32_t>
        threshold;               // [1], [C] or [neurons], in units of the weights; of spiking ones
    int32_t decay = 0;           // dv of 4096: 0 is IF, 2048 is LIF with beta 0.5
    bool half_start = true;      // v(0) = threshold >> 1, else 0
    bool reset_to_zero = false;  // by a spike; else the threshold is subtracted
    int depth = 0;               // longest way from the input, in populations

    size_t size() const { return shape.elements(); }
    size_t channels() const { return shape.back(); }
};

constexpr int32_t most_threshold = 131071;

// populations[0] is the input, the last one the readout; each comes after those it hears.
struct IntegerNetwork {
    double input_scale =
        0;  // a sample's value x enters as round(x * input_scale), clipped to -128 .. 127
    std::vector<Population> populations;
};

// Error (kind model) that names the node: a graph that is not quantised (no input scale, weights
// that are no whole numbers within -127 .. 127, thresholds that are none within 1 .. 131071),
// amplitudes that are not folded, an operation that has no place on an integer target.
IntegerNetwork integer_network(const Graph&);

// The input as the integer targets take it: x [..] floats to [..] i16.
std::vector<int16_t> input_events(const IntegerNetwork&, const float* x, size_t n);

// Error, of this target, when T is below 1 or the events are not those of N samples: [N, ..]
// static, or [T, N, ..] when temporal.
void check_run(const char* target, const IntegerNetwork&, size_t events, size_t N, int T,
               bool temporal);

// One step of one population, for N samples: what every integer backend shows, so that they can be
// compared.
struct IntegerStep {
    size_t population = 0;
    int t = 0;  // the population's own step, from 0
    const int32_t* u =
        nullptr;  // [N, size]: the weighted sum without bias, in units of 1/64 weight
    const int32_t* v = nullptr;  // [N, size]: after the reset, likewise; the readout's sum so far
    const uint64_t* bits = nullptr;  // [ceil(N * size / 64)] packed spikes; null for the readout
    size_t count = 0;                // N * size
};
using ObserveIntegers = std::function<void(const IntegerStep&)>;

// The largest magnitude a population's current can reach in one step, and its membrane within T
// steps, over every possible input: what proves that registers are wide enough.
struct Reach {
    int64_t current = 0;   // bias included
    int64_t membrane = 0;  // before the reset, either sign
};
std::vector<Reach> reach(const IntegerNetwork&, int T);  // by population; zeros for the input

}  // namespace nc
