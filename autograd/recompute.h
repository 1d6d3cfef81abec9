// Training with memory that grows by bits: weight layer, batch norm, neuron and average pool as one
// differentiable block that keeps packed spikes only and computes the currents again going back.
//
// The neurons of different samples are independent, so a block works through groups of samples,
// each over all T steps: at any time currents exist for as many frames as the batch has in
// Block::steps steps (one sample's at least), and what grows with T is the input, the packed spikes
// and the gradients at the blocks' outputs. Every group's rows are computed by the same kernels as
// the plain path's; sums over rows (batch statistics, gradients of parameters) are added group by
// group, so against conv + batch_norm + neuron + average_pool they differ by rounding, at most
// (number of groups) * eps of the sums of magnitudes; without batch norm in training the spikes are
// the same bits. The same input gives the same bits every time.
//
// How a Graph's training step uses it: a chain Linear or Conv (fed by an earlier block or by analog
// frames; Flatten may stand before a Linear) -> [BatchNorm] -> plain Neuron -> [AveragePool], each
// the only consumer of the one before, becomes one call; anything else that reads a block's output
// takes expand()'s floats.
#pragma once

#include <optional>
#include <vector>

#include "autograd/functions.h"

namespace nc::fn {

struct Block {
    Var weight, bias;                      // bias may hold an undefined tensor
    std::optional<ops::ConvOptions> conv;  // none: linear, on samples flattened
    struct Norm {
        Var gamma, beta;
        Tensor mean, variance;  // used when not training
        double eps = 1e-5;
        bool training = true;
        BatchStatistics* batch = nullptr;  // filled when training
    };
    std::optional<Norm> norm;
    Neuron neuron;  // plain spiking
    Var theta;
    std::optional<ops::PoolOptions> pool;  // average, behind the neuron
    size_t steps = 8;  // frames at a time: as many as the batch has in so many steps
};

// A block's output: spikes over T steps, packed, that stand for [T * N, ..] floats.
struct PackedSpikes {
    Var y;        // the floats' place on the tape (after the pool); y.value is undefined
    Shape shape;  // of the floats, after the pool: [T * N, ..]
    size_t T = 0;
    std::vector<Tensor> bits;  // of each group [T, words], as kernels::Neuron packs them
    size_t samples = 0;        // of a group but the last
    Shape neurons;             // of one sample before the pool
    Tensor amplitude;          // [1], [C] or [elements of a sample]
    bool unit = false;         // which is 1
    std::optional<ops::PoolOptions> pool;
};

// x: analog frames [T * N, ..], or [N, ..] with constant_input, the same at every step.
PackedSpikes recompute_block(Compute&, Tape*, const Var& x, size_t T, bool constant_input,
                             const Block&);
// x: of the block before; its groups are used, whatever block.steps says.
PackedSpikes recompute_block(Compute&, Tape*, const PackedSpikes& x, const Block&);

// The floats, for whatever is not a block: a last linear layer, a residual sum.
Var expand(Compute&, Tape*, const PackedSpikes&);

}  // namespace nc::fn
