// One neuron node's scan over time, ready to run: parameters brought to one size, then the kernels
// forward and backward. What fn::neuron and fn::recompute_block share.
#pragma once

#include "engine/graph.h"

namespace nc::fn {

// values repeated to n elements, [n]: element i is values[i % size].
Tensor cycled(Compute&, const Tensor& values, size_t n);

struct NeuronScan {
    // theta: the value to use for node.theta. sample: the shape of a sample [.., C]. Error when
    // sizes do not fit, or when trained is set and theta has no gradient (there is one for
    // v(0) = 0, a constant or theta / 2).
    NeuronScan(Compute&, const Neuron& node, const Tensor& theta, const Shape& sample,
               bool trained);

    // x: steps * size elements, or size of them when constant_input. v, y and bits as in
    // kernels::Neuron::forward; each may be null.
    void forward(Compute&, const Tensor& x, size_t steps, bool constant_input, Tensor* v, Tensor* y,
                 Tensor* bits) const;
    // dx like x. dtheta, when not null, receives the gradient in the shape of theta.
    Tensor backward(Compute&, const Tensor& x, const Tensor& bits, const Tensor& dy, size_t steps,
                    bool constant_input, Tensor* dtheta) const;
    // Spikes of a scan packed: [steps, words].
    static Shape packed_shape(size_t steps, size_t size) { return {steps, (size + 63) / 64}; }

    kernels::NeuronRule<double> rule;
    Tensor theta, v0, amplitude;  // [params]
    Shape theta_shape;
    bool amplitude_is_theta, v0_is_half_theta;
};

}  // namespace nc::fn
