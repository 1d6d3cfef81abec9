// What each family's files define, for dispatch.cpp to put together: the reference as a template
// over the storage type, the vector code once per instruction set.
#pragma once

#include "kernels/kernels.h"

namespace nc::kernels {

template <class F>
Elementwise<F> reference_elementwise();
template <class F>
Reduce<F> reference_reduce();
template <class F>
Gemm<F> reference_gemm();
template <class F>
Conv<F> reference_conv();
template <class F>
Pool<F> reference_pool();
template <class F>
Norm<F> reference_norm();
template <class F>
Loss<F> reference_loss();
template <class F>
Neuron<F> reference_neuron();
template <class F>
Spike<F> reference_spike();
template <class F>
Optim<F> reference_optim();
template <class F>
Image<F> reference_image();
Integer reference_integer();
Stages reference_stages();
Analog reference_analog();
Probe cuda_probe();  // null in a build without CUDA

namespace sse2 {
Elementwise<float> elementwise();
Reduce<float> reduce();
Gemm<float> gemm();
Conv<float> conv();
Pool<float> pool();
Norm<float> norm();
Loss<float> loss();
Neuron<float> neuron();
Spike<float> spike();
Optim<float> optim();
Image<float> image();
Integer integer();
Stages stages();
Analog analog();
double multiply_adds(size_t rounds, float* sink);
}  // namespace sse2

namespace avx2 {
Elementwise<float> elementwise();
Reduce<float> reduce();
Gemm<float> gemm();
Conv<float> conv();
Pool<float> pool();
Norm<float> norm();
Loss<float> loss();
Neuron<float> neuron();
Spike<float> spike();
Optim<float> optim();
Image<float> image();
Integer integer();
Stages stages();
Analog analog();
double multiply_adds(size_t rounds, float* sink);
}  // namespace avx2

namespace avx512 {
Elementwise<float> elementwise();
Reduce<float> reduce();
Gemm<float> gemm();
Conv<float> conv();
Pool<float> pool();
Norm<float> norm();
Loss<float> loss();
Neuron<float> neuron();
Spike<float> spike();
Optim<float> optim();
Image<float> image();
Integer integer();
Stages stages();
Analog analog();
double multiply_adds(size_t rounds, float* sink);
}  // namespace avx512

}  // namespace nc::kernels
