// The CUDA device as a Backend, and the table of the hand-written kernels.
#include <stdio.h>

#include "kernels/cuda_util.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

constexpr int most_devices = 64;

int count(int* devices) {
    return int(cudaGetDeviceCount(devices));
}

int properties(int device, DeviceProperties* out) {
    cudaDeviceProp found;
    const cudaError_t error = cudaGetDeviceProperties(&found, device);
    if (error != cudaSuccess) return int(error);
    snprintf(out->name, sizeof out->name, "%s", found.name);
    out->memory = found.totalGlobalMem;
    out->major = found.major;
    out->minor = found.minor;
    out->processors = found.multiProcessorCount;
    return 0;
}

int allocate(int device, void** p, size_t bytes) {
    cudaError_t error = cudaSetDevice(device);
    if (error == cudaSuccess) error = cudaMalloc(p, bytes);
    if (error != cudaSuccess) cudaGetLastError();  // else the next launch would report it again
    return int(error);
}

int release(int device, void* p) {
    const cudaError_t error = cudaSetDevice(device);
    return int(error == cudaSuccess ? cudaFree(p) : error);
}

int free_memory(int device, size_t* bytes) {
    size_t total = 0;
    const cudaError_t error = cudaSetDevice(device);
    return int(error == cudaSuccess ? cudaMemGetInfo(bytes, &total) : error);
}

int host_memory(int device, void** p, size_t bytes) {
    const cudaError_t error = cudaSetDevice(device);
    return int(error == cudaSuccess ? cudaHostAlloc(p, bytes, cudaHostAllocDefault) : error);
}

// The stream that queues of a device share; made on first use and kept for the life of the process.
int shared_stream(int device, cudaStream_t* out) {
    static cudaStream_t streams[most_devices];
    if (device < 0 || device >= most_devices) return int(cudaErrorInvalidDevice);
    cudaError_t error = cudaSuccess;
    if (streams[device] == nullptr)
        error = cudaStreamCreateWithFlags(&streams[device], cudaStreamNonBlocking);
    *out = streams[device];
    return int(error);
}

int open(int device, bool own_stream, Queue* queue) {
    int error = int(cudaSetDevice(device));
    cudaStream_t stream = nullptr;
    if (error == 0)
        error = own_stream ? int(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking))
                           : shared_stream(device, &stream);
    queue->stream = stream;
    queue->device = device;
    queue->status = 0;
    return error;
}

void close(Queue* queue) {
#ifndef NC_CUDA_EMULATED
    close_vendor(queue);
#endif
    cudaStream_t shared = nullptr;
    if (queue->stream != nullptr && shared_stream(queue->device, &shared) == 0 &&
        queue->stream != shared)
        cudaStreamDestroy(stream_of(*queue));
    queue->stream = nullptr;
}

int copy(Queue& queue, void* to, const void* from, size_t bytes) {
    if (bytes == 0) return 0;
    return int(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(queue)));
}

// cudaMemcpyAsync has read ordinary memory on return, at the speed of the driver's own staging.
int to_device(Queue& queue, void* to, const void* from, size_t bytes) {
    return copy(queue, to, from, bytes);
}

int wait(Queue& queue) {
    const cudaError_t error = cudaStreamSynchronize(stream_of(queue));
    return queue.status != 0 ? queue.status : int(error);
}

int to_host(Queue& queue, void* to, const void* from, size_t bytes) {
    const int error = copy(queue, to, from, bytes);
    return error != 0 ? error : wait(queue);
}

int zero(Queue& queue, void* p, size_t bytes) {
    return bytes == 0 ? 0 : int(cudaMemsetAsync(p, 0, bytes, stream_of(queue)));
}

int begin_recording(Queue& queue) {
    return int(cudaStreamBeginCapture(stream_of(queue), cudaStreamCaptureModeThreadLocal));
}

int end_recording(Queue& queue, void** recording) {
    cudaGraph_t graph = nullptr;
    cudaError_t error = cudaStreamEndCapture(stream_of(queue), &graph);
    cudaGraphExec_t ready = nullptr;
    if (error == cudaSuccess) error = cudaGraphInstantiate(&ready, graph, 0);
    if (graph != nullptr) cudaGraphDestroy(graph);
    *recording = ready;
    return int(error);
}

int replay(Queue& queue, void* recording) {
    return int(cudaGraphLaunch(static_cast<cudaGraphExec_t>(recording), stream_of(queue)));
}

void forget(void* recording) {
    if (recording != nullptr) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(recording));
}

const char* text(int code) {
    return cudaGetErrorString(static_cast<cudaError_t>(code));
}

}  // namespace

const Backend& backend() {
    static const Backend backend = {.name = "cuda",
                                    .count = count,
                                    .properties = properties,
                                    .allocate = allocate,
                                    .release = release,
                                    .free_memory = free_memory,
                                    .host_memory = host_memory,
                                    .open = open,
                                    .close = close,
                                    .to_device = to_device,
                                    .to_host = to_host,
                                    .within = copy,
                                    .zero = zero,
                                    .wait = wait,
                                    .begin_recording = begin_recording,
                                    .end_recording = end_recording,
                                    .replay = replay,
                                    .forget = forget,
                                    .text = text};
    return backend;
}

const Table<float>& table() {
#ifdef NC_CUDA_EMULATED
    constexpr const char* name = "cuda-emulated";
#else
    constexpr const char* name = "cuda";
#endif
    static const Table<float> table = {.name = name,
                                       .cuda = true,
                                       .elementwise = elementwise(),
                                       .reduce = reduce(),
                                       .gemm = gemm(),
                                       .conv = conv(),
                                       .pool = pool(),
                                       .norm = norm(),
                                       .loss = loss(),
                                       .neuron = neuron(),
                                       .spike = spike(),
                                       .optim = optim(),
                                       .image = image(),
                                       .integer = integer()};
    return table;
}

}  // namespace nc::kernels::NC_CUDA

#ifndef NC_CUDA_EMULATED
namespace nc::kernels {
namespace {

__global__ void nothing() {}

// What stands in the way, or null. Asked once.
const char* find_obstacle() {
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error == cudaErrorInsufficientDriver)
        return "no NVIDIA driver, or one older than this build's CUDA needs";
    if (error == cudaErrorNoDevice || (error == cudaSuccess && devices == 0))
        return "no CUDA device is present";
    if (error != cudaSuccess) return cudaGetErrorString(error);
    cudaFuncAttributes attributes;
    const cudaError_t loaded = cudaFuncGetAttributes(&attributes, nothing);
    if (loaded == cudaErrorNoKernelImageForDevice || loaded == cudaErrorInvalidDeviceFunction)
        return "the card's architecture is too old: this build has code for compute capability 8.0 and "
               "newer";
    if (loaded != cudaSuccess) return cudaGetErrorString(loaded);
    return nullptr;
}

}  // namespace

const char* why_no_cuda() {
    static const char* const obstacle = find_obstacle();
    return obstacle;
}

const Backend* cuda_backend() {
    return why_no_cuda() == nullptr ? &on_cuda::backend() : nullptr;
}

const Table<float>* cuda() {
    return why_no_cuda() == nullptr ? &on_cuda::table() : nullptr;
}

}  // namespace nc::kernels
#endif
