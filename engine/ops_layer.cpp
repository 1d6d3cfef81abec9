// Checked convolutions, canonical sums and pooling.
#include <algorithm>

#include "engine/dispatch.h"
#include "engine/ops.h"

namespace nc::ops {
namespace {

constexpr size_t size_limit = size_t(1) << 31;  // of one side: products of two fit in 62 bits

// Rate of spikes below which walking them beats the dense product: measured with AVX2 and AVX-512
// on linear 512-512 and convolutions 64-64 (crossing between 0.3 and 0.5) and on narrow ones, where
// a spike costs as much as its few outputs.
double event_rate(size_t outputs) {
    return outputs < 32 ? 0.1 : 0.3;
}

void check_bias(const char* op, const Tensor& bias, size_t channels) {
    if (bias.defined() && !(bias.shape() == Shape{channels}))
        fail(op, "bias " + bias.shape().str() + " for " + std::to_string(channels) + " outputs");
}

Shape output_shape(const kernels::ConvShape& s) {
    return {s.n, s.out_h(), s.out_w(), s.cout};
}
Shape output_shape(const kernels::PoolShape& s) {
    return {s.n, s.out_h(), s.out_w(), s.c};
}

void check_output(const char* op, const Tensor& t, const Shape& wanted) {
    if (!t.defined() || !(t.shape() == wanted))
        fail(op, shape_text(t) + " does not belong to an output " + wanted.str());
}

void check_norm(const Tensor& x, const NormStatistics& s, const Tensor& gamma, const Tensor& beta) {
    check_row("batch_norm", x, s.mean);
    check_row("batch_norm", x, s.variance);
    if (gamma.defined()) check_row("batch_norm", x, gamma);
    if (beta.defined()) check_row("batch_norm", x, beta);
}

// The packed spikes of binary x [.., channels], one group a row, when the event path is to run;
// else nothing.
Tensor pack_for_events(Compute& compute, const CanonicalInput& input, size_t outputs,
                       SpikePath path) {
    if (!input.binary || path == SpikePath::dense || input.x.elements() == 0) return {};
    const size_t channels = input.x.shape().back(), rows = rows_of(input.x);
    const size_t words = (channels + 63) / 64;
    Tensor bits = compute.empty({rows, words}, DType::u64);
    const bool counted = path == SpikePath::automatic && compute.on_host();
    bool sparse = true;
    on_floats(compute, "spikes", input.x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& spike = compute.kernels<F>().spike;
        spike.pack(compute.queue, input.x.data<F>(), bits.data<uint64_t>(), rows, channels);
        if (!counted) return;
        compute.reserve(spike.count_scratch());
        const uint64_t spikes = spike.count(compute.queue, bits.data<uint64_t>(), rows * words);
        sparse = double(spikes) < event_rate(outputs) * double(input.x.elements());
    });
    return sparse ? bits : Tensor();
}

}  // namespace

kernels::ConvShape conv_shape(const Shape& x, const Shape& weight, const ConvOptions& o) {
    const auto refuse = [&](const std::string& what) {
        fail("conv", what + ": input " + x.str() + ", weight " + weight.str() + ", stride " +
                         std::to_string(o.stride_h) + "x" + std::to_string(o.stride_w) + ", pad " +
                         std::to_string(o.pad_h) + "x" + std::to_string(o.pad_w) + ", dilation " +
                         std::to_string(o.dilation_h) + "x" + std::to_string(o.dilation_w) +
                         ", groups " + std::to_string(o.groups));
    };
    if (x.rank() != 4) refuse("input is not [N, H, W, C]");
    if (weight.rank() != 4) refuse("weight is not [kh, kw, cin / groups, cout]");
    for (const size_t size : {o.stride_h, o.stride_w, o.dilation_h, o.dilation_w, o.groups,
                              weight[0], weight[1], weight[2], weight[3]})
        if (size == 0) refuse("a size is zero");
    for (const size_t size : {x[1], x[2], x[3], o.stride_h, o.stride_w, o.pad_h, o.pad_w,
                              o.dilation_h, o.dilation_w, o.groups, weight[0], weight[1]})
        if (size >= size_limit) refuse("a size is too large");
    if (weight[3] % o.groups != 0) refuse("groups do not divide the output channels");
    if (weight[2] >= size_limit || x[3] != weight[2] * o.groups) refuse("channels differ");
    if (x[1] + 2 * o.pad_h < o.dilation_h * (weight[0] - 1) + 1 ||
        x[2] + 2 * o.pad_w < o.dilation_w * (weight[1] - 1) + 1)
        refuse("the kernel is larger than the padded input");
    return {.n = x[0],
            .h = x[1],
            .w = x[2],
            .cin = x[3],
            .kh = weight[0],
            .kw = weight[1],
            .cout = weight[3],
            .stride_h = o.stride_h,
            .stride_w = o.stride_w,
            .pad_h = o.pad_h,
            .pad_w = o.pad_w,
            .dilation_h = o.dilation_h,
            .dilation_w = o.dilation_w,
            .groups = o.groups};
}

