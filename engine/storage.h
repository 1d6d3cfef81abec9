// Counted bytes on a device, and the allocators they come from.
#pragma once

#include <cstddef>
#include <memory>

#include "engine/device.h"

namespace nc {

// Hands out 64-byte aligned blocks and counts them.
class Allocator {
 public:
    virtual ~Allocator() = default;
    virtual Device device() const = 0;
    virtual void* allocate(size_t bytes) = 0;  // Error naming the size when there is no memory
    virtual void release(void* p, size_t bytes) noexcept = 0;

    size_t live_bytes() const { return live_; }
    size_t peak_bytes() const { return peak_; }
    void reset_peak() { peak_ = live_; }

 protected:
    void count(size_t bytes);
    void uncount(size_t bytes) noexcept;

 private:
    // Tensors may be made on the prefetch thread: counted atomically in storage.cpp through
    // std::atomic_ref.
    size_t live_ = 0, peak_ = 0;
};

// The process-wide host allocator. Keeps freed blocks of up to a bound for reuse (page faults cost
// more than kernels).
Allocator& host_allocator();

class Storage {
 public:
    Storage(size_t bytes, Allocator& allocator);
    ~Storage();
    Storage(const Storage&) = delete;
    Storage& operator=(const Storage&) = delete;

    void* data() { return data_; }
    const void* data() const { return data_; }
    size_t bytes() const { return bytes_; }
    Device device() const { return allocator_->device(); }

 private:
    Allocator* allocator_;
    void* data_;
    size_t bytes_;
};

}  // namespace nc
