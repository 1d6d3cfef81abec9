// The elementwise family of one instruction set: the reference's operations in its order, a vector
// at a time; exp, erf and tanh from math_simd.h.
#include "kernels/families.h"
#include "kernels/loops_simd.h"
#include "kernels/math_simd.h"

namespace nc::kernels::NC_ISA {

// Elements worth a thread: below, waking it costs more than it saves.
constexpr static size_t cheap = 32768, costly = 8192;

static void fill(Queue& q, float value, float* out, size_t n) {
    const Vec v = broadcast(value);
    parallel_vectors(q.threads, n, cheap, [=](auto io, size_t i) { io.store(out + i, v); });
}

static void add(Queue& q, const float* a, const float* b, float* out, size_t n) {
    parallel_vectors(q.threads, n, cheap, [=](auto io, size_t i) {
        io.store(out + i, io.load(a + i) + io.load(b + i));
    });
}

static void sub(Queue& q, const float* a, const float* b, float* out, size_t n) {
    parallel_vectors(q.threads, n, cheap, [=](auto io, size_t i) {
        io.store(out + i, io.load(a + i) - io.load(b + i));
    });
}

static void mul(Queue& q, const float* a, const float* b, float* out, size_t n) {
    parallel_vectors(q.threads, n, cheap, [=](auto io, size_t i) {
        io.store(out + i, io.load(a + i) * io.load(b + i));
    });
}

static void div(Queue& q, const float* a, const float* b, float* out, size_t n) {
    parallel_vectors(q.threads, n, cheap, [=](auto io, size_t i) {
        io.store(out + i, io.load(a + i) / io.load(b + i));
    });
}

static void scale(Queue& q, const float* a, float s, float* out, size_t n) {
    const Vec factor = broadcast(s);
    parallel_vectors(q.threads, n, cheap,
                     [=](auto io, size_t i) { io.store(out + i, io.load(a + i) * factor); });
}

static void add_scaled(Queue& q, const float* a, const float* b, float s, float* out, size_t n) {
    const Vec factor = broadcast(s);
    parallel_vectors(q.threads, n, cheap, [=](auto io, size_t i) {
        io.store(out + i, io.load(a + i) + io.load(b + i) * factor);
    });
}

static void clamp(Queue& q, const float* a, float low, float high, float* out, size_t n) {
    const Vec least = broadcast(low), most = broadcast(high);
    parallel_vectors(q.threads, n, cheap, [=](auto io, size_t i) {
        const Vec v = io.load(a + i);
        io.store(out + i, select(v < least, least, select(v > most, most, v)));
    });
}

static void add_row(Queue& q, const float* a, const float* row, float* out, size_t rows,
                    size_t cols) {
    if (cols == 0) return;
    const WideRow wide(row, cols);
    const float* w = wide.data();
    parallel_rows(q.threads, rows, cols, cheap, [=](auto io, size_t i, size_t j) {
        io.store(out + i, io.load(a + i) + io.load(w + j));
    });
}

static void mul_row(Queue& q, const float* a, const float* row, float* out, size_t rows,
                    size_t cols) {
    if (cols == 0) return;
    const WideRow wide(row, cols);
    const float* w = wide.data();
    parallel_rows(q.threads, rows, cols, cheap, [=](auto io, size_t i, size_t j) {
        io.store(out + i, io.load(a + i) * io.load(w + j));
    });
}

// x <= 0 is false for NaN, so NaN passes.
static inline Vec relu(Vec x) {
    return select(x <= broadcast(0), broadcast(0), x);
}

static inline Vec gelu_cdf(Vec x) {
    return fma(broadcast(0.5f), erf(x * broadcast(0.70710678f)), broadcast(0.5f));
}

static void activate(Queue& q, Activation kind, float param, const float* x, float* y, size_t n) {
    const Vec zero = broadcast(0), slope = broadcast(param);
    const auto map = [&](size_t grain, auto f) {
        parallel_vectors(q.threads, n, grain,
                         [=](auto io, size_t i) { io.store(y + i, f(io.load(x + i))); });
    };
    switch (kind) {
        case Activation::relu:
            return map(cheap, relu);
        case Activation::leaky_relu:
            return map(cheap, [=](Vec v) { return select(v > zero, v, v * slope); });
        case Activation::relu6:
            return map(cheap,
                       [](Vec v) { return select(v >= broadcast(6), broadcast(6), relu(v)); });
        case Activation::hard_swish:
            return map(cheap, [=](Vec v) {
                const Vec bend = v * (v + broadcast(3)) / broadcast(6);
                return select(v <= broadcast(-3), zero, select(v >= broadcast(3), v, bend));
            });
        case Activation::silu:
            return map(costly, [](Vec v) {
                Vec rest;
                v = xsimd::max(broadcast(-120), v);  // -inf * 0 is no number
                return v * logistic(v, &rest);
            });
        case Activation::gelu:
            return map(costly, [](Vec v) {
                v = xsimd::max(broadcast(-40), v);
                return v * gelu_cdf(v);
            });
        case Activation::sigmoid:
            return map(costly, [](Vec v) {
                Vec rest;
                return logistic(v, &rest);
            });
        case Activation::tanh:
            return map(costly, [](Vec v) { return NC_ISA::tanh(v); });
    }
}

static void activate_backward(Queue& q, Activation kind, float param, const float* x,
                              const float* dy, float* dx, size_t n) {
    const Vec zero = broadcast(0), slope = broadcast(param);
    const auto map = [&](size_t grain, auto f) {
        parallel_vectors(q.threads, n, grain, [=](auto io, size_t i) {
            io.store(dx + i, f(io.load(x + i), io.load(dy + i)));
        });
    };
    switch (kind) {
        case Activation::relu:
            return map(cheap, [=](Vec v, Vec d) { return select(v <= zero, zero, d); });
        case Activation::leaky_relu:
            return map(cheap, [=](Vec v, Vec d) { return select(v > zero, d, d * slope); });
        case Activation::relu6:
            return map(cheap, [=](Vec v, Vec d) {
                return select((v <= zero) | (v >= broadcast(6)), zero, d);
            });
        case Activation::hard_swish:
            return map(cheap, [=](Vec v, Vec d) {
                const Vec bend = d * ((v + v + broadcast(3)) / broadcast(6));
                return select(v <= broadcast(-3), zero, select(v >= broadcast(3), d, bend));
            });
        case Activation::silu:
            return map(costly, [](Vec v, Vec d) {
                v = xsimd::min(broadcast(120), xsimd::max(broadcast(-120), v));
                Vec rest;
                const Vec s = logistic(v, &rest);
                return d * (s * fma(v, rest, broadcast(1)));
            });
        case Activation::gelu:
            return map(costly, [](Vec v, Vec d) {
                v = xsimd::min(broadcast(40), xsimd::max(broadcast(-40), v));
                const Vec density = broadcast(0.39894228f) * NC_ISA::exp(broadcast(-0.5f) * v * v);
                return d * fma(v, density, gelu_cdf(v));
            });
        case Activation::sigmoid:
            return map(costly, [](Vec v, Vec d) {
                Vec rest;
                const Vec s = logistic(v, &rest);
                return d * (s * rest);
            });
        case Activation::tanh:
            return map(costly, [](Vec v, Vec d) {
                const Vec t = NC_ISA::tanh(v);
                return d * (broadcast(1) - t * t);
            });
    }
}

static void prelu(Queue& q, const float* x, const float* slope, float* y, size_t rows,
                  size_t cols) {
    if (cols == 0) return;
    const WideRow wide(slope, cols);
    const float* w = wide.data();
    parallel_rows(q.threads, rows, cols, cheap, [=](auto io, size_t i, size_t j) {
        const Vec v = io.load(x + i);
        io.store(y + i, select(v > broadcast(0), v, v * io.load(w + j)));
    });
}

static void prelu_backward(Queue& q, const float* x, const float* slope, const float* dy, float* dx,
                           float* dslope, size_t rows, size_t cols) {
    if (cols == 0) return;
    const WideRow wide(slope, cols);
    const float* w = wide.data();
    sum_over_rows<1>(
        q.threads, rows, cols, reinterpret_cast<float*>(q.scratch),
        [=](auto io, size_t i, size_t j, Vec* out) {
            const Vec v = io.load(x + i), d = io.load(dy + i);
            const Mask positive = v > broadcast(0);
            io.store(dx + i, select(positive, d, d * io.load(w + j)));
            out[0] = select(positive, broadcast(0), v * d);
        },
        [=](size_t, size_t c, double total) { dslope[c] = float(total); });
}

static size_t prelu_backward_scratch(size_t rows, size_t cols) {
    return row_sums_scratch(rows, cols, 1);
}

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

}  // namespace nc::kernels::NC_ISA
