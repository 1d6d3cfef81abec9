// The image family on CUDA: a whole batch's augmentation in one kernel, one thread an output value.
//
// Bytes a value: 1 read, 4 written. Images, samples, scale and shift are on the device.
#include "kernels/cuda_util.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

constexpr unsigned threads = 256;

struct Size {
    unsigned h, w, c;
    __device__ unsigned values() const { return h * w * c; }
};

// The output value at place `i` of [h, w, c].
__device__ float value_at(const uint8_t* image, const Augment& a, const float* scale,
                          const float* shift, Size size, unsigned i) {
    const unsigned pixel = i / size.c, k = i % size.c;
    const int width = int(size.w), oy = int(pixel / size.w), ox = int(pixel % size.w);
    if (oy >= a.cut_y0 && oy < a.cut_y1 && ox >= a.cut_x0 && ox < a.cut_x1) return 0;
    const int64_t y = int64_t(a.y) + oy, x = int64_t(a.x) + (a.flip != 0 ? width - 1 - ox : ox);
    const bool inside = y >= 0 && y < int(size.h) && x >= 0 && x < width;
    const float byte = inside ? float(image[(size_t(y) * size.w + size_t(x)) * size.c + k]) : 0.f;
    return byte * scale[k] + shift[k];  // rounded twice: --fmad=false
}

// blocks: of one image.
__global__ void augment_batch(const uint8_t* images, const Augment* samples, const float* scale,
                              const float* shift, float* out, Size size, unsigned blocks) {
    const size_t sample = blockIdx.x / blocks;
    const unsigned i = blockIdx.x % blocks * threads + threadIdx.x, values = size.values();
    if (i >= values) return;
    const Augment a = samples[sample];
    out[sample * values + i] =
        value_at(images + size_t(a.source) * values, a, scale, shift, size, i);
}

void augment(Queue& q, const uint8_t* images, const Augment* samples, const float* scale,
             const float* shift, float* out, size_t n, size_t h, size_t w, size_t c) {
    const unsigned blocks = blocks_for(h * w * c, threads);
    launch(augment_batch, dim3(unsigned(n * blocks)), dim3(threads), q, images, samples, scale,
           shift, out, Size{unsigned(h), unsigned(w), unsigned(c)}, blocks);
}

}  // namespace

Image<float> image() {
    return {.augment = augment};
}

}  // namespace nc::kernels::NC_CUDA
