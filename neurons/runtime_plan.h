// What a network is compiled to: stages in order, and where in one arena their data lies.
#pragma once

#include <optional>
#include <variant>

#include "kernels/stages.h"
#include "neurons/runtime.h"
#include "neurons/runtime_arena.h"

namespace nc::plan {

// The events of an activation, kernels::EventRows; or kernels::SpikeRows, of integers.
struct EventList {
    size_t h, w, c;
    Buffer start, index, value;  // value none: all are 1
    size_t repeats = 0;          // 0: EventRows
};

// An activation's floats [steps or 1, h, w, c], or 32-bit integers: in the arena, or still the
// caller's.
struct Floats {
    Buffer buffer = none;
    bool timed = false;
    bool callers = false;
    bool integers = false;
    bool defined() const { return callers || buffer != none; }
};

// Lists the events of spikes, of their averages over windows, or of floats.
struct MakeEvents {
    size_t list;
    Buffer bits = none;
    std::optional<kernels::PoolShape> pool;
    Floats x;
};

// Back from events to floats.
struct Expand {
    size_t list;
    Buffer x;
};

// Neurons' parameters: theta and v0 [padded], or [pixels, padded] where the stride is not 0.
template <class V>
struct Parameters {
    const V *theta = nullptr, *v0 = nullptr, *gate_scale = nullptr;
};

// Neurons over all steps. Vectors are padded to a multiple of 16 channels.
struct Fire {
    std::string name;
    bool integers = false;
    kernels::NeuronRule<float> rule;
    kernels::IntegerRule integer_rule;
    size_t pixels, channels, padded;
    Parameters<float> floats;
    Parameters<int32_t> whole;  // in their place
    size_t theta_pixel, v0_pixel;
    Buffer v, bits;
    Floats x, term;      // x none: a layer's sums
    Buffer gate = none;  // spikes scaled by gate_scale are added
    size_t number;       // among the neurons
};

// A full or partial panel of a layer's weights, for kernels::Stages::sums or IntegerStages::sums.
struct Panel {
    size_t first, width;  // outputs; width padded to a multiple of 16
    const float *w = nullptr, *bias = nullptr;
    const int16_t* integer_w = nullptr;
    const int32_t* integer_bias = nullptr;
};

// All weights of a layer, kernels::IntegerStages::dense.
struct Fours {
    const int8_t* w = nullptr;
    const int32_t* bias = nullptr;
    size_t most = 1;  // an input's largest value
};

// A Conv, or a Linear as the convolution by a kernel as large as its input.
struct Layer {
    std::string name;
    kernels::ConvShape shape;  // of one step
    const float *w, *bias;     // as the graph has them, bias may be null
    bool binary = false;       // every input is 0 or 1
    bool integers = false;     // of spikes and their counts, to integers
    Fours fours;
    std::vector<Panel> panels;
    size_t list = SIZE_MAX;  // the events to walk
    Floats x;                // the floats to read, where there are any without events
    Buffer expanded = none;  // room for floats made of events
    Buffer sums = none;      // room for all sums, before neurons read them
    Buffer tiles = none;     // room for each thread's sums
    Buffer out = none;       // the sums [steps or 1, pixels, cout], where no neurons follow at once
    std::optional<Fire> fire;
    RuntimePath path;
    kernels::Adding adding;  // what its sums cost by
    double dense_above = 0;  // automatic: events a step above which the sum over all is faster
    size_t number;           // among the weight layers
    size_t width() const { return (shape.cout + 15) / 16 * 16; }
    size_t pixels() const { return shape.out_h() * shape.out_w(); }
    bool timed() const { return list != SIZE_MAX || x.timed; }
};

// Neurons whose input no layer gives at once.
struct Neurons {
    Fire fire;
};

// out = the terms, added in order.
struct Sum {
    std::vector<Floats> terms;
    Buffer out;
    size_t elements;
    bool timed;
};

// Floats that are whole to integers, or integers to floats.
struct Convert {
    Floats in;
    Buffer out;
    size_t elements;
};

// An operation on floats of few values: pooling of analog values, activations, scaling.
struct Map {
    Operation op;
    Floats in;
    Buffer out;
    size_t h, w, c;   // of the input
    size_t elements;  // of the output
};

// The network's output at each step.
struct Result {
    Floats x;
    size_t elements;
};

using Stage = std::variant<MakeEvents, Expand, Layer, Neurons, Sum, Convert, Map, Result>;

// What is written once, when the network is compiled.
struct Plan {
    Graph graph;  // batch norms and amplitudes folded
    Shape sample;
    size_t elements = 0, outputs = 0;  // of a sample, of the output
    bool temporal = false;             // samples are [T, sample]
    size_t chunk = 1;                  // steps that are run at once, at most
    size_t threads = 1;
    const kernels::Table<float>* table = nullptr;
    const kernels::Stages* kernels = nullptr;
    const kernels::IntegerStages* integers = nullptr;  // null: the network is computed in floats
    size_t most_steps = SIZE_MAX;  // of a run
    std::vector<Stage> stages;
    std::vector<bool> once;  // by stage: done for the first steps of a sample only
    std::vector<EventList> lists;
    std::vector<size_t> offsets;  // by buffer, in the arena
    size_t arena_bytes = 0;
    size_t layers = 0, neurons = 0;
    std::vector<Tensor> constants;  // packed weights, thresholds
    size_t constant_bytes = 0;
};

Plan compile(const Graph&, const RuntimeOptions&);
void check_supported(const Graph&);  // Error (kind model) that names all that cannot be run
// Events a step above which summing over all inputs is faster, by what the table's kernels cost:
// both costs are proportional to the steps, plus so much an event.
double dense_above(const kernels::StageCosts&, const kernels::ConvShape&, kernels::Adding);

constexpr size_t most_steps = 32;                // of a chunk
constexpr size_t slab_bytes = 256 << 10;         // weights that stay in the second cache
constexpr size_t tile_bytes = 64 << 10;          // sums that are read again at once
constexpr size_t long_tile_bytes = 256 << 10;    // sums that wait for the next slab of weights
size_t slab_rows(const Layer&);                  // kernel rows whose weights are a slab
size_t tile_pixels(const Layer&, size_t steps);  // whose sums a thread makes at once
size_t tile_room(const Layer&, size_t steps);    // bytes of those sums, at most

}  // namespace nc::plan
