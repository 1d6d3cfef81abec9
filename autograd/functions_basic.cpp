// Differentiable arithmetic, reductions and activations; each backward stands beneath its forward.
#include <algorithm>
#include <cmath>

#include "autograd/functions.h"
#include "engine/dispatch.h"

namespace nc::fn {

Var add(Compute& compute, Tape* tape, const Var& a, const Var& b) {
    Tensor y = ops::add(compute, a.value, b.value);
    if (!recording(tape, {&a, &b})) return y;
    return tape->record(std::move(y), [a = a.place(), b = b.place()](Tape& t, const Tensor& dy) {
        t.accumulate(a, dy);
        t.accumulate(b, dy);
    });
}

Var sub(Compute& compute, Tape* tape, const Var& a, const Var& b) {
    Tensor y = ops::sub(compute, a.value, b.value);
    if (!recording(tape, {&a, &b})) return y;
    return tape->record(std::move(y), [a = a.place(), b = b.place()](Tape& t, const Tensor& dy) {
        t.accumulate(a, dy);
        if (b.tracked()) t.accumulate(b, ops::scale(t.compute(), dy, -1));
    });
}

Var mul(Compute& compute, Tape* tape, const Var& a, const Var& b) {
    Tensor y = ops::mul(compute, a.value, b.value);
    if (!recording(tape, {&a, &b})) return y;
    return tape->record(std::move(y),
                        [a = a.place(), b = b.place(), for_b = b.tracked() ? a.value : Tensor(),
                         for_a = a.tracked() ? b.value : Tensor()](Tape& t, const Tensor& dy) {
                            if (a.tracked()) t.accumulate(a, ops::mul(t.compute(), dy, for_a));
                            if (b.tracked()) t.accumulate(b, ops::mul(t.compute(), dy, for_b));
                        });
}

Var scale(Compute& compute, Tape* tape, const Var& a, double s) {
    Tensor y = ops::scale(compute, a.value, s);
    if (!recording(tape, {&a})) return y;
    return tape->record(std::move(y), [a = a.place(), s](Tape& t, const Tensor& dy) {
        t.accumulate(a, ops::scale(t.compute(), dy, s));
    });
}

Var mul_row(Compute& compute, Tape* tape, const Var& a, const Var& row) {
    // One value is a row of all the elements seen as a column, one an element a row of the samples.
    const size_t n = row.value.elements();
    const bool single = row.value.defined() && row.shape() == Shape{1};
    const bool whole = a.shape().rank() > 1 && row.shape().rank() == 1 &&
                       n == a.shape().without_leading().elements();
    const Shape seen = single  ? Shape{a.value.elements(), 1}
                       : whole ? Shape{a.shape()[0], n}
                               : a.shape();
    Tensor y = ops::mul_row(compute, a.value.reshape(seen), row.value).reshape(a.shape());
    if (!recording(tape, {&a, &row})) return y;
    return tape->record(
        std::move(y), [seen, shape = a.shape(), a = a.place(), row = row.place(),
                       scales = a.tracked() ? row.value : Tensor(),
                       x = row.tracked() ? a.value : Tensor()](Tape& t, const Tensor& dy) {
            Compute& c = t.compute();
            const Tensor g = dy.reshape(seen);
            if (a.tracked()) t.accumulate(a, ops::mul_row(c, g, scales).reshape(shape));
            if (row.tracked()) t.accumulate(row, ops::sum_rows(c, ops::mul(c, g, x.reshape(seen))));
        });
}

Var reshape(Compute&, Tape* tape, const Var& a, const Shape& shape) {
    Tensor y = a.value.reshape(shape);
    if (!recording(tape, {&a})) return y;
    return tape->record(std::move(y),
                        [a = a.place(), shape = a.shape()](Tape& t, const Tensor& dy) {
                            t.accumulate(a, dy.reshape(shape));
                        });
}

Var sum(Compute& compute, Tape* tape, const Var& a) {
    Tensor y = ops::sum_all(compute, a.value);
    if (!recording(tape, {&a})) return y;
    return tape->record(
        std::move(y), [a = a.place(), shape = a.shape()](Tape& t, const Tensor& dy) {
            const Tensor ones = ops::full(t.compute(), {shape.elements(), 1}, dy.dtype(), 1);
            t.accumulate(a, ops::mul_row(t.compute(), ones, dy).reshape(shape));
        });
}

Var add_steps(Compute& compute, Tape* tape, const Var& x, const Var& bias, size_t T, size_t first) {
    const size_t rows = x.shape()[0] / T, steps = bias.shape()[0];
    const Shape row = bias.shape().without_leading();
    const auto at = [steps, first](size_t t) { return std::min(first + t, steps - 1); };
    Tensor y = compute.empty(x.shape(), x.value.dtype());
    for (size_t t = 0; t < T; ++t)
        y.slice(t * rows, (t + 1) * rows)
            .assign(ops::add_row(compute, x.value.slice(t * rows, (t + 1) * rows),
                                 bias.value.slice(at(t), at(t) + 1).reshape(row)));
    if (!recording(tape, {&x, &bias})) return y;
    return tape->record(std::move(y), [x = x.place(), bias, T, rows, row, at](Tape& tape,
                                                                              const Tensor& dy) {
        tape.accumulate(x, dy);
        Tensor dbias = ops::full(tape.compute(), bias.shape(), dy.dtype(), 0);
        for (size_t t = 0; t < T; ++t) {
            Tensor sum = dbias.slice(at(t), at(t) + 1).reshape(row);
            sum.assign(ops::add(tape.compute(), sum,
                                ops::sum_rows(tape.compute(), dy.slice(t * rows, (t + 1) * rows))));
        }
        tape.accumulate(bias, std::move(dbias));
    });
}

Var mean_leading(Compute& compute, Tape* tape, const Var& a) {
    Tensor y = ops::mean_leading(compute, a.value);
    if (!recording(tape, {&a})) return y;
    return tape->record(std::move(y),
                        [a = a.place(), steps = a.shape()[0]](Tape& t, const Tensor& dy) {
                            const Tensor share = ops::scale(t.compute(), dy, 1.0 / double(steps));
                            t.accumulate(a, ops::repeat_leading(t.compute(), share, steps));
                        });
}

Var repeat_leading(Compute& compute, Tape* tape, const Var& a, size_t times) {
    Tensor y = ops::repeat_leading(compute, a.value, times);
    if (!recording(tape, {&a})) return y;
    return tape->record(std::move(y), [a = a.place()](Tape& t, const Tensor& dy) {
        t.accumulate(a, ops::sum_leading(t.compute(), dy));
    });
}

Var delay_leading(Compute& compute, Tape* tape, const Var& a, size_t by) {
    const size_t rows = a.shape()[0], hold = std::min(by, rows);
    Tensor y = compute.empty(a.shape(), a.value.dtype());
    y.slice(0, hold).zero();
    y.slice(hold, rows).assign(a.value.slice(0, rows - hold));
    if (!recording(tape, {&a})) return y;
    return tape->record(std::move(y), [a = a.place(), hold, rows](Tape& t, const Tensor& dy) {
        Tensor dx = t.compute().empty(dy.shape(), dy.dtype());
        dx.slice(0, rows - hold).assign(dy.slice(hold, rows));
        dx.slice(rows - hold, rows).zero();
        t.accumulate(a, std::move(dx));
    });
}

Var activation(Compute& compute, Tape* tape, const Var& x, kernels::Activation kind, double param) {
    Tensor y = compute.empty(x.shape(), x.value.dtype());
    on_floats(compute, "activation", x.value.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().elementwise.activate(compute.queue, kind, F(param), x.value.data<F>(),
                                                  y.data<F>(), y.elements());
    });
    if (!recording(tape, {&x})) return y;
    return tape->record(std::move(y), [x, kind, param](Tape& t, const Tensor& dy) {
        Compute& c = t.compute();
        Tensor dx = c.empty(x.shape(), dy.dtype());
        on_floats(c, "activation", dy.dtype(), [&](auto zero) {
            using F = decltype(zero);
            c.kernels<F>().elementwise.activate_backward(c.queue, kind, F(param), x.value.data<F>(),
                                                         dy.data<F>(), dx.data<F>(), dx.elements());
        });
        t.accumulate(x, std::move(dx));
    });
}

