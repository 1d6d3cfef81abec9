// Differentiable layers and losses; each backward stands beneath its forward.
#include "autograd/functions.h"
#include "engine/dispatch.h"

namespace nc::fn {

Var linear(Compute& compute, Tape* tape, const Var& x, const Var& weight, const Var& bias) {
    if (!x.value.defined() || x.shape().rank() == 0)
        fail("linear", "input " + shape_text(x.value) + " is not [.., in]");
    check_rank("linear", weight.value, 2);
    const Shape rows = {rows_of(x.value), x.shape().back()};
    if (rows[1] != weight.shape()[0])
        fail("linear",
             "sizes differ: input " + x.shape().str() + ", weight " + weight.shape().str());
    const Shape out = x.shape().with(x.shape().rank() - 1, weight.shape()[1]);
    Tensor y = ops::matmul(compute, x.value.reshape(rows), weight.value, false, false, bias.value);
    y = y.reshape(out);
    if (!recording(tape, {&x, &weight, &bias})) return y;
    return tape->record(
        std::move(y),
        [shape = x.shape(), x = x.place(), weight = weight.place(), bias = bias.place(),
         input = weight.tracked() ? x.value.reshape(rows) : Tensor(),
         w = x.tracked() ? weight.value : Tensor()](Tape& t, const Tensor& dy) {
            Compute& c = t.compute();
            const Tensor g = dy.reshape({rows_of(dy), dy.shape().back()});
            if (bias.tracked()) t.accumulate(bias, ops::sum_rows(c, g));
            if (weight.tracked()) t.accumulate(weight, ops::matmul(c, input, g, true, false));
            if (x.tracked()) t.accumulate(x, ops::matmul(c, g, w, false, true).reshape(shape));
        });
}

Var conv(Compute& compute, Tape* tape, const Var& x, const Var& weight, const Var& bias,
         const ops::ConvOptions& options) {
    Tensor y = ops::conv(compute, x.value, weight.value, bias.value, options);
    if (!recording(tape, {&x, &weight, &bias})) return y;
    return tape->record(
        std::move(y), [options, x_shape = x.shape(), w_shape = weight.shape(), x = x.place(),
                       weight = weight.place(), bias = bias.place(),
                       input = weight.tracked() ? x.value : Tensor(),
                       w = x.tracked() ? weight.value : Tensor()](Tape& t, const Tensor& dy) {
            Compute& c = t.compute();
            if (bias.tracked()) t.accumulate(bias, ops::sum_rows(c, dy));
            if (weight.tracked())
                t.accumulate(weight, ops::conv_backward_weight(c, input, w_shape, dy, options));
            if (x.tracked()) t.accumulate(x, ops::conv_backward_input(c, x_shape, w, dy, options));
        });
}

Var average_pool(Compute& compute, Tape* tape, const Var& x, const ops::PoolOptions& options) {
    Tensor y = ops::average_pool(compute, x.value, options);
    if (!recording(tape, {&x})) return y;
    return tape->record(
        std::move(y), [x = x.place(), shape = x.shape(), options](Tape& t, const Tensor& dy) {
            t.accumulate(x, ops::average_pool_backward(t.compute(), shape, dy, options));
        });
}

Var global_average_pool(Compute& compute, Tape* tape, const Var& x) {
    check_rank("global_average_pool", x.value, 4);
    const size_t h = x.shape()[1], w = x.shape()[2];
    const ops::PoolOptions whole = {.kh = h, .kw = w, .stride_h = h, .stride_w = w};
    const Var y = average_pool(compute, tape, x, whole);
    return reshape(compute, tape, y, {x.shape()[0], x.shape()[3]});
}

Var max_pool(Compute& compute, Tape* tape, const Var& x, const ops::PoolOptions& options) {
    ops::MaxPool pooled = ops::max_pool(compute, x.value, options);
    if (!recording(tape, {&x})) return pooled.y;
    return tape->record(std::move(pooled.y), [x = x.place(), shape = x.shape(), options,
                                              index = pooled.index](Tape& t, const Tensor& dy) {
        t.accumulate(x, ops::max_pool_backward(t.compute(), shape, dy, index, options));
    });
}

Var batch_norm(Compute& compute, Tape* tape, const Var& x, const Var& gamma, const Var& beta,
               const Tensor& mean, const Tensor& variance, double eps, bool training,
               BatchStatistics* batch, bool relu) {
    const size_t rows = rows_of(x.value);
    if (training && rows == 0)
        fail("batch_norm", "no statistics of an empty batch " + shape_text(x.value));
    ops::NormStatistics used = {mean, variance};
    if (training) {
        used = ops::norm_statistics(compute, x.value);
        if (batch != nullptr) *batch = {used.mean, used.variance, rows};
    }
    Tensor y = ops::normalise(compute, x.value, used, gamma.value, beta.value, eps, relu);
    if (!recording(tape, {&x, &gamma, &beta})) return y;
    return tape->record(std::move(y), [x, gamma, beta, used, eps, relu,
                                       total = training ? rows : 0](Tape& t, const Tensor& dy) {
        Compute& c = t.compute();
        const ops::NormSums sums =
            ops::norm_backward_sums(c, x.value, dy, used, gamma.value, beta.value, eps, relu);
        if (x.tracked())
            t.accumulate(x, ops::norm_backward_input(c, x.value, dy, used, gamma.value, beta.value,
                                                     eps, sums, total, relu));
        t.accumulate(gamma, sums.dgamma);
        t.accumulate(beta, sums.dbeta);
    });
}

Var softmax(Compute& compute, Tape* tape, const Var& logits) {
    check_rank("softmax", logits.value, 2);
    const size_t rows = logits.shape()[0], cols = logits.shape()[1];
    Tensor y = compute.empty(logits.shape(), logits.value.dtype());
    on_floats(compute, "softmax", y.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().loss.softmax(compute.queue, logits.value.data<F>(), y.data<F>(), rows,
                                          cols);
    });
    if (!recording(tape, {&logits})) return y;
    return tape->record(y, [logits = logits.place(), y, cols](Tape& t, const Tensor& dy) {
        Compute& c = t.compute();
        // dx = y (dy - sum_j dy_j y_j); a product with ones puts the sum into every column.
        const Tensor weighted = ops::mul(c, dy, y);
        const Tensor ones = ops::full(c, {cols, cols}, y.dtype(), 1);
        const Tensor sums = ops::matmul(c, weighted, ones);
        t.accumulate(logits, ops::sub(c, weighted, ops::mul(c, y, sums)));
    });
}

