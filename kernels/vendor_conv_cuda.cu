// Convolution by cuDNN: the copies around its plans, and the hand-written kernel where it has none.
//
// Weights go to cuDNN transposed into scratch: 8 bytes a weight. In bf16 activations are converted
// there and back, 6 bytes an element each way, and y, dx, dw are rounded to bf16 once more than
// their sums.
#include <cuda_bf16.h>

#include "kernels/vendor_cuda.cuh"

namespace nc::kernels::on_cuda {
namespace {

using Bf16 = __nv_bfloat16;

__device__ float as_float(float x) {
    return x;
}
__device__ float as_float(Bf16 x) {
    return __bfloat162float(x);
}
__device__ void assign(float* to, float x) {
    *to = x;
}
__device__ void assign(Bf16* to, float x) {
    *to = __float2bfloat16_rn(x);
}

constexpr unsigned side = 32, lines = 8;  // of a tile; a thread moves side / lines elements

// to [cols, rows] = from [rows, cols] transposed.
template <class From, class To>
__global__ void transpose(const From* from, To* to, size_t rows, size_t cols, size_t tiles_x) {
    NC_SHARED(float, tile, side*(side + 1));
    const size_t row0 = blockIdx.x / tiles_x * side, col0 = blockIdx.x % tiles_x * side;
    for (unsigned i = threadIdx.y; i < side; i += lines)
        if (row0 + i < rows && col0 + threadIdx.x < cols)
            tile[i * (side + 1) + threadIdx.x] =
                as_float(from[(row0 + i) * cols + col0 + threadIdx.x]);
    __syncthreads();
    for (unsigned i = threadIdx.y; i < side; i += lines)
        if (col0 + i < cols && row0 + threadIdx.x < rows)
            assign(to + (col0 + i) * rows + row0 + threadIdx.x, tile[threadIdx.x * (side + 1) + i]);
}

template <class From, class To>
void run_transpose(Queue& q, const From* from, To* to, size_t rows, size_t cols) {
    const size_t tiles_y = (rows + side - 1) / side, tiles_x = (cols + side - 1) / side;
    launch(transpose<From, To>, dim3(unsigned(tiles_y * tiles_x)), dim3(side, lines), q, from, to,
           rows, cols, tiles_x);
}

// Four elements a thread, as both pointers are aligned for that.
__global__ void narrow(const float* from, Bf16* to, size_t n) {
    for (size_t i = global_thread() * 4; i < n; i += global_threads() * 4) {
        if (i + 4 <= n) {
            const float4 v = *reinterpret_cast<const float4*>(from + i);
            __nv_bfloat162* const out = reinterpret_cast<__nv_bfloat162*>(to + i);
            out[0] = __floats2bfloat162_rn(v.x, v.y);
            out[1] = __floats2bfloat162_rn(v.z, v.w);
        } else {
            for (size_t j = i; j < n; ++j) to[j] = __float2bfloat16_rn(from[j]);
        }
    }
}
__global__ void widen(const Bf16* from, float* to, size_t n) {
    for (size_t i = global_thread() * 4; i < n; i += global_threads() * 4) {
        if (i + 4 <= n) {
            const __nv_bfloat162* const in = reinterpret_cast<const __nv_bfloat162*>(from + i);
            const float2 low = __bfloat1622float2(in[0]), high = __bfloat1622float2(in[1]);
            *reinterpret_cast<float4*>(to + i) = make_float4(low.x, low.y, high.x, high.y);
        } else {
            for (size_t j = i; j < n; ++j) to[j] = __bfloat162float(from[j]);
        }
    }
}

// ----------------------------------------------------------------------------------------------
// conv

// One convolution by cuDNN: which copies it needs, and where in scratch they lie.
struct Call {
    Queue& q;
    const ConvShape& s;
    const Plan* plan;
    bool bf16;
    char *w, *x, *y, *workspace;