kernels::PoolShape pool_shape(const Shape& x, const PoolOptions& o) {
    const auto refuse = [&](const std::string& what) {
        fail("pool", what + ": input " + x.str() + ", window " + std::to_string(o.kh) + "x" +
                         std::to_string(o.kw) + ", stride " + std::to_string(o.stride_h) + "x" +
                         std::to_string(o.stride_w) + ", pad " + std::to_string(o.pad_h) + "x" +
                         std::to_string(o.pad_w));
    };
    if (x.rank() != 4) refuse("input is not [N, H, W, C]");
    for (const size_t size : {o.kh, o.kw, o.stride_h, o.stride_w})
        if (size == 0) refuse("a size is zero");
    for (const size_t size : {x[1], x[2], o.kh, o.kw, o.stride_h, o.stride_w})
        if (size >= size_limit) refuse("a size is too large");
    // Then every window holds at least one value that is not padding.
    if (o.pad_h > o.kh / 2 || o.pad_w > o.kw / 2) refuse("padding above half the window");
    if (x[1] + 2 * o.pad_h < o.kh || x[2] + 2 * o.pad_w < o.kw)
        refuse("the window is larger than the padded input");
    return {.n = x[0],
            .h = x[1],
            .w = x[2],
            .c = x[3],
            .kh = o.kh,
            .kw = o.kw,
            .stride_h = o.stride_h,
            .stride_w = o.stride_w,
            .pad_h = o.pad_h,
            .pad_w = o.pad_w};
}

Tensor conv(Compute& compute, const Tensor& x, const Tensor& weight, const Tensor& bias,
            const ConvOptions& options) {
    const kernels::ConvShape shape = conv_shape(x.shape(), weight.shape(), options);
    check_bias("conv", bias, shape.cout);
    Tensor y = compute.empty(output_shape(shape), x.dtype());
    on_floats(compute, "conv", x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& conv = compute.kernels<F>().conv;
        compute.reserve(conv.forward_scratch(shape, compute.queue.threads));
        conv.forward(compute.queue, x.data<F>(), weight.data<F>(), data_or_null<F>(bias),
                     y.data<F>(), shape);
    });
    return y;
}

Tensor conv_backward_input(Compute& compute, const Shape& x, const Tensor& weight, const Tensor& dy,
                           const ConvOptions& options) {
    const kernels::ConvShape shape = conv_shape(x, weight.shape(), options);
    check_output("conv_backward_input", dy, output_shape(shape));
    Tensor dx = compute.empty(x, dy.dtype());
    on_floats(compute, "conv_backward_input", dy.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& conv = compute.kernels<F>().conv;
        compute.reserve(conv.backward_input_scratch(shape, compute.queue.threads));
        conv.backward_input(compute.queue, dy.data<F>(), weight.data<F>(), dx.data<F>(), shape);
    });
    return dx;
}

