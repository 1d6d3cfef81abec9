// The CUDA runtime's calls as the emulation answers them: memory, copies, streams, recording.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/cuda_emulation.h"

namespace nc::emulation {

struct Graph {
    std::vector<std::function<cudaError_t()>> work;
};
struct Stream {
    std::unique_ptr<Graph> captured;
};
struct Event {
    std::chrono::steady_clock::time_point at;
};

namespace {

// Device memory lies in one range that the host may touch only while work is done: a library that
// reads it by itself, as it could not on a card, crashes. Under the address sanitizer a block is
// one of the heap's instead, with walls on both sides.
class DeviceMemory {
 public:
    void* take(size_t bytes) {
        const std::lock_guard lock(mutex_);
        const size_t size = (std::max<size_t>(bytes, 1) + page - 1) / page * page;
#ifdef NC_ADDRESS_SANITIZER
        void* const block = std::aligned_alloc(256, size);
        if (block != nullptr) std::memset(block, 0xff, size);
        return block;
#endif
        if (base_ == nullptr) {
            void* range = mmap(nullptr, range_bytes, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (range == MAP_FAILED) return nullptr;
            base_ = static_cast<char*>(range);
            free_[base_] = range_bytes;
        }
        for (auto it = free_.begin(); it != free_.end(); ++it) {
            if (it->second < size) continue;
            char* const p = it->first;
            if (it->second > size) free_[p + size] = it->second - size;
            free_.erase(p);
            taken_[p] = size;
            protect(PROT_READ | PROT_WRITE);
            std::memset(p, 0xff, size);
            if (users_ == 0) protect(PROT_NONE);
            return p;
        }
        return nullptr;
    }
    void give(void* p) {
        const std::lock_guard lock(mutex_);
#ifdef NC_ADDRESS_SANITIZER
        std::free(p);
#else
        const auto found = taken_.find(static_cast<char*>(p));
        if (found == taken_.end()) return;
        madvise(p, found->second, MADV_DONTNEED);
        auto block = free_.insert(*found).first;
        taken_.erase(found);
        const auto next = std::next(block);
        if (next != free_.end() && block->first + block->second == next->first) {
            block->second += next->second;
            free_.erase(next);
        }
        if (block == free_.begin()) return;
        const auto before = std::prev(block);
        if (before->first + before->second != block->first) return;
        before->second += block->second;
        free_.erase(block);
#endif
    }
    void open() {
        const std::lock_guard lock(mutex_);
        if (users_++ == 0) protect(PROT_READ | PROT_WRITE);
    }
    void close() {
        const std::lock_guard lock(mutex_);
        if (--users_ == 0) protect(PROT_NONE);
    }

 private:
    static constexpr size_t page = 4096, range_bytes = size_t(8) << 30;
    void protect(int access) {
        if (base_ != nullptr) mprotect(base_, range_bytes, access);
    }

    std::mutex mutex_;
    char* base_ = nullptr;
    std::map<char*, size_t> free_, taken_;
    int users_ = 0;
};

DeviceMemory& device_memory() {
    static DeviceMemory& memory = *new DeviceMemory;
    return memory;
}

cudaError_t with_device_memory(const std::function<cudaError_t()>& work) {
    device_memory().open();
    const cudaError_t error = work();
    device_memory().close();
    return error;
}

}  // namespace

cudaError_t submit(Stream* stream, std::function<cudaError_t()> work) {
    if (stream == nullptr || stream->captured == nullptr) return with_device_memory(work);
    stream->captured->work.push_back(std::move(work));
    return cudaSuccess;
}

}  // namespace nc::emulation

const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess:
            return "no error";
        case cudaErrorMemoryAllocation:
            return "out of memory";
        case cudaErrorInvalidConfiguration:
            return "invalid configuration argument";
        case cudaErrorInvalidDevice:
            return "invalid device ordinal";
        case cudaErrorLaunchFailure:
            return "unspecified launch failure";
        default:
            return "invalid argument";
    }
}
cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
    *p = {"emulated", size_t(1) << 30, 9, 0, 2};
    return cudaSetDevice(device);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    *free = *total = size_t(1) << 30;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void** p, size_t bytes) {
    *p = bytes > size_t(1) << 32 ? nullptr : nc::emulation::device_memory().take(bytes);
    return *p == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFree(void* p) {
    nc::emulation::device_memory().give(p);
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
    *p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *p == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
    std::free(p);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
    return nc::emulation::submit(stream, [=] {
        if (bytes > 0) std::memcpy(to, from, bytes);
        return cudaSuccess;
    });
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
    return nc::emulation::submit(stream, [=] {
        if (bytes > 0) std::memset(p, value, bytes);
        return cudaSuccess;
    });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = new nc::emulation::Stream;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    stream->captured = std::make_unique<nc::emulation::Graph>();
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    *graph = stream->captured.release();
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long) {
    *ready = new nc::emulation::Graph(*graph);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready) {
    delete ready;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t stream) {
    for (const auto& work : ready->work)
        if (const cudaError_t error = nc::emulation::submit(stream, work); error != cudaSuccess)
            return error;
    return cudaSuccess;
}
