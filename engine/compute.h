// Everything needed to compute somewhere: device, allocator, kernel table, queue.
#pragma once

#include <memory>
#include <type_traits>

#include "engine/tensor.h"
#include "kernels/kernels.h"

namespace nc {

// Not thread-safe: one thread computes with one Compute at a time. Cheap to make; owns its scratch.
struct Compute {
    // threads 0: all hardware threads. Error when NC_ISA names a table this machine cannot run, or
    // when the device is not there.
    explicit Compute(Device device = {}, int threads = 0);
    // A given table (tests and benchmarks).
    explicit Compute(const kernels::Table<float>& table, int threads = 0);
    Compute(const Compute&) = delete;
    Compute& operator=(const Compute&) = delete;

    Device device;
    Allocator* allocator;
    const kernels::Table<float>* table;
    kernels::Queue queue;

    // The table of this storage type: float `table`, double the reference in double.
    template <class F>
    const kernels::Table<F>& kernels() const {
        if constexpr (std::is_same_v<F, double>)
            return kernels::reference_double();
        else
            return *table;
    }

    // Makes the queue's scratch at least this large (grows, never shrinks; counted by the
    // allocator).
    void reserve(size_t scratch_bytes);

    Tensor empty(const Shape& shape, DType dtype = DType::f32) const {
        return Tensor(shape, dtype, *allocator);
    }
    Tensor zeros(const Shape& shape, DType dtype = DType::f32);

 private:
    std::unique_ptr<Storage> scratch_;
};

}  // namespace nc