Var prelu(Compute& compute, Tape* tape, const Var& x, const Var& slope) {
    const size_t cols = slope.value.elements();
    if (cols != 1) check_row("prelu", x.value, slope.value);
    const size_t rows = cols == 0 ? 0 : x.value.elements() / cols;
    Tensor y = compute.empty(x.shape(), x.value.dtype());
    on_floats(compute, "prelu", x.value.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().elementwise.prelu(compute.queue, x.value.data<F>(),
                                               slope.value.data<F>(), y.data<F>(), rows, cols);
    });
    if (!recording(tape, {&x, &slope})) return y;
    return tape->record(std::move(y), [x, slope, rows, cols](Tape& t, const Tensor& dy) {
        Compute& c = t.compute();
        Tensor dx = c.empty(x.shape(), dy.dtype()), dslope = c.empty(slope.shape(), dy.dtype());
        on_floats(c, "prelu", dy.dtype(), [&](auto zero) {
            using F = decltype(zero);
            const auto& elementwise = c.kernels<F>().elementwise;
            c.reserve(elementwise.prelu_backward_scratch(rows, cols));
            elementwise.prelu_backward(c.queue, x.value.data<F>(), slope.value.data<F>(),
                                       dy.data<F>(), dx.data<F>(), dslope.data<F>(), rows, cols);
        });
        t.accumulate(x, std::move(dx));
        t.accumulate(slope, std::move(dslope));
    });
}

// With c = clamp(d, -1, 1) the loss is c (d - c / 2), and its derivative is c.
Var huber(Compute& compute, Tape* tape, const Var& values, const Tensor& targets,
          const Tensor& taken) {
    const Tensor d = ops::mul(compute, ops::sub(compute, values.value, targets), taken);
    const Tensor c = ops::clamp(compute, d, -1, 1);
    Tensor rest = d.clone();
    ops::add_scaled_into(compute, rest, c, -0.5);
    const double share = 1 / double(values.shape()[0]);
    Tensor y = ops::scale(compute, ops::sum_all(compute, ops::mul(compute, c, rest)), share);
    if (!recording(tape, {&values})) return y;
    return tape->record(
        std::move(y), [values = values.place(), c, share](Tape& t, const Tensor& dy) {
            const Tensor column = c.reshape({c.elements(), 1});
            const Tensor dx = ops::mul_row(t.compute(), column, ops::scale(t.compute(), dy, share));
            t.accumulate(values, dx.reshape(c.shape()));
        });
}

}  // namespace nc::fn
