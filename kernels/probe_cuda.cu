// How fast the card multiplies and adds in fp32 when nothing but registers is involved.
#include "kernels/cuda_util.cuh"
#include "kernels/families.h"

namespace nc::kernels::NC_CUDA {
namespace {

constexpr unsigned threads = 256, blocks_a_processor = 8, chains = 8;

__device__ float kept;  // so that the compiler must not drop the loop

// Eight independent chains: more than the latency of a multiply-add, with the other warps there.
__global__ void chains_of_sums(size_t rounds, float factor) {
    float sum[chains];
    NC_UNROLL
    for (unsigned i = 0; i < chains; ++i) sum[i] = float(threadIdx.x + i);
    for (size_t round = 0; round < rounds; ++round) {
        NC_UNROLL
        for (unsigned i = 0; i < chains; ++i) sum[i] = fmaf(sum[i], factor, 1e-9f);
    }
    float total = 0;
    NC_UNROLL
    for (unsigned i = 0; i < chains; ++i) total += sum[i];
    if (total < 0) kept = total;  // never
}

}  // namespace

double multiply_adds(size_t rounds, float* sink) {
    DeviceProperties properties;
    Queue queue;
    if (backend().properties(queue.device, &properties) != 0) return 0;
    const unsigned blocks = unsigned(properties.processors) * blocks_a_processor;
    launch(chains_of_sums, dim3(blocks), dim3(threads), queue, rounds, *sink);
    if (queue.status != 0 || backend().wait(queue) != 0) return 0;
    return 2.0 * chains * double(rounds) * threads * blocks;
}

}  // namespace nc::kernels::NC_CUDA

#ifndef NC_CUDA_EMULATED
namespace nc::kernels {

Probe cuda_probe() {
    return on_cuda::multiply_adds;
}

}  // namespace nc::kernels
#endif
