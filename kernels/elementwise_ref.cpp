// The definition of the elementwise family: plain loops.
#include <cmath>

#include "kernels/families.h"

namespace nc::kernels {
namespace {

template <class F>
void fill(Queue&, F value, F* out, size_t n) {
    for (size_t i = 0; i < n; ++i) out[i] = value;
}

template <class F>
void add(Queue&, const F* a, const F* b, F* out, size_t n) {
    for (size_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

template <class F>
void sub(Queue&, const F* a, const F* b, F* out, size_t n) {
    for (size_t i = 0; i < n; ++i) out[i] = a[i] - b[i];
}

template <class F>
void mul(Queue&, const F* a, const F* b, F* out, size_t n) {
    for (size_t i = 0; i < n; ++i) out[i] = a[i] * b[i];
}

template <class F>
void div(Queue&, const F* a, const F* b, F* out, size_t n) {
    for (size_t i = 0; i < n; ++i) out[i] = a[i] / b[i];
}

template <class F>
void scale(Queue&, const F* a, F s, F* out, size_t n) {
    for (size_t i = 0; i < n; ++i) out[i] = a[i] * s;
}

template <class F>
void add_scaled(Queue&, const F* a, const F* b, F s, F* out, size_t n) {
    for (size_t i = 0; i < n; ++i) {
        const F term = b[i] * s;
        out[i] = a[i] + term;
    }
}

template <class F>
void clamp(Queue&, const F* a, F low, F high, F* out, size_t n) {
    for (size_t i = 0; i < n; ++i) out[i] = a[i] < low ? low : a[i] > high ? high : a[i];
}

template <class F>
void add_row(Queue&, const F* a, const F* row, F* out, size_t rows, size_t cols) {
    for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < cols; ++c) out[r * cols + c] = a[r * cols + c] + row[c];
}

template <class F>
void mul_row(Queue&, const F* a, const F* row, F* out, size_t rows, size_t cols) {
    for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < cols; ++c) out[r * cols + c] = a[r * cols + c] * row[c];
}

double sigmoid(double x) {
    return 1 / (1 + std::exp(-x));
}

double normal_cdf(double x) {
    return 0.5 * std::erfc(-x * std::sqrt(0.5));
}

// relu: NaN stays NaN, -0 becomes +0. leaky_relu: -0 stays -0 (for a positive slope).
template <class F>
F value(Activation kind, F param, F x) {
    switch (kind) {
        case Activation::relu:
            return x <= 0 ? F(0) : x;
        case Activation::leaky_relu:
            return x > 0 ? x : x * param;
        case Activation::relu6:
            return x <= 0 ? F(0) : x >= 6 ? F(6) : x;
        case Activation::hard_swish:
            return x <= -3 ? F(0) : x >= 3 ? x : x * (x + 3) / 6;
        case Activation::silu:
            return F(x < -800 ? 0 : x * sigmoid(x));
        case Activation::gelu:
            return F(x < -40 ? 0 : x * normal_cdf(x));
        case Activation::sigmoid:
            return F(sigmoid(x));
        case Activation::tanh:
            return F(std::tanh(double(x)));
    }
    return x;
}

template <class F>
F gradient(Activation kind, F param, F x, F dy) {
    const double v = x;
    switch (kind) {
        case Activation::relu:
            return x <= 0 ? F(0) : dy;
        case Activation::leaky_relu:
            return x > 0 ? dy : dy * param;
        case Activation::relu6:
            return x <= 0 || x >= 6 ? F(0) : dy;
        case Activation::hard_swish:
            return x <= -3 ? F(0) : x >= 3 ? dy : dy * ((x + x + 3) / 6);
        case Activation::silu:
            if (x < -800 || x > 800) return x < 0 ? F(0) : dy;  // no inf * 0
            return F(dy * (sigmoid(v) * (1 + v * sigmoid(-v))));
        case Activation::gelu: {
            if (x < -40) return F(0);
            const double density = 0.3989422804014327 * std::exp(-0.5 * v * v);
            return F(dy * (normal_cdf(v) + (density == 0 ? 0 : v * density)));
        }
        case Activation::sigmoid:
            return F(dy * (sigmoid(v) * sigmoid(-v)));
        case Activation::tanh: {
            const double t = std::tanh(v);
            return F(dy * (1 - t * t));
        }
    }
    return dy;
}

template <class F>
void activate(Queue&, Activation kind, F param, const F* x, F* y, size_t n) {
    for (size_t i = 0; i < n; ++i) y[i] = value(kind, param, x[i]);
}

template <class F>
void activate_backward(Queue&, Activation kind, F param, const F* x, const F* dy, F* dx, size_t n) {
    for (size_t i = 0; i < n; ++i) dx[i] = gradient(kind, param, x[i], dy[i]);
}

template <class F>
void prelu(Queue&, const F* x, const F* slope, F* y, size_t rows, size_t cols) {
    for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < cols; ++c) {
            const size_t i = r * cols + c;
            y[i] = x[i] > 0 ? x[i] : x[i] * slope[c];
        }
}

template <class F>
void prelu_backward(Queue&, const F* x, const F* slope, const F* dy, F* dx, F* dslope, size_t rows,
                    size_t cols) {
    for (size_t c = 0; c < cols; ++c) {
        double sum = 0;
        for (size_t r = 0; r < rows; ++r) {
            const size_t i = r * cols + c;
            dx[i] = x[i] > 0 ? dy[i] : dy[i] * slope[c];
            if (!(x[i] > 0)) sum += double(x[i]) * double(dy[i]);
        }
        dslope[c] = F(sum);
    }
}

size_t no_scratch(size_t, size_t) {
    return 0;
}

}  // namespace

template <class F>
Elementwise<F> reference_elementwise() {
    return {.fill = fill<F>,
            .add = add<F>,
            .sub = sub<F>,
            .mul = mul<F>,
            .div = div<F>,
            .scale = scale<F>,
            .add_scaled = add_scaled<F>,
            .clamp = clamp<F>,
            .add_row = add_row<F>,
            .mul_row = mul_row<F>,
            .activate = activate<F>,
            .activate_backward = activate_backward<F>,
            .prelu = prelu<F>,
            .prelu_backward = prelu_backward<F>,
            .prelu_backward_scratch = no_scratch};
}

template Elementwise<float> reference_elementwise<float>();
template Elementwise<double> reference_elementwise<double>();

}  // namespace nc::kernels
