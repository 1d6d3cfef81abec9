// CUDA's execution model on the host, for tests: g++ compiles the kernels' .cu files with this header in
// front of them, and the same kernels run without a GPU.
//
// A launch runs its blocks one after another, in random order. The threads of a block are fibres; each
// runs until it waits (a barrier, a warp operation) or ends, and the next is picked at random, so what
// reads before another thread's write is seen. Shared and device memory start filled with 0xff (a NaN as
// a float), so what is read unwritten shows; shared arrays and device blocks have walls that the address
// sanitizer knows. A barrier or warp operation that not all threads reach, or that they reach in
// different lines, fails the launch and says where on stderr. Streams are plain calls.
//
// What it cannot show: the order of memory between blocks, real speed, real registers.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#define NC_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NC_ADDRESS_SANITIZER 1
#endif
#endif
#ifdef NC_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

#define NC_CUDA_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)

// ----------------------------------------------------------------------------------------------
// the runtime's types
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2,
                      cudaErrorInvalidConfiguration = 9, cudaErrorInvalidDevice = 101,
                      cudaErrorLaunchFailure = 719;
enum cudaMemcpyKind { cudaMemcpyDefault = 4 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
constexpr unsigned cudaStreamNonBlocking = 1, cudaHostAllocDefault = 0;

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
using uint3 = dim3;
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) {
    return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    int major, minor, multiProcessorCount;
};

namespace nc::emulation {

struct Stream;
struct Graph;

// Where the running thread is.
struct Place {
    dim3 thread, block, block_size, grid;
    unsigned lane, warp;
};
const Place& here();

// Runs every thread of every block; returns cudaSuccess or what is wrong.
cudaError_t run(dim3 grid, dim3 block, const std::function<void()>& thread);
// The same, or recorded while the stream is being captured.
cudaError_t submit(Stream*, std::function<cudaError_t()> work);

void barrier(int line);
// Puts `bytes` (at most 64) of every lane of the mask where all of them can read it until their next
// warp operation; returns the 32 slots.
struct Slot {
    alignas(16) unsigned char bytes[64];
};
const Slot* exchange(unsigned mask, const void* value, size_t bytes, int line);

uint64_t block_number();  // counts every block ever begun

template <class T>
const Slot* exchange_value(unsigned mask, const T& value, int line) {
    static_assert(sizeof(T) <= sizeof(Slot) && std::is_trivially_copyable_v<T>);
    return exchange(mask, &value, sizeof value, line);
}
template <class T>
T slot_value(const Slot& slot) {
    T value;
    std::memcpy(&value, slot.bytes, sizeof value);
    return value;
}

// The value of lane `from`, or the lane's own when there is no such lane in the warp.
template <class T>
T shuffle(unsigned mask, T value, unsigned from, int line) {
    const Slot* all = exchange_value(mask, value, line);
    return from < 32 && (mask >> from & 1) != 0 ? slot_value<T>(all[from]) : value;
}
inline unsigned ballot(unsigned mask, bool vote, int line) {
    const Slot* all = exchange_value(mask, vote, line);
    unsigned out = 0;
    for (unsigned i = 0; i < 32; ++i)
        if ((mask >> i & 1) != 0 && slot_value<bool>(all[i])) out |= 1u << i;
    return out;
}

// A shared array: the same for all threads of a block, poisoned when a block first uses it; between walls.
template <class T, size_t n>
struct Shared {
    uint64_t block = 0;
    alignas(128) unsigned char before[128];
    alignas(128) T values[n];
    unsigned char behind[128];
    T* use() {
        if (block != block_number()) {
#ifdef NC_ADDRESS_SANITIZER
            if (block == 0) {
                __asan_poison_memory_region(before, sizeof before);
                __asan_poison_memory_region(behind, sizeof behind);
            }
#endif
            std::memset(static_cast<void*>(values), 0xff, sizeof values);
            block = block_number();
        }
        return values;
    }
};

}  // namespace nc::emulation

#define NC_SHARED(type, name, count)                               \
    static ::nc::emulation::Shared<type, (count)> name##_of_block; \
    type* const name = name##_of_block.use()

#define NC_UNROLL

#define threadIdx (::nc::emulation::here().thread)
#define blockIdx (::nc::emulation::here().block)
#define blockDim (::nc::emulation::here().block_size)
#define gridDim (::nc::emulation::here().grid)

// ----------------------------------------------------------------------------------------------
// what kernels call
#define __syncthreads() ::nc::emulation::barrier(__LINE__)
#define __syncwarp() ((void)::nc::emulation::ballot(0xffffffffu, true, __LINE__))
#define __shfl_sync(mask, value, from) ::nc::emulation::shuffle(mask, value, from, __LINE__)
#define __shfl_down_sync(mask, value, by) \
    ::nc::emulation::shuffle(mask, value, ::nc::emulation::here().lane + (by), __LINE__)
#define __shfl_up_sync(mask, value, by) \
    ::nc::emulation::shuffle(mask, value, ::nc::emulation::here().lane - (by), __LINE__)
#define __shfl_xor_sync(mask, value, with) \
    ::nc::emulation::shuffle(mask, value, ::nc::emulation::here().lane ^ (with), __LINE__)
#define __ballot_sync(mask, vote) ::nc::emulation::ballot(mask, (vote) != 0, __LINE__)
#define __any_sync(mask, vote) (::nc::emulation::ballot(mask, (vote) != 0, __LINE__) != 0)
#define __all_sync(mask, vote) (::nc::emulation::ballot(mask, (vote) != 0, __LINE__) == (mask))

template <class T>
T atomicAdd(T* at, T value) {
    const T before = *at;
    *at = before + value;
    return before;
}
template <class T>
T atomicOr(T* at, T value) {
    const T before = *at;
    *at = before | value;
    return before;
}
template <class T>
T atomicMax(T* at, T value) {
    const T before = *at;
    *at = before < value ? value : before;
    return before;
}
template <class T>
T __ldg(const T* p) {
    return *p;
}
inline int __popcll(unsigned long long x) {
    return std::popcount(x);
}
inline int __popc(unsigned x) {
    return std::popcount(x);
}
inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}
inline float __int_as_float(int x) {
    return std::bit_cast<float>(x);
}
inline int __float_as_int(float x) {
    return std::bit_cast<int>(x);
}
inline unsigned __float_as_uint(float x) {
    return std::bit_cast<unsigned>(x);
}
inline float __uint_as_float(unsigned x) {
    return std::bit_cast<float>(x);
}
inline float __fmaf_rn(float a, float b, float c) {
    return std::fma(a, b, c);
}
template <class T>
constexpr T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
    return a < b ? b : a;
}

// ----------------------------------------------------------------------------------------------
// what launchers and the backend call
using cudaStream_t = nc::emulation::Stream*;
using cudaGraph_t = nc::emulation::Graph*;
using cudaGraphExec_t = nc::emulation::Graph*;

const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int device);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMalloc(void** p, size_t bytes);
cudaError_t cudaFree(void* p);
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* p);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