Var cross_entropy(Compute& compute, Tape* tape, const Var& logits, const Tensor& targets) {
    check_rank("cross_entropy", logits.value, 2);
    const size_t rows = logits.shape()[0], cols = logits.shape()[1];
    const DType dtype = logits.value.dtype();
    if (rows == 0 || !(targets.shape() == logits.shape()) || targets.dtype() != dtype)
        fail("cross_entropy",
             "targets " + targets.shape().str() + " for logits " + logits.shape().str());
    const bool record = recording(tape, {&logits});
    Tensor each = compute.empty({rows}, dtype);
    Tensor dlogits = record ? compute.empty(logits.shape(), dtype) : Tensor();
    on_floats(compute, "cross_entropy", dtype, [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().loss.cross_entropy(compute.queue, logits.value.data<F>(),
                                                targets.data<F>(), each.data<F>(),
                                                record ? dlogits.data<F>() : nullptr, rows, cols);
    });
    Tensor loss = ops::scale(compute, ops::sum_all(compute, each), 1 / double(rows));
    if (!record) return loss;
    return tape->record(
        std::move(loss), [logits = logits.place(), dlogits](Tape& t, const Tensor& dy) {
            const Tensor column = dlogits.reshape({dlogits.elements(), 1});
            t.accumulate(logits, ops::mul_row(t.compute(), column, dy).reshape(dlogits.shape()));
        });
}

Var cross_entropy(Compute& compute, Tape* tape, const Var& logits,
                  const std::vector<int32_t>& labels, double smoothing) {
    check_rank("cross_entropy", logits.value, 2);
    const size_t rows = logits.shape()[0], cols = logits.shape()[1];
    if (rows == 0 || labels.size() != rows)
        fail("cross_entropy",
             std::to_string(labels.size()) + " labels for logits " + logits.shape().str());
    if (!(smoothing >= 0 && smoothing <= 1))
        fail("cross_entropy", "label smoothing " + std::to_string(smoothing) + " not in [0, 1]");
    for (size_t i = 0; i < rows; ++i)
        if (labels[i] < 0 || size_t(labels[i]) >= cols)
            fail("cross_entropy", "label " + std::to_string(labels[i]) + " at " +
                                      std::to_string(i) + " for " + std::to_string(cols) +
                                      " classes");
    Tensor targets;
    on_floats(compute, "cross_entropy", logits.value.dtype(), [&](auto zero) {
        using F = decltype(zero);
        std::vector<F> rest(rows * cols, F(smoothing / double(cols)));
        for (size_t i = 0; i < rows; ++i)
            rest[i * cols + size_t(labels[i])] = F(1 - smoothing + smoothing / double(cols));
        targets = compute.from(rest, logits.shape());
    });
    return cross_entropy(compute, tape, logits, targets);
}

}  // namespace nc::fn
