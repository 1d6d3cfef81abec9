// A Membrane over time: forward Euler on the kernels every table has.
#pragma once

#include "engine/compute.h"
#include "engine/graph.h"

namespace nc {

// A neuron that forgets everything: 1 where x > threshold, for it compares 0 * v + x.
Neuron comparison(const Tensor& threshold);

// x [T * N, ...], or [N, ...] presented at every step when constant_input. state [2, N, elements]
// holds v and the synaptic current: undefined it starts at 0 and receives them, else it goes on;
// it may be null.
// Returns [T * N, ...]: spikes, or v where there is no threshold. Each operation is rounded to
// float, so the bits are the same on every table. Error on shapes that do not fit.
Tensor run_membrane(Compute&, const Membrane&, const Tensor& x, size_t T, bool constant_input,
                    Tensor* state);

}  // namespace nc
