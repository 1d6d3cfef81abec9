// What an analog network is compiled to: stages in order, and where in one arena their data lies.
#pragma once

#include <optional>
#include <variant>

#include "neurons/analog.h"
#include "neurons/runtime_arena.h"

namespace nc::analog {

using plan::Buffer;
using plan::none;
constexpr Buffer callers = -2;  // the samples, where the caller has them

// A Conv, or a Linear as the 1x1 convolution of single pixels: y = relu(sum + bias + add).
struct WeightLayer {
    std::string name;
    kernels::ConvShape shape;  // n: the batch
    kernels::ConvMethod method;
    const float *packed, *bias;  // bias may be null
    size_t packed_floats;
    Buffer x, add, out;  // add may be none
    Buffer scratch;      // thread after thread
    size_t scratch_bytes;
    bool relu;
};

// An operation without products of weights.
struct Pointwise {
    Operation op;
    Buffer x, out;
    size_t elements;                         // of a sample's input
    std::optional<kernels::PoolShape> pool;  // of one sample, for the three kinds of pooling
};

// out = the terms, added in order.
struct Addition {
    std::vector<Buffer> terms;
    Buffer out;
    size_t elements;  // of a sample
};

using Stage = std::variant<WeightLayer, Pointwise, Addition>;

// What is written once, when the network is compiled.
struct Plan {
    Graph graph;  // batch norms folded
    Shape sample;
    size_t outputs = 0, batch = 1, threads = 1;
    const kernels::Table<float>* table = nullptr;
    const kernels::Analog* kernels = nullptr;
    std::vector<Stage> stages;
    Buffer result = none;
    std::vector<size_t> offsets;  // by buffer, in the arena
    size_t arena_bytes = 0;
    std::vector<Tensor> constants;  // packed weights
    size_t constant_bytes = 0;
};

Plan compile(const Graph&, const AnalogOptions&);

}  // namespace nc::analog
