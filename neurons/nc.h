// NeuroCUDA from C: load a spiking network's model file and run it on the CPU, for latency.
//
// Every function returns a status and writes nothing it was not asked to; no exception leaves the
// library. Buffers belong to the caller and their sizes, in values, are always given. Different
// models may be used by different threads at the same time; a model that another thread is using
// answers NC_BUSY. A handle that was freed, or never given, answers NC_BAD_HANDLE.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define NC_API __attribute__((visibility("default")))
#else
#define NC_API
#endif

typedef enum nc_status {
    NC_OK = 0,
    NC_BAD_ARGUMENT = 1, // a null pointer, a size that does not fit
    NC_BAD_HANDLE = 2,   // freed, or never given
    NC_BUSY = 3,         // another thread is using this model
    NC_BAD_MODEL = 4,    // unreadable, damaged, or a network that cannot be run; nc_error() says
    NC_NO_MEMORY = 5,
    NC_FAILED = 6 // anything else; nc_error() says
} nc_status;

typedef uint64_t nc_model; // a handle; 0 is never one

typedef enum nc_path { NC_AUTOMATIC = 0, NC_DENSE = 1, NC_EVENT = 2 } nc_path;

// All zeros: one thread, the model's own T, automatic, no early exit, single samples.
typedef struct nc_options {
    uint32_t threads;  // that share a sample, or a batch
    uint32_t steps;    // T of most runs
    uint32_t path;     // nc_path: how weight layers add
    float exit_margin; // above 0: a run ends once the largest mean logit leads by this much
    uint32_t batch;    // samples of most runs: an analog network's layers are chosen for it
} nc_options;

typedef struct nc_info {
    size_t input_size;              // values of one sample or frame: height * width * channels
    size_t height, width, channels; // height = width = 1 for vectors; values lie H, W, C
    size_t outputs;                 // logits of a sample
    size_t steps;                   // the model's T; 0: none is stored, or the network is analog
    int temporal;                   // made for recordings, a frame a step, rather than pictures
    size_t memory_bytes;
    char table[16]; // whose instructions run: "avx2", ...
} nc_info;

// options may be null. On success *model is a handle to be given to nc_free; else 0.
NC_API nc_status nc_load(const char* path, const nc_options* options, nc_model* model);
// The same from a file's bytes, which are not needed afterwards.
NC_API nc_status nc_load_bytes(const void* bytes, size_t size, const nc_options* options,
                               nc_model* model);
NC_API nc_status nc_get_info(nc_model model, nc_info* info);

// `samples` samples over `steps` steps, from reset membranes. input_count says what input is: a
// frame for every step [steps, samples, input_size], or pictures [samples, input_size], shown at
// every step. Values are what the network takes (normalised as in training). logits [samples,
// outputs]: the mean over the steps. Allocates nothing when a run as large came before. An analog
// network takes pictures, and `steps` changes nothing.
NC_API nc_status nc_run(nc_model model, const float* input, size_t input_count, size_t samples,
                        size_t steps, float* logits, size_t logits_count);

// One step of one sample: frame [input_size], or null for the one before again. logits [outputs]:
// the mean over the steps since nc_reset. NC_BAD_ARGUMENT for an analog network: it has no steps.
NC_API nc_status nc_step(nc_model model, const float* frame, size_t frame_count, float* logits,
                         size_t logits_count);
NC_API nc_status nc_reset(nc_model model);

NC_API nc_status nc_free(nc_model model);

// What the last call on this thread that did not return NC_OK had to say; "" before any. Valid
// until the next such call on this thread.
NC_API const char* nc_error(void);

#ifdef __cplusplus
}
#endif
