// The elementwise family on CUDA: a block 512 elements, a thread four of them, read before the
// first is written so that their reads are in flight at once. Bytes an element: 4 written, 4 read
// of each input.
//
// Bitwise like the reference for + - * / and comparisons; the transcendental activations are
// computed in double, as the reference does.
#include <type_traits>

#include "kernels/sum_cuda.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

constexpr unsigned threads = 128, steps = 4;

// out[i] = op(i) for every i; op is a struct of pointers with a call operator.
template <class Op>
__global__ void map(Op op, float* out, size_t n) {
    const size_t first = size_t(blockIdx.x) * threads * steps + threadIdx.x;
    if (first + (steps - 1) * threads < n) {
        float value[steps];
        NC_UNROLL
        for (unsigned j = 0; j < steps; ++j) value[j] = op(first + j * threads);
        NC_UNROLL
        for (unsigned j = 0; j < steps; ++j) out[first + j * threads] = value[j];
    } else {
        for (size_t i = first; i < n; i += threads) out[i] = op(i);
    }
}

template <class Op>
void run(Queue& queue, Op op, float* out, size_t n) {
    launch(map<Op>, dim3(unsigned((n + threads * steps - 1) / (threads * steps))), dim3(threads),
           queue, op, out, n);
}

struct Fill {
    float value;
    __device__ float operator()(size_t) const { return value; }
};
struct Add {
    const float *a, *b;
    __device__ float operator()(size_t i) const { return a[i] + b[i]; }
};
struct Sub {
    const float *a, *b;
    __device__ float operator()(size_t i) const { return a[i] - b[i]; }
};
struct Mul {
    const float *a, *b;
    __device__ float operator()(size_t i) const { return a[i] * b[i]; }
};
struct Div {
    const float *a, *b;
    __device__ float operator()(size_t i) const { return a[i] / b[i]; }
};
struct Scale {
    const float* a;
    float s;
    __device__ float operator()(size_t i) const { return a[i] * s; }
};
struct AddScaled {
    const float *a, *b;
    float s;
    __device__ float operator()(size_t i) const { return a[i] + b[i] * s; }  // no fma: --fmad=false
};
struct Clamp {
    const float* a;
    float low, high;
    __device__ float operator()(size_t i) const {
        return a[i] < low ? low : a[i] > high ? high : a[i];
    }
};
struct AddRow {
    const float *a, *row;
    size_t cols;
    __device__ float operator()(size_t i) const { return a[i] + row[i % cols]; }
};
struct MulRow {
    const float *a, *row;
    size_t cols;
    __device__ float operator()(size_t i) const { return a[i] * row[i % cols]; }
};

__device__ double sigmoid_of(double x) {
    return 1 / (1 + exp(-x));
}
__device__ double normal_cdf(double x) {
    return 0.5 * erfc(-x * 0.70710678118654752);
}

// The kind is a kernel of its own: a switch between an element's read and the next would keep the
// reads apart.
template <Activation kind>
struct Activate {
    float param;
    const float* x;
    __device__ float operator()(size_t i) const {
        const float v = x[i];
        switch (kind) {
            case Activation::relu:
                return v <= 0 ? 0.f : v;
            case Activation::leaky_relu:
                return v > 0 ? v : v * param;
            case Activation::relu6:
                return v <= 0 ? 0.f : v >= 6 ? 6.f : v;
            case Activation::hard_swish:
                return v <= -3 ? 0.f : v >= 3 ? v : v * (v + 3) / 6;
            case Activation::silu:
                return v < -800 ? 0.f : float(v * sigmoid_of(v));
            case Activation::gelu:
                return v < -40 ? 0.f : float(v * normal_cdf(v));
            case Activation::sigmoid:
                return float(sigmoid_of(v));
            case Activation::tanh:
                return float(tanh(double(v)));
        }
        return v;
    }
};

template <Activation kind>
struct ActivateBackward {
    float param;
    const float *x, *dy;
    __device__ float operator()(size_t i) const {
        const float v = x[i], g = dy[i];
        switch (kind) {
            case Activation::relu:
                return v <= 0 ? 0.f : g;
            case Activation::leaky_relu:
                return v > 0 ? g : g * param;
            case Activation::relu6:
                return v <= 0 || v >= 6 ? 0.f : g;
            case Activation::hard_swish:
                return v <= -3 ? 0.f : v >= 3 ? g : g * ((v + v + 3) / 6);
            case Activation::silu: {
                if (v < -800 || v > 800) return v < 0 ? 0.f : g;  // no inf * 0
                const double s = sigmoid_of(v);
                return float(g * (s * (1 + double(v) * sigmoid_of(-double(v)))));
            }
            case Activation::gelu: {
                if (v < -40) return 0.f;
                const double density = 0.3989422804014327 * exp(-0.5 * double(v) * double(v));
                return float(g * (normal_cdf(v) + (density == 0 ? 0 : double(v) * density)));
            }
            case Activation::sigmoid:
                return float(g * (sigmoid_of(v) * sigmoid_of(-double(v))));
            case Activation::tanh: {
                const double t = tanh(double(v));
                return float(g * (1 - t * t));
            }
        }
        return g;
    }
};

