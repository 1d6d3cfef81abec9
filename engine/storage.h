// Counted bytes on a device, and the allocators they come from.
#pragma once

#include <atomic>
#include <cstddef>

#include "engine/device.h"

namespace nc {

// Hands out 64-byte aligned blocks and counts them.
class Allocator {
 public:
    virtual ~Allocator() = default;
    virtual Device device() const = 0;
    virtual void* allocate(size_t bytes) = 0;  // Error naming the size when there is no memory
    virtual void release(void* p, size_t bytes) noexcept = 0;
    // Bytes between the host and a block, or from one block to another that does not overlap it;
    // done, for whoever uses either, on return. Error when the device fails.
    virtual void copy_in(void* to, const void* from, size_t bytes) = 0;
    virtual void copy_out(void* to, const void* from, size_t bytes) = 0;
    virtual void copy_within(void* to, const void* from, size_t bytes) = 0;
    virtual void zero(void* p, size_t bytes) = 0;

    size_t live_bytes() const { return live_; }
    size_t peak_bytes() const { return peak_; }
    void reset_peak() { peak_ = live_.load(); }

 protected:
    void count(size_t bytes);
    void uncount(size_t bytes) noexcept;

 private:
    std::atomic<size_t> live_ = 0, peak_ = 0;  // tensors are made on the prefetch thread too
};

// The process-wide host allocator, thread-safe. Keeps freed blocks for reuse (page faults cost more
// than kernels) as long as all blocks together stay below what the live ones once needed, or 512
// MiB; live_bytes and peak_bytes count live tensors only.
Allocator& host_allocator();

// Sizes that share blocks: multiples of a line up to 8 lines, then eight a power of two (at most an
// eighth is wasted), so that batches that differ a little reuse each other's blocks.
size_t block_size(size_t bytes);

class Storage {
 public:
    Storage(size_t bytes, Allocator& allocator);
    ~Storage();
    Storage(const Storage&) = delete;
    Storage& operator=(const Storage&) = delete;

    void* data() { return data_; }
    const void* data() const { return data_; }
    size_t bytes() const { return bytes_; }
    Allocator& allocator() const { return *allocator_; }
    Device device() const { return allocator_->device(); }

 private:
    Allocator* allocator_;
    void* data_;
    size_t bytes_;
};

}  // namespace nc