    // `x_or_dx` and `y_or_dy` are what cuDNN would read or write in place: it wants 16-byte
    // alignment.
    Call(Queue& queue, const ConvShape& shape, Direction direction, const float* x_or_dx,
         const float* y_or_dy)
        : q(queue), s(shape), plan(nullptr), bf16(queue.precision == Precision::bf16) {
        const ConvRoom room(s, q.precision);
        w = aligned_scratch(q);
        x = w + room.weights;
        y = x + room.x;
        workspace = y + room.y;
        const uintptr_t pointers =
            reinterpret_cast<uintptr_t>(x_or_dx) | reinterpret_cast<uintptr_t>(y_or_dy);
        if (pointers % 16 == 0 && x_count(s) > 0 && y_count(s) > 0 && w_rows(s) > 0)
            plan = plan_for(q, s, direction);
    }
    static size_t scratch(const ConvShape& s, size_t own) {
        const size_t bytes = alignment + ConvRoom(s, Precision::bf16).all();
        return own > bytes ? own : bytes;
    }

    const void* weights_in(const float* from) {
        if (bf16)
            run_transpose(q, from, reinterpret_cast<Bf16*>(w), w_rows(s), s.cout);
        else
            run_transpose(q, from, reinterpret_cast<float*>(w), w_rows(s), s.cout);
        return w;
    }
    void weights_out(float* to) {
        if (bf16)
            run_transpose(q, reinterpret_cast<const Bf16*>(w), to, s.cout, w_rows(s));
        else
            run_transpose(q, reinterpret_cast<const float*>(w), to, s.cout, w_rows(s));
    }
    const void* in(const float* from, char* copy, size_t n) {
        if (!bf16) return from;
        launch(narrow, dim3(blocks_for(n, 4 * 256)), dim3(256), q, from,
               reinterpret_cast<Bf16*>(copy), n);
        return copy;
    }
    void out(float* to, const char* copy, size_t n) {
        if (bf16)
            launch(widen, dim3(blocks_for(n, 4 * 256)), dim3(256), q,
                   reinterpret_cast<const Bf16*>(copy), to, n);
    }
};

void forward(Queue& q, const float* x, const float* w, const float* bias, float* y,
             const ConvShape& s) {
    Call call(q, s, Direction::forward, x, y);
    if (call.plan == nullptr) return table().conv.forward(q, x, w, bias, y, s);
    const void* const weights = call.weights_in(w);
    const void* const input = call.in(x, call.x, x_count(s));
    if (!execute(q, *call.plan, input, weights, call.bf16 ? call.y : static_cast<void*>(y),
                 call.workspace))
        return;
    call.out(y, call.y, y_count(s));
    if (bias != nullptr) table().elementwise.add_row(q, y, bias, y, y_count(s) / s.cout, s.cout);
}

void backward_input(Queue& q, const float* dy, const float* w, float* dx, const ConvShape& s) {
    Call call(q, s, Direction::backward_input, dx, dy);
    if (call.plan == nullptr) return table().conv.backward_input(q, dy, w, dx, s);
    const void* const weights = call.weights_in(w);
    const void* const gradient = call.in(dy, call.y, y_count(s));
    if (execute(q, *call.plan, call.bf16 ? call.x : static_cast<void*>(dx), weights, gradient,
                call.workspace))
        call.out(dx, call.x, x_count(s));
}

void backward_weight(Queue& q, const float* x, const float* dy, float* dw, const ConvShape& s) {
    Call call(q, s, Direction::backward_weight, x, dy);
    if (call.plan == nullptr) return table().conv.backward_weight(q, x, dy, dw, s);
    const void* const input = call.in(x, call.x, x_count(s));
    const void* const gradient = call.in(dy, call.y, y_count(s));
    if (execute(q, *call.plan, input, call.w, gradient, call.workspace)) call.weights_out(dw);
}

size_t forward_scratch(const ConvShape& s, int threads) {
    return Call::scratch(s, table().conv.forward_scratch(s, threads));
}
size_t backward_input_scratch(const ConvShape& s, int threads) {
    return Call::scratch(s, table().conv.backward_input_scratch(s, threads));
}
size_t backward_weight_scratch(const ConvShape& s, int threads) {
    return Call::scratch(s, table().conv.backward_weight_scratch(s, threads));
}

}  // namespace

Conv<float> vendor_conv() {
    return {.forward = forward,
            .backward_input = backward_input,
            .backward_weight = backward_weight,
            .forward_scratch = forward_scratch,
            .backward_input_scratch = backward_input_scratch,
            .backward_weight_scratch = backward_weight_scratch};
}

}  // namespace nc::kernels::on_cuda
