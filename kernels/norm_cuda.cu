// The norm family on CUDA: batch normalisation, with or without the ReLU after it.
//
// Per-channel factors are made once, in double, by a kernel of one thread a channel. Then the
// matrix is walked in blocks of 32 columns by 8 rows (fewer columns, more rows where there are
// fewer), a thread staying in its column. Bytes an element: statistics 8, normalise 8,
// backward_sums 8, backward_input 12. y is x * a + b in one fma everywhere, so the ReLU's mask is
// the forward's to the bit.
#include "kernels/sum_cuda.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

constexpr unsigned threads = 256;
constexpr unsigned steps = 8;  // rows a thread has in flight

__device__ double inverse_deviation(float variance, float eps) {
    return 1 / sqrt(double(variance) + double(eps));
}

// ----------------------------------------------------------------------------------------------
// statistics
struct Value {
    const float* x;
    size_t cols;
    __device__ Terms<1> operator()(size_t r, size_t c) const { return {{x[r * cols + c]}}; }
};
struct SquaredDistance {
    const float *x, *mean;
    size_t cols;
    __device__ Terms<1> operator()(size_t r, size_t c) const {
        const float d = x[r * cols + c] - mean[c];
        return {{d * d}};
    }
};
struct StoreMean {
    float* out;
    double inverse;  // 1 / rows
    __device__ void operator()(size_t c, const double* sum) const {
        out[c] = float(sum[0] * inverse);
    }
};

void statistics(Queue& q, const float* x, float* mean, float* variance, size_t rows, size_t cols) {
    const double inverse = rows > 0 ? 1 / double(rows) : 0;
    sum_columns<1>(q, Value{x, cols}, StoreMean{mean, inverse}, rows, cols);
    sum_columns<1>(q, SquaredDistance{x, mean, cols}, StoreMean{variance, inverse}, rows, cols);
}

// ----------------------------------------------------------------------------------------------
// y = x * a + b, and what goes back through it
struct Channels {
    const float *mean, *variance, *gamma, *beta;  // gamma, beta or null
    float eps;
    __device__ double factor(size_t c) const {
        return (gamma != nullptr ? double(gamma[c]) : 1) * inverse_deviation(variance[c], eps);
    }
};

// Rows [cols] of floats that a call keeps in scratch, after the sums.
struct Factors {
    float *a, *b;      // y = x * a + b
    float *p, *r, *s;  // dx = p * dy + (r * (x - mean) + s)
};
constexpr size_t factor_rows = 5;

Factors factors_in(Queue& q, size_t rows, size_t cols) {
    float* const at = reinterpret_cast<float*>(q.scratch + column_scratch(rows, cols, 2));
    return {at, at + cols, at + 2 * cols, at + 3 * cols, at + 4 * cols};
}

size_t scratch(size_t rows, size_t cols) {
    return column_scratch(rows, cols, 2) + factor_rows * cols * sizeof(float);
}

__global__ void make_affine(Channels channels, Factors f, size_t cols) {
    const size_t c = global_thread();
    if (c >= cols) return;
    f.a[c] = float(channels.factor(c));
    f.b[c] = float((channels.beta != nullptr ? double(channels.beta[c]) : 0) -
                   double(channels.mean[c]) * double(f.a[c]));
}

void affine(Queue& q, const Channels& channels, const Factors& f, size_t cols) {
    launch(make_affine, dim3(blocks_for(cols, threads)), dim3(threads), q, channels, f, cols);
}

// One element of y, or of dy where y > 0.
__device__ float normal(float x, float a, float b) {
    return __fmaf_rn(x, a, b);
}
__device__ float slope_at(float dy, float x, float a, float b) {
    return normal(x, a, b) <= 0 ? 0.f : dy;
}

// Calls op.column(c) once a thread, and out[r, c] = op(that, r * cols + c) for its rows.
template <class Op>
__global__ void map_columns(Op op, float* out, size_t rows, size_t cols) {
    const size_t c = size_t(blockIdx.y) * blockDim.x + threadIdx.x;
    if (c >= cols) return;
    const auto column = op.column(c);
    const size_t first = size_t(blockIdx.x) * blockDim.y * steps + threadIdx.y;
    if (first + (steps - 1) * blockDim.y < rows) {
        float value[steps];
        NC_UNROLL
        for (unsigned j = 0; j < steps; ++j)
            value[j] = op(column, (first + j * blockDim.y) * cols + c);
        NC_UNROLL
        for (unsigned j = 0; j < steps; ++j) out[(first + j * blockDim.y) * cols + c] = value[j];
    } else {
        for (unsigned j = 0; j < steps; ++j) {
            const size_t r = first + j * blockDim.y;
            if (r < rows) out[r * cols + c] = op(column, r * cols + c);
        }
    }
}

template <class Op>
void over_columns(Queue& q, Op op, float* out, size_t rows, size_t cols) {
    const ColumnTree t = column_tree(rows, cols);
    const size_t height = size_t(t.by) * steps;
    launch(map_columns<Op>,
           dim3(unsigned((rows + height - 1) / height), unsigned((cols + t.bx - 1) / t.bx)),
           dim3(t.bx, t.by), q, op, out, rows, cols);
}