Tensor conv_backward_weight(Compute& compute, const Tensor& x, const Shape& weight,
                            const Tensor& dy, const ConvOptions& options) {
    const kernels::ConvShape shape = conv_shape(x.shape(), weight, options);
    check_output("conv_backward_weight", dy, output_shape(shape));
    Tensor dw = compute.empty(weight, dy.dtype());
    on_floats(compute, "conv_backward_weight", dy.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& conv = compute.kernels<F>().conv;
        compute.reserve(conv.backward_weight_scratch(shape, compute.queue.threads));
        conv.backward_weight(compute.queue, x.data<F>(), dy.data<F>(), dw.data<F>(), shape);
    });
    return dw;
}

Tensor canonical_linear(Compute& compute, const CanonicalInput& input, const Tensor& weight,
                        const Tensor& bias, SpikePath path) {
    check_rank("canonical_linear", input.x, 2);
    check_rank("canonical_linear", weight, 2);
    const size_t rows = input.x.shape()[0], in = input.x.shape()[1], out = weight.shape()[1];
    if (weight.shape()[0] != in)
        fail("canonical_linear",
             "sizes differ: input " + input.x.shape().str() + ", weight " + weight.shape().str());
    check_bias("canonical_linear", bias, out);
    Tensor y = compute.empty({rows, out}, input.x.dtype());
    const Tensor bits = pack_for_events(compute, input, out, path);
    on_floats(compute, "canonical_linear", input.x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& spike = compute.kernels<F>().spike;
        if (bits.defined())
            spike.linear_event(compute.queue, bits.data<uint64_t>(), weight.data<F>(),
                               data_or_null<F>(bias), y.data<F>(), rows, 1, in, out);
        else
            spike.linear_dense(compute.queue, input.x.data<F>(), weight.data<F>(),
                               data_or_null<F>(bias), input.binary, y.data<F>(), rows, in, out);
    });
    return y;
}

Tensor canonical_conv(Compute& compute, const CanonicalInput& input, const Tensor& weight,
                      const Tensor& bias, const ConvOptions& options, SpikePath path) {
    const kernels::ConvShape shape = conv_shape(input.x.shape(), weight.shape(), options);
    check_bias("canonical_conv", bias, shape.cout);
    Tensor y = compute.empty(output_shape(shape), input.x.dtype());
    const Tensor bits = shape.groups == 1 ? pack_for_events(compute, input, shape.cout, path)
                                          : Tensor();  // else dense only
    on_floats(compute, "canonical_conv", input.x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& spike = compute.kernels<F>().spike;
        if (bits.defined())
            spike.conv_event(compute.queue, bits.data<uint64_t>(), weight.data<F>(),
                             data_or_null<F>(bias), y.data<F>(), shape);
        else
            spike.conv_dense(compute.queue, input.x.data<F>(), weight.data<F>(),
                             data_or_null<F>(bias), input.binary, y.data<F>(), shape);
    });
    return y;
}

Tensor average_pool(Compute& compute, const Tensor& x, const PoolOptions& options) {
    const kernels::PoolShape shape = pool_shape(x.shape(), options);
    Tensor y = compute.empty(output_shape(shape), x.dtype());
    on_floats(compute, "average_pool", x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().pool.average(compute.queue, x.data<F>(), y.data<F>(), shape);
    });
    return y;
}

Tensor average_pool_backward(Compute& compute, const Shape& x, const Tensor& dy,
                             const PoolOptions& options) {
    const kernels::PoolShape shape = pool_shape(x, options);
    check_output("average_pool_backward", dy, output_shape(shape));
    Tensor dx = compute.empty(x, dy.dtype());
    on_floats(compute, "average_pool_backward", dy.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().pool.average_backward(compute.queue, dy.data<F>(), dx.data<F>(),
                                                   shape);
    });
    return dx;
}

MaxPool max_pool(Compute& compute, const Tensor& x, const PoolOptions& options) {
    const kernels::PoolShape shape = pool_shape(x.shape(), options);
    if (shape.h * shape.w >= size_limit)
        fail("max_pool", "positions do not fit 31 bits: " + x.shape().str());
    MaxPool result = {compute.empty(output_shape(shape), x.dtype()),
                      compute.empty(output_shape(shape), DType::i32)};
    on_floats(compute, "max_pool", x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().pool.max(compute.queue, x.data<F>(), result.y.data<F>(),
                                      result.index.data<int32_t>(), shape);
    });
    return result;
}

