// Everything needed to compute somewhere: device, allocator, kernel table, queue.
#pragma once

#include <memory>
#include <type_traits>

#include "engine/tensor.h"
#include "kernels/backend.h"
#include "kernels/kernels.h"

namespace nc {

// Not thread-safe: one thread computes with one Compute at a time, on a device the one that made
// it. Cheap to make; owns its scratch.
struct Compute {
    // threads 0: all hardware threads. Error when NC_ISA names a table this machine cannot run, or
    // when the device is not there. Precision other than fp32 is cuda-vendor's.
    explicit Compute(Device device = {}, int threads = 0,
                     kernels::Precision precision = kernels::Precision::fp32);
    // A given table on the host's memory (tests and benchmarks); a cuda table only where its
    // kernels reach that.
    explicit Compute(const kernels::Table<float>& table, int threads = 0);
    // On a device of this backend, whose memory and stream all share; or with memory and a
    // stream of its own, which no tensor may outlive.
    enum class Memory { shared, own };
    Compute(const kernels::Table<float>& table, const kernels::Backend& backend, int device = 0,
            Memory memory = Memory::shared);
    // On the device of another one, with the same table.
    static Compute beside(const Compute& other, int threads, Memory memory = Memory::shared);
    ~Compute();
    Compute(const Compute&) = delete;
    Compute& operator=(const Compute&) = delete;

    Device device;
    Allocator* allocator;
    const kernels::Table<float>* table;
    const kernels::Backend* backend = nullptr;  // null on the CPU
    kernels::Queue queue;

    // The table of this storage type: float `table`, double the reference in double.
    template <class F>
    const kernels::Table<F>& kernels() const {
        if constexpr (std::is_same_v<F, double>)
            return kernels::reference_double();
        else
            return *table;
    }

    bool on_host() const { return backend == nullptr; }
    // Error "[cuda] <what>: ..." when a kernel could not be started.
    void check(const char* what) const {
        if (queue.status != 0) fail(what, queue.status);
    }
    // Until all work is done; Error when some of it failed.
    void wait();

    // Makes the queue's scratch at least this large (grows, never shrinks; counted by the
    // allocator).
    void reserve(size_t scratch_bytes);

    Tensor empty(const Shape& shape, DType dtype = DType::f32) const {
        return Tensor(shape, dtype, *allocator);
    }
    Tensor zeros(const Shape& shape, DType dtype = DType::f32);
    // Host values brought to the device.
    template <class T>
    Tensor from(const std::vector<T>& values, const Shape& shape) const {
        return Tensor::from(values, shape).to(*allocator);
    }

 private:
    Compute(const kernels::Table<float>& table, const kernels::Backend* backend, int index,
            Memory memory, int threads, kernels::Precision precision);
    [[noreturn]] void fail(const char* what, int code) const;

    std::unique_ptr<Allocator> own_;
    std::unique_ptr<Storage> scratch_;
};

}  // namespace nc