// body(kind), as a constant.
template <class Body>
void for_kind(Activation kind, Body body) {
    switch (kind) {
        case Activation::relu:
            return body(std::integral_constant<Activation, Activation::relu>());
        case Activation::leaky_relu:
            return body(std::integral_constant<Activation, Activation::leaky_relu>());
        case Activation::relu6:
            return body(std::integral_constant<Activation, Activation::relu6>());
        case Activation::hard_swish:
            return body(std::integral_constant<Activation, Activation::hard_swish>());
        case Activation::silu:
            return body(std::integral_constant<Activation, Activation::silu>());
        case Activation::gelu:
            return body(std::integral_constant<Activation, Activation::gelu>());
        case Activation::sigmoid:
            return body(std::integral_constant<Activation, Activation::sigmoid>());
        case Activation::tanh:
            return body(std::integral_constant<Activation, Activation::tanh>());
    }
}

struct Prelu {
    const float *x, *slope;
    size_t cols;
    __device__ float operator()(size_t i) const {
        const float v = x[i], s = slope[i % cols];
        return v > 0 ? v : v * s;
    }
};
struct PreluBackward {
    const float *x, *slope, *dy;
    size_t cols;
    __device__ float operator()(size_t i) const {
        const float v = x[i], d = dy[i], s = slope[i % cols];
        return v > 0 ? d : d * s;
    }
};
struct SlopeTerm {
    const float *x, *dy;
    size_t cols;
    __device__ Terms<1> operator()(size_t r, size_t c) const {
        const size_t i = r * cols + c;
        const float v = x[i], d = dy[i];
        return {{v > 0 ? 0.f : v * d}};
    }
};

void fill(Queue& q, float value, float* out, size_t n) {
    run(q, Fill{value}, out, n);
}
void add(Queue& q, const float* a, const float* b, float* out, size_t n) {
    run(q, Add{a, b}, out, n);
}
void sub(Queue& q, const float* a, const float* b, float* out, size_t n) {
    run(q, Sub{a, b}, out, n);
}
void mul(Queue& q, const float* a, const float* b, float* out, size_t n) {
    run(q, Mul{a, b}, out, n);
}
void div(Queue& q, const float* a, const float* b, float* out, size_t n) {
    run(q, Div{a, b}, out, n);
}
void scale(Queue& q, const float* a, float s, float* out, size_t n) {
    run(q, Scale{a, s}, out, n);
}
void add_scaled(Queue& q, const float* a, const float* b, float s, float* out, size_t n) {
    run(q, AddScaled{a, b, s}, out, n);
}
void clamp(Queue& q, const float* a, float low, float high, float* out, size_t n) {
    run(q, Clamp{a, low, high}, out, n);
}
void add_row(Queue& q, const float* a, const float* row, float* out, size_t rows, size_t cols) {
    run(q, AddRow{a, row, cols}, out, rows * cols);
}
void mul_row(Queue& q, const float* a, const float* row, float* out, size_t rows, size_t cols) {
    run(q, MulRow{a, row, cols}, out, rows * cols);
}
void activate(Queue& q, Activation kind, float param, const float* x, float* y, size_t n) {
    for_kind(kind, [&](auto known) { run(q, Activate<known.value>{param, x}, y, n); });
}
void activate_backward(Queue& q, Activation kind, float param, const float* x, const float* dy,
                       float* dx, size_t n) {
    for_kind(kind, [&](auto known) { run(q, ActivateBackward<known.value>{param, x, dy}, dx, n); });
}
void prelu(Queue& q, const float* x, const float* slope, float* y, size_t rows, size_t cols) {
    run(q, Prelu{x, slope, cols}, y, rows * cols);
}
void prelu_backward(Queue& q, const float* x, const float* slope, const float* dy, float* dx,
                    float* dslope, size_t rows, size_t cols) {
    run(q, PreluBackward{x, slope, dy, cols}, dx, rows * cols);
    sum_columns<1>(q, SlopeTerm{x, dy, cols}, StoreColumn{dslope}, rows, cols);
}
size_t prelu_backward_scratch(size_t rows, size_t cols) {
    return column_scratch(rows, cols, 1);
}

}  // namespace

Elementwise<float> elementwise() {
    return {.fill = fill,
            .add = add,
            .sub = sub,
            .mul = mul,
            .div = div,
            .scale = scale,
            .add_scaled = add_scaled,
            .clamp = clamp,
            .add_row = add_row,
            .mul_row = mul_row,
            .activate = activate,
            .activate_backward = activate_backward,
            .prelu = prelu,
            .prelu_backward = prelu_backward,
            .prelu_backward_scratch = prelu_backward_scratch};
}

}  // namespace nc::kernels::NC_CUDA