template <bool relu>
struct Normalise {
    const float* x;
    Factors f;
    struct Column {
        float a, b;
    };
    __device__ Column column(size_t c) const { return {f.a[c], f.b[c]}; }
    __device__ float operator()(const Column& k, size_t i) const {
        const float y = normal(x[i], k.a, k.b);
        return relu && y <= 0 ? 0.f : y;
    }
};

void normalise(Queue& q, const float* x, const float* mean, const float* variance,
               const float* gamma, const float* beta, float eps, bool relu, float* y, size_t rows,
               size_t cols) {
    const Factors f = factors_in(q, rows, cols);
    affine(q, {mean, variance, gamma, beta, eps}, f, cols);
    if (relu)
        over_columns(q, Normalise<true>{x, f}, y, rows, cols);
    else
        over_columns(q, Normalise<false>{x, f}, y, rows, cols);
}

template <bool relu>
struct SlopeTerms {
    const float *x, *dy, *mean;
    Factors f;
    size_t cols;
    __device__ Terms<2> operator()(size_t r, size_t c) const {
        const size_t i = r * cols + c;
        const float v = x[i], d = relu ? slope_at(dy[i], v, f.a[c], f.b[c]) : dy[i];
        return {{d * (v - mean[c]), d}};
    }
};
struct StoreSums {
    Channels channels;
    float *dgamma, *dbeta;
    __device__ void operator()(size_t c, const double* sum) const {
        dgamma[c] = float(sum[0] * inverse_deviation(channels.variance[c], channels.eps));
        dbeta[c] = float(sum[1]);
    }
};

void backward_sums(Queue& q, const float* x, const float* dy, const float* mean,
                   const float* variance, const float* gamma, const float* beta, float eps,
                   bool relu, float* dgamma, float* dbeta, size_t rows, size_t cols) {
    const Factors f = factors_in(q, rows, cols);
    const Channels channels = {mean, variance, gamma, beta, eps};
    const StoreSums store = {channels, dgamma, dbeta};
    if (relu) {
        affine(q, channels, f, cols);
        sum_columns<2>(q, SlopeTerms<true>{x, dy, mean, f, cols}, store, rows, cols);
    } else {
        sum_columns<2>(q, SlopeTerms<false>{x, dy, mean, f, cols}, store, rows, cols);
    }
}

// rows_inverse: 1 / total_rows; 0 when the statistics are constants, which leaves r and s 0.
__global__ void make_input_factors(Channels channels, const float* dgamma, const float* dbeta,
                                   Factors f, double rows_inverse, size_t cols) {
    const size_t c = global_thread();
    if (c >= cols) return;
    const double factor = channels.factor(c);
    const double inverse = inverse_deviation(channels.variance[c], channels.eps);
    f.p[c] = float(factor);
    f.r[c] = float(-factor * inverse * double(dgamma[c]) * rows_inverse);
    f.s[c] = float(-factor * double(dbeta[c]) * rows_inverse);
}

template <bool relu, bool constant>
struct InputSlope {
    const float *x, *dy, *mean;
    Factors f;
    struct Column {
        float a, b, p, r, s, mean;
    };
    __device__ Column column(size_t c) const {
        return {relu ? f.a[c] : 0, relu ? f.b[c] : 0, f.p[c], f.r[c], f.s[c], mean[c]};
    }
    __device__ float operator()(const Column& k, size_t i) const {
        const float d = relu ? slope_at(dy[i], x[i], k.a, k.b) : dy[i];
        return constant ? d * k.p : d * k.p + ((x[i] - k.mean) * k.r + k.s);
    }
};

void backward_input(Queue& q, const float* x, const float* dy, const float* mean,
                    const float* variance, const float* gamma, const float* beta, float eps,
                    bool relu, const float* dgamma, const float* dbeta, float* dx, size_t rows,
                    size_t cols, size_t total_rows) {
    const Factors f = factors_in(q, rows, cols);
    const Channels channels = {mean, variance, gamma, beta, eps};
    if (relu) affine(q, channels, f, cols);
    launch(make_input_factors, dim3(blocks_for(cols, threads)), dim3(threads), q, channels, dgamma,
           dbeta, f, total_rows > 0 ? 1 / double(total_rows) : 0, cols);
    if (total_rows == 0 && relu)
        over_columns(q, InputSlope<true, true>{x, dy, mean, f}, dx, rows, cols);
    else if (total_rows == 0)
        over_columns(q, InputSlope<false, true>{x, dy, mean, f}, dx, rows, cols);
    else if (relu)
        over_columns(q, InputSlope<true, false>{x, dy, mean, f}, dx, rows, cols);
    else
        over_columns(q, InputSlope<false, false>{x, dy, mean, f}, dx, rows, cols);
}

}  // namespace

Norm<float> norm() {
    return {.statistics = statistics,
            .normalise = normalise,
            .backward_sums = backward_sums,
            .backward_input = backward_input,
            .scratch = scratch};
}

}  // namespace nc::kernels::NC_CUDA
