// Checked elementwise operations, reductions and matrix products.
#include "engine/ops.h"

#include "engine/dispatch.h"

namespace nc::ops {
namespace {

// out = kernel(a, b) elementwise.
template <class Choose>
Tensor binary(const char* op, Compute& compute, const Tensor& a, const Tensor& b, Choose choose) {
    check_same(op, a, b);
    Tensor out = compute.empty(a.shape(), a.dtype());
    on_floats(compute, op, a.dtype(), [&](auto zero) {
        using F = decltype(zero);
        choose(compute.kernels<F>().elementwise)(compute.queue, a.data<F>(), b.data<F>(),
                                                 out.data<F>(), a.elements());
    });
    return out;
}

}  // namespace

Tensor full(Compute& compute, const Shape& shape, DType dtype, double value) {
    Tensor out = compute.empty(shape, dtype);
    on_floats(compute, "full", dtype, [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().elementwise.fill(compute.queue, F(value), out.data<F>(),
                                              out.elements());
    });
    return out;
}

Tensor add(Compute& compute, const Tensor& a, const Tensor& b) {
    return binary("add", compute, a, b, [](const auto& table) { return table.add; });
}

Tensor sub(Compute& compute, const Tensor& a, const Tensor& b) {
    return binary("sub", compute, a, b, [](const auto& table) { return table.sub; });
}

Tensor mul(Compute& compute, const Tensor& a, const Tensor& b) {
    return binary("mul", compute, a, b, [](const auto& table) { return table.mul; });
}

Tensor scale(Compute& compute, const Tensor& a, double s) {
    Tensor out = compute.empty(a.shape(), a.dtype());
    on_floats(compute, "scale", a.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().elementwise.scale(compute.queue, a.data<F>(), F(s), out.data<F>(),
                                               a.elements());
    });
    return out;
}

Tensor clamp(Compute& compute, const Tensor& a, double low, double high) {
    if (!(low <= high))
        fail("clamp", "bounds: " + std::to_string(low) + " to " + std::to_string(high));
    Tensor out = compute.empty(a.shape(), a.dtype());
    on_floats(compute, "clamp", a.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().elementwise.clamp(compute.queue, a.data<F>(), F(low), F(high),
                                               out.data<F>(), a.elements());
    });
    return out;
}

void add_into(Compute& compute, Tensor& accumulator, const Tensor& b) {
    check_same("add_into", accumulator, b);
    on_floats(compute, "add_into", b.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().elementwise.add(compute.queue, accumulator.data<F>(), b.data<F>(),
                                             accumulator.data<F>(), b.elements());
    });
}

void add_scaled_into(Compute& compute, Tensor& accumulator, const Tensor& b, double s) {
    check_same("add_scaled_into", accumulator, b);
    on_floats(compute, "add_scaled_into", b.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().elementwise.add_scaled(compute.queue, accumulator.data<F>(),
                                                    b.data<F>(), F(s), accumulator.data<F>(),
                                                    b.elements());
    });
}

Tensor add_row(Compute& compute, const Tensor& a, const Tensor& row) {
    check_row("add_row", a, row);
    Tensor out = compute.empty(a.shape(), a.dtype());
    on_floats(compute, "add_row", a.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().elementwise.add_row(compute.queue, a.data<F>(), row.data<F>(),
                                                 out.data<F>(), rows_of(a), a.shape().back());
    });
    return out;
}

Tensor mul_row(Compute& compute, const Tensor& a, const Tensor& row) {
    check_row("mul_row", a, row);
    Tensor out = compute.empty(a.shape(), a.dtype());
    on_floats(compute, "mul_row", a.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().elementwise.mul_row(compute.queue, a.data<F>(), row.data<F>(),
                                                 out.data<F>(), rows_of(a), a.shape().back());
    });
    return out;
}

Tensor sum_all(Compute& compute, const Tensor& a) {
    Tensor out = compute.empty({1}, a.dtype());
    on_floats(compute, "sum", a.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& reduce = compute.kernels<F>().reduce;
        compute.reserve(reduce.sum_scratch(a.elements()));
        reduce.sum(compute.queue, a.data<F>(), out.data<F>(), a.elements());
    });
    return out;
}

double sum(Compute& compute, const Tensor& a) {
    return sum_all(compute, a).item();
}

