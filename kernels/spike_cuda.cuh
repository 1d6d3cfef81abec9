// What the spike family's CUDA files share: where a sum's inputs lie, and how it starts.
#pragma once

#include "kernels/cuda_util.cuh"

namespace nc::kernels::NC_CUDA {

// The corner of an output pixel's window; padding makes it negative, which unsigned wraps to a
// place far behind the image, so that one comparison tells what is inside.
struct Corner {
    size_t image;  // pixels before this image
    unsigned y, x;
};

static __device__ __forceinline__ Corner corner_of(const ConvShape& s, size_t out_h, size_t out_w,
                                                   size_t pixel) {
    const size_t row = pixel / out_w, image = row / out_h;
    return {image * s.h * s.w, unsigned((row - image * out_h) * s.stride_h - s.pad_h),
            unsigned((pixel - row * out_w) * s.stride_w - s.pad_w)};
}

constexpr unsigned nowhere = 1u << 31;  // a row no window reaches an image from

// The input pixel under a tap; false outside the image.
static __device__ __forceinline__ bool under(const ConvShape& s, const Corner& at, unsigned ky,
                                             unsigned kx, size_t& pixel) {
    const unsigned y = at.y + ky * unsigned(s.dilation_h), x = at.x + kx * unsigned(s.dilation_w);
    pixel = at.image + size_t(y) * s.w + x;
    return y < s.h && x < s.w;
}

// Adding 0 turns a bias of -0 into +0. From +0 on no sum is ever -0, so that adding a zero term
// changes nothing: what is past an end may count as zero.
static __device__ __forceinline__ float start(const float* bias, size_t o) {
    return bias != nullptr ? bias[o] + 0.f : 0.f;
}

// spike_split_cuda.cu
void linear_split(Queue&, const uint64_t* bits, const float* w, const float* bias, float* y,
                  size_t rows, size_t groups, size_t channels, size_t out);
void conv_split(Queue&, const uint64_t* bits, const float* w, const float* bias, float* y,
                const ConvShape&);
size_t split_scratch(size_t inputs, size_t out);

}  // namespace nc::kernels::NC_CUDA
