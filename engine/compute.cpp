// Where to compute: the choice of a kernel table, a device's queue, and its scratch.
#include "engine/compute.h"

#include <omp.h>

#include <cstdlib>

#include "engine/cuda_allocator.h"
#include "engine/error.h"

namespace nc {
namespace {

const kernels::Table<float>& table_for(const Device& device) {
    if (device.kind == DeviceKind::cuda) {
        const kernels::Table<float>* vendor = kernels::cuda_vendor();
        const kernels::Table<float>* cuda = vendor != nullptr ? vendor : kernels::cuda();
        if (cuda != nullptr) return *cuda;
        throw Error(std::string("[compute] cuda is not available: ") + kernels::why_no_cuda(),
                    ErrorKind::usage, "use the device cpu");
    }
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

Compute::Compute(const kernels::Table<float>& table, const kernels::Backend* backend, int index,
                 Memory memory, int threads, kernels::Precision precision)
    : device(), allocator(&host_allocator()), table(&table), backend(backend) {
    queue.precision = precision;
    if (threads < 0) throw Error("[compute] threads: " + std::to_string(threads));
    queue.threads = threads == 0 ? omp_get_max_threads() : threads;
    if (backend == nullptr) return;
    device = {DeviceKind::cuda, index};
    int devices = 0;
    int code = backend->count(&devices);
    if (code != 0) throw_device_error(*backend, "counting devices", code);
    if (index < 0 || index >= devices)
        throw Error("[compute] there is no " + device.str() + ": this machine has " +
                        std::to_string(devices) + (devices == 1 ? " CUDA device" : " CUDA devices"),
                    ErrorKind::usage, "devices are counted from cuda:0");
    if (memory == Memory::shared) allocator = &device_allocator(*backend, index);
    code = backend->open(index, memory == Memory::own, &queue);
    if (code != 0) throw_device_error(*backend, "opening " + device.str(), code);
    if (memory == Memory::own) {
        own_ = std::make_unique<CudaAllocator>(*backend, queue);
        allocator = own_.get();
    }
}

Compute::Compute(Device device, int threads, kernels::Precision precision)
    : Compute(table_for(device),
              device.kind == DeviceKind::cuda ? kernels::cuda_backend() : nullptr, device.index,
              Memory::shared, threads, precision) {
    if (precision != kernels::Precision::fp32 && table != kernels::cuda_vendor())
        throw Error("[compute] the table " + std::string(table->name) + " on " + device.str() +
                        " has fp32 only",
                    ErrorKind::usage, "tf32 and bf16 need a CUDA device with cuBLAS and cuDNN");
}

Compute::Compute(const kernels::Table<float>& table, int threads)
    : Compute(table, nullptr, 0, Memory::shared, threads, kernels::Precision::fp32) {}

Compute::Compute(const kernels::Table<float>& table, const kernels::Backend& backend, int device,
                 Memory memory)
    : Compute(table, &backend, device, memory, 0, kernels::Precision::fp32) {}

Compute Compute::beside(const Compute& other, int threads, Memory memory) {
    return Compute(*other.table, other.backend, other.device.index, memory, threads,
                   other.queue.precision);
}

Compute::~Compute() {
    scratch_.reset();
    own_.reset();
    if (backend != nullptr) backend->close(&queue);
}

void Compute::fail(const char* what, int code) const {
    throw_device_error(*backend, what, code);
}

void Compute::wait() {
    if (backend == nullptr) return;
    check("a kernel");
    if (const int code = backend->wait(queue); code != 0) fail("waiting for the device", code);
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
    out.zero();
    return out;
}

}  // namespace nc
