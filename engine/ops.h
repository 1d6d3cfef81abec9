// Checked tensor operations without gradients: shapes are checked here, kernels do the arithmetic.
// f32 runs on the Compute's table, f64 on the reference. Errors read "[op] ...: shapes".
#pragma once

#include <vector>

#include "engine/compute.h"

namespace nc::ops {

Tensor full(Compute&, const Shape& shape, DType dtype, double value);
Tensor add(Compute&, const Tensor& a, const Tensor& b);  // same shape
Tensor sub(Compute&, const Tensor& a, const Tensor& b);
Tensor mul(Compute&, const Tensor& a, const Tensor& b);
Tensor scale(Compute&, const Tensor& a, double s);
Tensor clamp(Compute&, const Tensor& a, double low, double high);
void add_into(Compute&, Tensor& accumulator, const Tensor& b);                   // accumulator += b
void add_scaled_into(Compute&, Tensor& accumulator, const Tensor& b, double s);  // += b * s
Tensor add_row(Compute&, const Tensor& a, const Tensor& row);  // a [..., C], row [C]
Tensor mul_row(Compute&, const Tensor& a, const Tensor& row);

Tensor sum_all(Compute&, const Tensor& a);  // [1], where a is
double sum(Compute&, const Tensor& a);
double sum_squares(Compute&, const Tensor& a);
void sum_squares_into(Compute&, const Tensor& a, Tensor out);  // f64 [1], where a is
Tensor sum_rows(Compute&, const Tensor& a);                    // [..., C] -> [C]
Tensor sum_leading(Compute&, const Tensor& a);                 // [T, ...] -> [...]
Tensor mean_leading(Compute&, const Tensor& a);
Tensor repeat_leading(Compute&, const Tensor& a, size_t times);  // [...] -> [times, ...]
Tensor argmax_rows(Compute&, const Tensor& a);                   // [N, C] -> i32 [N]
std::vector<int32_t> argmax(Compute&, const Tensor& a);          // the same, on the host

// a [m, k] (or [k, m] transposed), b [k, n] (or [n, k]), bias [n] or undefined.
Tensor matmul(Compute&, const Tensor& a, const Tensor& b, bool transpose_a = false,
              bool transpose_b = false, const Tensor& bias = {});

struct ConvOptions {
    size_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1,
           groups = 1;
    bool operator==(const ConvOptions&) const = default;
};
struct PoolOptions {
    size_t kh = 2, kw = 2, stride_h = 2, stride_w = 2, pad_h = 0, pad_w = 0;
    bool operator==(const PoolOptions&) const = default;
};

// x [N, H, W, Cin], weight [kh, kw, Cin / groups, Cout]: the checked sizes. Error when they do not
// fit.
kernels::ConvShape conv_shape(const Shape& x, const Shape& weight, const ConvOptions&);
kernels::PoolShape pool_shape(const Shape& x, const PoolOptions&);

Tensor conv(Compute&, const Tensor& x, const Tensor& weight, const Tensor& bias,
            const ConvOptions&);
Tensor conv_backward_input(Compute&, const Shape& x, const Tensor& weight, const Tensor& dy,
                           const ConvOptions&);
Tensor conv_backward_weight(Compute&, const Tensor& x, const Shape& weight, const Tensor& dy,
                            const ConvOptions&);

// Canonical sums (bitwise the same on every table): the weight layers of a spiking
// network at inference.
enum class SpikePath { automatic, dense, event };
struct CanonicalInput {
    Tensor x;             // floats [rows.., C]; what dense execution reads
    bool binary = false;  // every x is 0 or 1
};
// Which path ran depends on binary, the rate of x and `path`; event needs binary. On a device
// automatic takes it for all binary x, rather than wait for the rate. in-place flattening: a linear
// layer takes [N, in].
Tensor canonical_linear(Compute&, const CanonicalInput&, const Tensor& weight, const Tensor& bias,
                        SpikePath path);
Tensor canonical_conv(Compute&, const CanonicalInput&, const Tensor& weight, const Tensor& bias,
                      const ConvOptions&, SpikePath path);

Tensor average_pool(Compute&, const Tensor& x, const PoolOptions&);  // [N, H, W, C]
Tensor average_pool_backward(Compute&, const Shape& x, const Tensor& dy, const PoolOptions&);
struct MaxPool {
    Tensor y, index;
};
MaxPool max_pool(Compute&, const Tensor& x, const PoolOptions&);
Tensor max_pool_backward(Compute&, const Shape& x, const Tensor& dy, const Tensor& index,
                         const PoolOptions&);

// Batch normalisation of x [.., C] in its steps (kernels::Norm); gamma, beta [C] or undefined.
// relu: a ReLU follows, in the same pass.
struct NormStatistics {
    Tensor mean, variance;  // [C], the variance biased
};
NormStatistics norm_statistics(Compute&, const Tensor& x);
Tensor normalise(Compute&, const Tensor& x, const NormStatistics&, const Tensor& gamma,
                 const Tensor& beta, double eps, bool relu = false);
struct NormSums {
    Tensor dgamma, dbeta;  // [C]
};
NormSums norm_backward_sums(Compute&, const Tensor& x, const Tensor& dy, const NormStatistics&,
                            const Tensor& gamma, const Tensor& beta, double eps, bool relu = false);
// total_rows: over how many rows the statistics were taken; 0: they are constants.
Tensor norm_backward_input(Compute&, const Tensor& x, const Tensor& dy, const NormStatistics&,
                           const Tensor& gamma, const Tensor& beta, double eps, const NormSums&,
                           size_t total_rows, bool relu = false);

}  // namespace nc::ops
