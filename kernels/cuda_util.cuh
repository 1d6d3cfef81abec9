// What every CUDA file stands on: the one way to launch a kernel, the one way to get shared memory, and
// reductions over a warp and a block.
//
// Compiled by nvcc as namespace on_cuda. Tests compile the same files with g++ as another namespace, with
// CUDA's execution model emulated (tests/cuda_emulation.h); nothing else here knows of it.
#pragma once

#ifndef NC_CUDA_EMULATED
#include <cuda_runtime.h>
#define NC_UNROLL _Pragma("unroll")  // before a loop whose count the compiler knows
// A shared array of `count` elements, as a pointer of this name.
#define NC_SHARED(type, name, count)                \
    __shared__ __align__(16) type name##_of_block[count]; \
    type* const name = name##_of_block
#endif

#include "kernels/backend.h"
#include "kernels/kernels.h"

#ifndef NC_CUDA
#define NC_CUDA on_cuda
#endif

namespace nc::kernels::NC_CUDA {

// What each family's file defines, for backend_cuda.cu to put together.
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
double multiply_adds(size_t rounds, float* sink);  // kernels.h, Probe; waits
const Table<float>& table();
const Backend& backend();
void close_vendor(Queue*);  // gives back the library handles that the vendor kernels made; not emulated

constexpr unsigned all_lanes = 0xffffffffu;
constexpr unsigned warp_size = 32;

static inline cudaStream_t stream_of(const Queue& queue) {
    return static_cast<cudaStream_t>(queue.stream);
}

// Starts kernel(arguments...) on the queue's stream. The first error stays in queue.status, and nothing
// is started after it; an empty grid is no work.
template <class... Parameters, class... Arguments>
static inline void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, Queue& queue,
                          Arguments... arguments) {
    if (queue.status != cudaSuccess || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#ifdef NC_CUDA_EMULATED
    std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
    queue.status = emulation::submit(stream_of(queue), [=] {
        return emulation::run(grid, block, [&] { std::apply(kernel, values); });
    });
#else
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.stream = stream_of(queue);
    queue.status = int(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
#endif
}

// Blocks of `block` threads for n threads, at most `most` of them: kernels walk on in steps of the grid.
static inline unsigned blocks_for(size_t n, unsigned block, size_t most = size_t(1) << 20) {
    const size_t blocks = (n + block - 1) / block;
    return unsigned(blocks < most ? blocks : most);
}

// The thread's place in the grid's row, and how many threads that row has.
static __device__ __forceinline__ size_t global_thread() {
    return size_t(blockIdx.x) * blockDim.x + threadIdx.x;
}
static __device__ __forceinline__ size_t global_threads() {
    return size_t(gridDim.x) * blockDim.x;
}

// The sum over the warp's lanes, in every lane, added in a fixed order. Every lane calls it.
template <class T>
static __device__ __forceinline__ T warp_sum(T value) {
    for (unsigned with = warp_size / 2; with > 0; with /= 2)
        value += __shfl_xor_sync(all_lanes, value, with);
    return value;
}

// The sum over a block of `threads` threads (a multiple of 32, at most 1024), in every thread, added in a
// fixed order. Every thread calls it. One array a type and size: barriers on both sides of its use.
template <unsigned threads, class T>
static __device__ __forceinline__ T block_sum(T value) {
    static_assert(threads % warp_size == 0 && threads <= 1024);
    constexpr unsigned warps = threads / warp_size;
    value = warp_sum(value);
    if constexpr (warps == 1) return value;
    NC_SHARED(T, parts, warps);
    __syncthreads();  // the parts of a sum before this one have been read
    if (threadIdx.x % warp_size == 0) parts[threadIdx.x / warp_size] = value;
    __syncthreads();
    T sum = parts[0];
    for (unsigned i = 1; i < warps; ++i) sum += parts[i];
    return sum;
}

}  // namespace nc::kernels::NC_CUDA