Tensor max_pool_backward(Compute& compute, const Shape& x, const Tensor& dy, const Tensor& index,
                         const PoolOptions& options) {
    const kernels::PoolShape shape = pool_shape(x, options);
    check_output("max_pool_backward", dy, output_shape(shape));
    check_output("max_pool_backward", index, output_shape(shape));
    Tensor dx = compute.empty(x, dy.dtype());
    on_floats(compute, "max_pool_backward", dy.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().pool.max_backward(compute.queue, dy.data<F>(), index.data<int32_t>(),
                                               dx.data<F>(), shape);
    });
    return dx;
}

NormStatistics norm_statistics(Compute& compute, const Tensor& x) {
    const size_t rows = rows_of(x), cols = x.shape().back();
    NormStatistics out = {compute.empty({cols}, x.dtype()), compute.empty({cols}, x.dtype())};
    on_floats(compute, "batch_norm", x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& norm = compute.kernels<F>().norm;
        compute.reserve(norm.scratch(rows, cols));
        norm.statistics(compute.queue, x.data<F>(), out.mean.data<F>(), out.variance.data<F>(),
                        rows, cols);
    });
    return out;
}

Tensor normalise(Compute& compute, const Tensor& x, const NormStatistics& s, const Tensor& gamma,
                 const Tensor& beta, double eps, bool relu) {
    check_norm(x, s, gamma, beta);
    const size_t rows = rows_of(x), cols = x.shape().back();
    Tensor y = compute.empty(x.shape(), x.dtype());
    on_floats(compute, "batch_norm", x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& norm = compute.kernels<F>().norm;
        compute.reserve(norm.scratch(rows, cols));
        norm.normalise(compute.queue, x.data<F>(), s.mean.data<F>(), s.variance.data<F>(),
                       data_or_null<F>(gamma), data_or_null<F>(beta), F(eps), relu, y.data<F>(),
                       rows, cols);
    });
    return y;
}

NormSums norm_backward_sums(Compute& compute, const Tensor& x, const Tensor& dy,
                            const NormStatistics& s, const Tensor& gamma, const Tensor& beta,
                            double eps, bool relu) {
    check_norm(x, s, gamma, beta);
    check_same("batch_norm", x, dy);
    const size_t rows = rows_of(x), cols = x.shape().back();
    NormSums out = {compute.empty({cols}, x.dtype()), compute.empty({cols}, x.dtype())};
    on_floats(compute, "batch_norm", x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& norm = compute.kernels<F>().norm;
        compute.reserve(norm.scratch(rows, cols));
        norm.backward_sums(compute.queue, x.data<F>(), dy.data<F>(), s.mean.data<F>(),
                           s.variance.data<F>(), data_or_null<F>(gamma), data_or_null<F>(beta),
                           F(eps), relu, out.dgamma.data<F>(), out.dbeta.data<F>(), rows, cols);
    });
    return out;
}

Tensor norm_backward_input(Compute& compute, const Tensor& x, const Tensor& dy,
                           const NormStatistics& s, const Tensor& gamma, const Tensor& beta,
                           double eps, const NormSums& sums, size_t total_rows, bool relu) {
    check_norm(x, s, gamma, beta);
    check_same("batch_norm", x, dy);
    const size_t rows = rows_of(x), cols = x.shape().back();
    Tensor dx = compute.empty(x.shape(), x.dtype());
    on_floats(compute, "batch_norm", x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& norm = compute.kernels<F>().norm;
        compute.reserve(norm.scratch(rows, cols));
        norm.backward_input(compute.queue, x.data<F>(), dy.data<F>(), s.mean.data<F>(),
                            s.variance.data<F>(), data_or_null<F>(gamma), data_or_null<F>(beta),
                            F(eps), relu, sums.dgamma.data<F>(), sums.dbeta.data<F>(), dx.data<F>(),
                            rows, cols, total_rows);
    });
    return dx;
}

}  // namespace nc::ops
