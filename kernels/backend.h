// What a device does besides kernels: memory, copies, order, recording. One struct of function pointers,
// as the kernels are; null where there is no such device.
//
// Every function returns 0 or the runtime's error code, which text() puts into words. Work is done in the
// order of the queue's stream; a copy from or to ordinary host memory has read or written it on return.
#pragma once

#include <stddef.h>

#include "kernels/kernels.h"

namespace nc::kernels {

struct DeviceProperties {
    char name[256];
    size_t memory;     // bytes
    int major, minor;  // compute capability
    int processors;    // streaming multiprocessors
};

struct Backend {
    const char* name;  // "cuda"
    int (*count)(int* devices);
    int (*properties)(int device, DeviceProperties*);
    int (*allocate)(int device, void** p, size_t bytes);  // 256-byte aligned
    int (*release)(int device, void* p);
    int (*free_memory)(int device, size_t* bytes);
    // Page-locked memory of the host, which kernels reach by the same pointer; kept until the end
    // of the process.
    int (*host_memory)(int device, void** p, size_t bytes);
    // Fills the queue's stream and device. All queues of a device share one stream, so that memory freed
    // by one may be used by the next, but those opened with own_stream.
    int (*open)(int device, bool own_stream, Queue*);
    void (*close)(Queue*);
    int (*to_device)(Queue&, void* to, const void* from, size_t bytes);
    int (*to_host)(Queue&, void* to, const void* from, size_t bytes);
    int (*within)(Queue&, void* to, const void* from, size_t bytes);  // on the device
    int (*zero)(Queue&, void* p, size_t bytes);
    int (*wait)(Queue&);  // until all work given to the queue is done; reports its errors too
    // What is given to the queue between begin and end is recorded, not done; replay does it as one.
    // Nothing may be allocated, released, waited for or copied from or to the host meanwhile.
    int (*begin_recording)(Queue&);
    int (*end_recording)(Queue&, void** recording);
    int (*replay)(Queue&, void* recording);
    void (*forget)(void* recording);
    const char* (*text)(int code);
};

// Null in a build without CUDA, without a driver, without a device, or with one this build has no code
// for; why_no_cuda() says which in a static sentence, and is null when there is a backend.
const Backend* cuda_backend();
const char* why_no_cuda();

}  // namespace nc::kernels
