// Convolution of images that are mostly zeros, as spikes and their averages are: only what is not
// zero is multiplied. Not for groups.
#pragma once

#include "kernels/kernels.h"

namespace nc::kernels::NC_ISA {

// Whether so few of the inputs differ from zero that looking for them is worth it; a sample of x is
// counted.
bool is_sparse(const float* x, const ConvShape&);

// The bits of the dense forward pass: adding 0 * w to a sum that started from +0 changes none.
bool has_sparse_forward(const ConvShape&);
void sparse_forward(Queue&, const float* x, const float* w, const float* bias, float* y,
                    const ConvShape&);
size_t sparse_forward_scratch(const ConvShape&, int threads);

// Images are summed in another order than by the dense pass, the same on any number of threads.
bool has_sparse_backward_weight(const ConvShape&);  // stride and dilation 1
void sparse_backward_weight(Queue&, const float* x, const float* dy, float* dw, const ConvShape&);
size_t sparse_backward_weight_scratch(const ConvShape&, int threads);

}  // namespace nc::kernels::NC_ISA
