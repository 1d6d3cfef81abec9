// Memory of a CUDA device: blocks by size, copies in the order of a stream.
#include "engine/cuda_allocator.h"

#include <memory>
#include <new>

#include "engine/error.h"

namespace nc {

void throw_device_error(const kernels::Backend& backend, const std::string& what, int code) {
    throw Error("[cuda] " + what + ": " + backend.text(code), ErrorKind::data);
}

CudaAllocator::CudaAllocator(const kernels::Backend& backend, const kernels::Queue& opened)
    : backend_(backend) {
    queue_.stream = opened.stream;
    queue_.device = opened.device;
}

CudaAllocator::~CudaAllocator() {
    free_kept_locked();
}

void CudaAllocator::check(const char* what, int code) const {
    if (code != 0) throw_device_error(backend_, what, code);
}

void* CudaAllocator::allocate(size_t bytes) {
    constexpr size_t limit = size_t(1) << 48;  // no card has more; keeps the rounding exact
    const size_t size = bytes > limit ? bytes : block_size(bytes);
    const std::lock_guard lock(mutex_);
    void* p = nullptr;
    if (const auto found = free_.find(size); found != free_.end() && !found->second.empty()) {
        p = found->second.back();
        found->second.pop_back();
        kept_ -= size;
    } else if (bytes > limit || backend_.allocate(queue_.device, &p, size) != 0) {
        free_kept_locked();
        size_t left = 0;
        if (bytes > limit || backend_.allocate(queue_.device, &p, size) != 0) {
            backend_.free_memory(queue_.device, &left);
            throw Error("[cuda] not enough memory on " + device().str() + ": " +
                            std::to_string(bytes) + " bytes asked for, " + std::to_string(used_) +
                            " in use, " + std::to_string(left) +
                            " free on the card after giving back what was kept",
                        ErrorKind::data, "a smaller batch or fewer time steps need less");
        }
    }
    used_ += size;
    count(bytes);
    return p;
}

void CudaAllocator::release(void* p, size_t bytes) noexcept {
    const size_t size = block_size(bytes);
    uncount(bytes);
    const std::lock_guard lock(mutex_);
    used_ -= size;
    try {
        free_[size].push_back(p);
        kept_ += size;
    } catch (const std::bad_alloc&) {  // not kept, then
        backend_.release(queue_.device, p);
    }
}

void CudaAllocator::free_kept() {
    const std::lock_guard lock(mutex_);
    free_kept_locked();
}

void CudaAllocator::free_kept_locked() noexcept {
    for (const auto& [size, blocks] : free_)
        for (void* p : blocks) backend_.release(queue_.device, p);
    free_.clear();
    kept_ = 0;
}

size_t CudaAllocator::kept_bytes() const {
    const std::lock_guard lock(mutex_);
    return kept_;
}

void CudaAllocator::copy_in(void* to, const void* from, size_t bytes) {
    if (bytes > 0) check("copying to the device", backend_.to_device(queue_, to, from, bytes));
}

void CudaAllocator::copy_out(void* to, const void* from, size_t bytes) {
    if (bytes > 0) check("copying to the host", backend_.to_host(queue_, to, from, bytes));
}

void CudaAllocator::copy_within(void* to, const void* from, size_t bytes) {
    if (bytes > 0) check("copying on the device", backend_.within(queue_, to, from, bytes));
}

void CudaAllocator::zero(void* p, size_t bytes) {
    if (bytes > 0) check("zeroing", backend_.zero(queue_, p, bytes));
}

CudaAllocator& device_allocator(const kernels::Backend& backend, int device) {
    using Key = std::pair<const kernels::Backend*, int>;
    static std::mutex& mutex = *new std::mutex;
    static auto& all = *new std::map<Key, CudaAllocator*>;
    const std::lock_guard lock(mutex);
    CudaAllocator*& found = all[{&backend, device}];
    if (found == nullptr) {
        kernels::Queue queue;
        if (const int code = backend.open(device, false, &queue); code != 0)
            throw_device_error(backend, "opening device " + std::to_string(device), code);
        found = new CudaAllocator(backend, queue);
    }
    return *found;
}

}  // namespace nc