void sum_squares_into(Compute& compute, const Tensor& a, Tensor out) {
    if (out.elements() != 1) fail("sum_squares", "not one element: " + shape_text(out));
    on_floats(compute, "sum_squares", a.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& reduce = compute.kernels<F>().reduce;
        compute.reserve(reduce.sum_scratch(a.elements()));
        reduce.sum_squares(compute.queue, a.data<F>(), out.data<double>(), a.elements());
    });
}

double sum_squares(Compute& compute, const Tensor& a) {
    const Tensor out = compute.empty({1}, DType::f64);
    sum_squares_into(compute, a, out);
    return out.item();
}

namespace {

// a seen as [rows, cols]: sums over rows, with the shape given.
Tensor sum_matrix(const char* op, Compute& compute, const Tensor& a, size_t rows, size_t cols,
                  const Shape& shape) {
    Tensor out = compute.empty(shape, a.dtype());
    on_floats(compute, op, a.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& reduce = compute.kernels<F>().reduce;
        compute.reserve(reduce.sum_rows_scratch(rows, cols));
        reduce.sum_rows(compute.queue, a.data<F>(), out.data<F>(), rows, cols);
    });
    return out;
}

void check_leading(const char* op, const Tensor& a) {
    if (!a.defined() || a.shape().rank() == 0) fail(op, "no leading size: " + shape_text(a));
}

}  // namespace

Tensor sum_rows(Compute& compute, const Tensor& a) {
    check_leading("sum_rows", a);
    return sum_matrix("sum_rows", compute, a, rows_of(a), a.shape().back(), {a.shape().back()});
}

Tensor sum_leading(Compute& compute, const Tensor& a) {
    check_leading("sum_leading", a);
    const Shape row = a.shape().without_leading();
    return sum_matrix("sum_leading", compute, a, a.shape()[0], row.elements(), row);
}

Tensor mean_leading(Compute& compute, const Tensor& a) {
    check_leading("mean_leading", a);
    if (a.shape()[0] == 0) fail("mean_leading", "nothing to average: " + a.shape().str());
    const Tensor total = sum_leading(compute, a);
    return scale(compute, total, 1.0 / double(a.shape()[0]));
}

Tensor repeat_leading(Compute& compute, const Tensor& a, size_t times) {
    Tensor out = compute.empty(a.shape().with_leading(times), a.dtype());
    const Shape one = a.shape().with_leading(1);
    for (size_t i = 0; i < times; ++i) out.slice(i, i + 1).assign(a.reshape(one));
    return out;
}

Tensor argmax_rows(Compute& compute, const Tensor& a) {
    check_rank("argmax", a, 2);
    if (a.shape()[1] == 0) fail("argmax", "empty rows: " + a.shape().str());
    Tensor out = compute.empty({a.shape()[0]}, DType::i32);
    on_floats(compute, "argmax", a.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().reduce.argmax(compute.queue, a.data<F>(), out.data<int32_t>(),
                                           a.shape()[0], a.shape()[1]);
    });
    return out;
}

std::vector<int32_t> argmax(Compute& compute, const Tensor& a) {
    return argmax_rows(compute, a).to_vector<int32_t>();
}

Tensor matmul(Compute& compute, const Tensor& a, const Tensor& b, bool transpose_a,
              bool transpose_b, const Tensor& bias) {
    check_rank("matmul", a, 2);
    check_rank("matmul", b, 2);
    const size_t m = a.shape()[transpose_a ? 1 : 0], k = a.shape()[transpose_a ? 0 : 1];
    const size_t n = b.shape()[transpose_b ? 0 : 1], inner = b.shape()[transpose_b ? 1 : 0];
    if (k != inner)
        fail("matmul", "inner sizes differ: " + a.shape().str() + (transpose_a ? "^T" : "") +
                           " times " + b.shape().str() + (transpose_b ? "^T" : ""));
    if (bias.defined() && !(bias.shape() == Shape{n}))
        fail("matmul", "bias " + bias.shape().str() + " for " + std::to_string(n) + " outputs");
    Tensor out = compute.empty({m, n}, a.dtype());
    on_floats(compute, "matmul", a.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& gemm = compute.kernels<F>().gemm;
        compute.reserve(
            gemm.gemm_scratch(transpose_a, transpose_b, m, n, k, compute.queue.threads));
        gemm.gemm(compute.queue, transpose_a, transpose_b, a.data<F>(), b.data<F>(),
                  data_or_null<F>(bias), false, out.data<F>(), m, n, k);
    });
    return out;
}

}  // namespace nc::ops
