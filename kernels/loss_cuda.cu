// The loss family on CUDA: a warp a row, in double like the reference; a batch of logits is small.
//
// Each row is read two or three times, from the caches after the first; bytes a logit: 8 read, 4
// written.
#include "kernels/cuda_util.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

constexpr unsigned threads = 256;

struct RowScale {
    double top, sum;  // the greatest value, and the sum of exp(z - top)
};

// Every lane of the warp calls it, and has the result.
__device__ RowScale row_scale(const float* z, size_t cols, unsigned lane) {
    float top = -INFINITY;
    for (size_t c = lane; c < cols; c += warp_size) top = z[c] > top ? z[c] : top;
    for (unsigned with = warp_size / 2; with > 0; with /= 2) {
        const float other = __shfl_xor_sync(all_lanes, top, with);
        top = other > top ? other : top;
    }
    double sum = 0;  // a NaN among the values makes it NaN
    for (size_t c = lane; c < cols; c += warp_size) sum += exp(double(z[c]) - double(top));
    return {double(top), warp_sum(sum)};
}

__global__ void softmax_rows(const float* logits, float* probabilities, size_t rows, size_t cols) {
    const unsigned lane = threadIdx.x % warp_size;
    for (size_t r = global_thread() / warp_size; r < rows; r += global_threads() / warp_size) {
        const float* z = logits + r * cols;
        const RowScale scale = row_scale(z, cols, lane);
        for (size_t c = lane; c < cols; c += warp_size)
            probabilities[r * cols + c] = float(exp(double(z[c]) - scale.top) / scale.sum);
    }
}

__global__ void cross_entropy_rows(const float* logits, const float* targets, float* loss,
                                   float* dlogits, size_t rows, size_t cols) {
    const unsigned lane = threadIdx.x % warp_size;
    for (size_t r = global_thread() / warp_size; r < rows; r += global_threads() / warp_size) {
        const float* z = logits + r * cols;
        const RowScale scale = row_scale(z, cols, lane);
        const double log_sum = scale.top + log(scale.sum);
        double own = 0;
        for (size_t c = lane; c < cols; c += warp_size) {
            const double target = double(targets[r * cols + c]);
            if (target != 0) own += target * (log_sum - double(z[c]));
            if (dlogits != nullptr)
                dlogits[r * cols + c] =
                    float((exp(double(z[c]) - scale.top) / scale.sum - target) / double(rows));
        }
        const double total = warp_sum(own);
        if (lane == 0) loss[r] = float(total);
    }
}

void softmax(Queue& q, const float* logits, float* probabilities, size_t rows, size_t cols) {
    if (cols == 0) return;
    launch(softmax_rows, dim3(blocks_for(rows * warp_size, threads)), dim3(threads), q, logits,
           probabilities, rows, cols);
}

void cross_entropy(Queue& q, const float* logits, const float* targets, float* loss, float* dlogits,
                   size_t rows, size_t cols) {
    if (cols == 0) return;
    launch(cross_entropy_rows, dim3(blocks_for(rows * warp_size, threads)), dim3(threads), q,
           logits, targets, loss, dlogits, rows, cols);
}

}  // namespace

Loss<float> loss() {
    return {.softmax = softmax, .cross_entropy = cross_entropy};
}

}  // namespace nc::kernels::NC_CUDA
