// Memory of a CUDA device: an Allocator over kernels::Backend that keeps freed blocks for reuse.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "engine/storage.h"
#include "kernels/backend.h"

namespace nc {

// Thread-safe. A block is given back at once, while work that uses it may still be queued: the next
// owner's work comes behind it on the same stream. Keeps every block it ever got from the card
// until the card has no more.
class CudaAllocator : public Allocator {
 public:
    // Copies run on the stream of this queue, which must outlive the allocator, as the backend
    // must.
    CudaAllocator(const kernels::Backend&, const kernels::Queue& opened);
    ~CudaAllocator() override;
    CudaAllocator(const CudaAllocator&) = delete;
    CudaAllocator& operator=(const CudaAllocator&) = delete;

    Device device() const override { return {DeviceKind::cuda, queue_.device}; }
    // Error naming what was asked for, in use, kept and free when the card has no more.
    void* allocate(size_t bytes) override;
    void release(void* p, size_t bytes) noexcept override;
    void copy_in(void* to, const void* from, size_t bytes) override;
    void copy_out(void* to, const void* from, size_t bytes) override;
    void copy_within(void* to, const void* from, size_t bytes) override;
    void zero(void* p, size_t bytes) override;

    void free_kept();  // gives kept blocks back to the card
    size_t kept_bytes() const;

 private:
    void free_kept_locked() noexcept;
    void check(const char* what, int code) const;

    const kernels::Backend& backend_;
    kernels::Queue queue_;  // for copies: the stream and the device
    mutable std::mutex mutex_;
    std::map<size_t, std::vector<void*>> free_;  // by block size
    size_t kept_ = 0, used_ = 0;                 // bytes of blocks: free, live
};

// The one that all work on a device shares, as it shares one stream. Never destroyed.
CudaAllocator& device_allocator(const kernels::Backend&, int device);

// "[cuda] <what>: <the backend's words for it>".
[[noreturn]] void throw_device_error(const kernels::Backend&, const std::string& what, int code);

}  // namespace nc
