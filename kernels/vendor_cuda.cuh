// What the kernels that call NVIDIA's libraries share: a queue's handles, and the libraries'
// errors.
#pragma once

#include <cublas_v2.h>
#include <cudnn.h>

#include "kernels/cuda_util.cuh"

namespace nc::kernels::on_cuda {

struct ConvPlans;

struct Vendor {
    cublasHandle_t blas = nullptr;
    cudnnHandle_t dnn = nullptr;
    ConvPlans* plans = nullptr;  // what cuDNN made of the convolutions so far
};

// The queue's, made on first use; null when that failed, or the queue had failed before.
Vendor* vendor(Queue&);

// False after putting the error into queue.status, as the nearest of CUDA's: Backend::text knows
// those.
bool succeeded(Queue&, cublasStatus_t);
bool succeeded(Queue&, cudnnStatus_t);

// The libraries want their workspace aligned: *_scratch ask for `alignment` more, and use it from
// here.
constexpr size_t alignment = 256;
constexpr size_t aligned(size_t bytes) {
    return (bytes + alignment - 1) / alignment * alignment;
}
inline char* aligned_scratch(const Queue& queue) {
    return reinterpret_cast<char*>(aligned(reinterpret_cast<uintptr_t>(queue.scratch)));
}

// ----------------------------------------------------------------------------------------------
// conv

Conv<float> vendor_conv();

inline size_t x_count(const ConvShape& s) {
    return s.n * s.h * s.w * s.cin;
}
inline size_t y_count(const ConvShape& s) {
    return s.n * s.out_h() * s.out_w() * s.cout;
}
inline size_t w_rows(const ConvShape& s) {  // a column each output channel
    return s.kh * s.kw * (s.cin / s.groups);
}

// Scratch of a convolution, in bytes. Without bf16 the copies' room is the workspace's: engines
// that multiply floats as they are first turn both images into [n, c, h, w].
struct ConvRoom {
    size_t weights, x, y, workspace;
    ConvRoom(const ConvShape& s, Precision precision) {
        constexpr size_t least = size_t(32) << 20, most = size_t(1) << 30;
        weights = aligned(w_rows(s) * s.cout * sizeof(float));
        x = aligned(x_count(s) * 2);
        y = aligned(y_count(s) * 2);
        workspace = least + (x + y < most ? x + y : most);
        if (precision == Precision::bf16) return;
        workspace += x + y;
        x = y = 0;
    }
    size_t all() const { return weights + x + y + workspace; }
};

enum class Direction : int { forward, backward_input, backward_weight };
struct Plan;

// The plan for this convolution at the queue's precision, made on first use; null when cuDNN has
// none.
const Plan* plan_for(Queue&, const ConvShape&, Direction);

// x, w and y, or their gradients: NHWC, weights [cout, kh, kw, cin / groups]; bf16 where that is
// the precision. False after an error.
bool execute(Queue&, const Plan&, const void* x, const void* w, const void* y, void* workspace);

void forget_plans(ConvPlans*);

}  // namespace nc::kernels::on_cuda
