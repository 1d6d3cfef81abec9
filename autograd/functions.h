// Differentiable functions: each computes with engine/ops and, when there is a tape and an input on
// it, records its backward directly beneath its forward. tape may be null. Shapes as in engine/ops;
// time is folded into the batch except where T is named.
#pragma once

#include <vector>

#include "autograd/tape.h"
#include "engine/graph.h"
#include "engine/ops.h"

namespace nc::fn {

// functions_basic.cpp
Var add(Compute&, Tape*, const Var& a, const Var& b);
Var sub(Compute&, Tape*, const Var& a, const Var& b);
Var mul(Compute&, Tape*, const Var& a, const Var& b);
Var scale(Compute&, Tape*, const Var& a, double s);
// row: one value, one a channel or one for each element of a [N, ...].
Var mul_row(Compute&, Tape*, const Var& a, const Var& row);
Var reshape(Compute&, Tape*, const Var& a, const Shape& shape);
Var sum(Compute&, Tape*, const Var& a);  // [1]
// x [T * N, ..., C] from step `first` on; row t of bias [steps, C] is added at step t, the last row
// at all that follow.
Var add_steps(Compute&, Tape*, const Var& x, const Var& bias, size_t T, size_t first);
Var mean_leading(Compute&, Tape*, const Var& a);                  // [T, ...] -> [...]
Var repeat_leading(Compute&, Tape*, const Var& a, size_t times);  // [...] -> [T, ...]
// [rows, ...] moved `by` rows later: zeros first, the last ones dropped.
Var delay_leading(Compute&, Tape*, const Var& a, size_t by);
Var activation(Compute&, Tape*, const Var& x, kernels::Activation, double param);
Var prelu(Compute&, Tape*, const Var& x, const Var& slope);
// Huber's loss (1964) of the values `taken` picks, mean over rows; [1]: d^2 / 2 up to |d| = 1, |d|
// - 1/2 beyond, d = value - target. taken [N, A]: 1 at one value of each row, else 0.
Var huber(Compute&, Tape*, const Var& values, const Tensor& targets, const Tensor& taken);

// functions_layer.cpp
Var linear(Compute&, Tape*, const Var& x, const Var& weight,
           const Var& bias);  // bias may hold an undefined tensor
Var conv(Compute&, Tape*, const Var& x, const Var& weight, const Var& bias,
         const ops::ConvOptions&);
Var average_pool(Compute&, Tape*, const Var& x, const ops::PoolOptions&);
Var global_average_pool(Compute&, Tape*, const Var& x);  // [N, H, W, C] -> [N, C]
Var max_pool(Compute&, Tape*, const Var& x, const ops::PoolOptions&);
struct BatchStatistics {
    Tensor mean, variance;  // of the batch, biased
    size_t rows = 0;
};
// training: normalises by the batch and fills *batch; else by the running mean and variance. relu:
// a ReLU follows, in the same pass and without keeping what it takes.
Var batch_norm(Compute&, Tape*, const Var& x, const Var& gamma, const Var& beta, const Tensor& mean,
               const Tensor& variance, double eps, bool training, BatchStatistics* batch,
               bool relu = false);
Var softmax(Compute&, Tape*, const Var& logits);
// Mean over rows of the cross-entropy against targets, whose rows are distributions; [1].
Var cross_entropy(Compute&, Tape*, const Var& logits, const Tensor& targets);
// The same against (1 - smoothing) one-hot + smoothing / classes (Szegedy et al., 2016).
Var cross_entropy(Compute&, Tape*, const Var& logits, const std::vector<int32_t>& labels,
                  double smoothing);

// functions_spiking.cpp
Var qcfs(Compute&, Tape*, const Var& x, const Var& lambda, int levels);
struct Scan {
    size_t T = 1;
    bool constant_input =
        false;  // x is [N, ...], the same at every step; else [T, N, ...] folded to [T * N, ...]
    bool values = true;  // make y; without, only packed spikes
    // In and out, [N, ...]; undefined: starts at v0 and receives the membrane. Inference only.
    Tensor* membrane = nullptr;
};
struct Spikes {
    Var y;        // [T * N, ...] amplitude * spikes
    Tensor bits;  // packed as kernels::Neuron says; undefined for signed and exact neurons
};
// The neuron over T steps, theta on the tape when node.train_theta. Keeps x and the packed spikes
// for the backward pass.
Spikes neuron(Compute&, Tape*, const Neuron& node, const Var& theta, const Var& x, const Scan&);

}  // namespace nc::fn
