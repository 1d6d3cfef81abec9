// Where to compute: the choice of a kernel table, and its scratch.
#include "engine/compute.h"

#include <omp.h>

#include <cstdlib>
#include <cstring>

#include "engine/error.h"

namespace nc {
namespace {

const kernels::Table<float>& table_for(const Device& device) {
    if (device.kind == DeviceKind::cuda)
        throw Error(
            std::string("[compute] cuda is not available: ") + kernels::why_unusable("cuda"),
            ErrorKind::usage, "use the device cpu");
    const kernels::Table<float>* best = kernels::best();
    if (best != nullptr) return *best;
    const char* forced = std::getenv("NC_ISA");
    const std::string name = forced == nullptr ? "" : forced;
    const char* why = kernels::why_unusable(name.c_str());
    throw Error("[compute] NC_ISA=" + name +
                    " cannot be used: " + (why == nullptr ? "it does not run on the cpu" : why),
                ErrorKind::usage, "unset NC_ISA to let the program choose");
}

}  // namespace

Compute::Compute(Device device, int threads) : Compute(table_for(device), threads) {}

Compute::Compute(const kernels::Table<float>& table, int threads)
    : device(), allocator(&host_allocator()), table(&table) {
    if (threads < 0) throw Error("[compute] threads: " + std::to_string(threads));
    queue.threads = threads == 0 ? omp_get_max_threads() : threads;
}

void Compute::reserve(size_t scratch_bytes) {
    if (scratch_bytes <= queue.scratch_bytes) return;
    queue.scratch = nullptr;
    queue.scratch_bytes = 0;
    scratch_.reset();
    scratch_ = std::make_unique<Storage>(scratch_bytes, *allocator);
    queue.scratch = static_cast<char*>(scratch_->data());
    queue.scratch_bytes = scratch_bytes;
}

Tensor Compute::zeros(const Shape& shape, DType dtype) {
    Tensor out = empty(shape, dtype);
    std::memset(out.raw(), 0, out.bytes());
    return out;
}

}  // namespace nc
