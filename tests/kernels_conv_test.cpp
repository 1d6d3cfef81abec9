// Convolution and its gradients: every table against the reference, the reference against its
// definition.
#include <optional>

#include "tests/check.h"

using namespace nc::test;
namespace kernels = nc::kernels;
using kernels::ConvShape;

namespace {

size_t x_size(const ConvShape& s) {
    return s.n * s.h * s.w * s.cin;
}
size_t y_size(const ConvShape& s) {
    return s.n * s.out_h() * s.out_w() * s.cout;
}
size_t w_size(const ConvShape& s) {
    return s.kh * s.kw * (s.cin / s.groups) * s.cout;
}

// Calls body(x index, w index, y index) for every product of the convolution: the definition.
template <class Body>
void each_product(const ConvShape& s, const Body& body) {
    const size_t gin = s.cin / s.groups, gout = s.cout / s.groups;
    for (size_t n = 0; n < s.n; ++n)
        for (size_t oy = 0; oy < s.out_h(); ++oy)
            for (size_t ox = 0; ox < s.out_w(); ++ox)
                for (size_t ky = 0; ky < s.kh; ++ky)
                    for (size_t kx = 0; kx < s.kw; ++kx) {
                        const int64_t iy =
                            int64_t(oy * s.stride_h + ky * s.dilation_h) - int64_t(s.pad_h);
                        const int64_t ix =
                            int64_t(ox * s.stride_w + kx * s.dilation_w) - int64_t(s.pad_w);
                        if (iy < 0 || ix < 0 || iy >= int64_t(s.h) || ix >= int64_t(s.w)) continue;
                        for (size_t o = 0; o < s.cout; ++o)
                            for (size_t i = 0; i < gin; ++i)
                                body(((n * s.h + size_t(iy)) * s.w + size_t(ix)) * s.cin +
                                         o / gout * gin + i,
                                     ((ky * s.kw + kx) * gin + i) * s.cout + o,
                                     ((n * s.out_h() + oy) * s.out_w() + ox) * s.cout + o);
                    }
}

template <class F>
struct Outputs {
    std::vector<F> y, y_no_bias, dx, dw;
};

template <class F>
Outputs<F> run(const kernels::Conv<F>& conv, int threads, const ConvShape& s, const Guarded<F>& x,
               const Guarded<F>& w, const Guarded<F>& bias, const Guarded<F>& dy) {
    TestQueue q(threads);
    Guarded<F> y(y_size(s)), y_no_bias(y_size(s)), dx(x_size(s)), dw(w_size(s));
    q.reserve(conv.forward_scratch(s, threads));
    conv.forward(q, x.data(), w.data(), bias.data(), y, s);
    conv.forward(q, x.data(), w.data(), nullptr, y_no_bias, s);
    q.reserve(conv.backward_input_scratch(s, threads));
    conv.backward_input(q, dy.data(), w.data(), dx, s);
    q.reserve(conv.backward_weight_scratch(s, threads));
    conv.backward_weight(q, x.data(), dy.data(), dw, s);
    CHECK(y.ok());
    CHECK(y_no_bias.ok());
    CHECK(dx.ok());
    CHECK(dw.ok());
    return {y.values(), y_no_bias.values(), dx.values(), dw.values()};
}

// Bound. As for gemm: k terms, k or 2k roundings of u = eps / 2 each, one more a block of k, one
// for the bias, one for the reference: (k + 2) eps sum |x||w|, with k = kh kw cin/groups for y, at
// most kh kw cout/groups for dx, and the number of output pixels for dw, where the at most 8
// partial sums replace as many additions of the chain. Each rounding may also lose half a denormal.
template <class F>
size_t count_wrong(const std::vector<F>& got, const std::vector<F>& expected,
                   const std::vector<double>& size, size_t k) {
    size_t wrong = 0;
    const double eps = double(std::numeric_limits<F>::epsilon());
    const double tiny = double(std::numeric_limits<F>::denorm_min());
    for (size_t i = 0; i < got.size(); ++i)
        if (!(std::fabs(double(got[i]) - double(expected[i])) <=
              double(k + 2) * (eps * size[i] + tiny)))
            ++wrong;
    return wrong;
}

template <class F>
struct Sizes {
    std::vector<double> y, y_no_bias, dx, dw;
    Sizes(const ConvShape& s, const Guarded<F>& x, const Guarded<F>& w, const Guarded<F>& bias,
          const Guarded<F>& dy)
        : y(y_size(s)), dx(x_size(s)), dw(w_size(s)) {
        each_product(s, [&](size_t ix, size_t iw, size_t iy) {
            y[iy] += std::fabs(double(x[ix]) * double(w[iw]));
            dx[ix] += std::fabs(double(dy[iy]) * double(w[iw]));
            dw[iw] += std::fabs(double(x[ix]) * double(dy[iy]));
        });
        y_no_bias = y;
        for (size_t i = 0; i < y.size(); ++i) y[i] += std::fabs(double(bias[i % s.cout]));
    }
};

template <class F>
void check_bounds(const ConvShape& s, const Outputs<F>& got, const Outputs<F>& expected,
                  const Sizes<F>& size) {
    const size_t taps = s.kh * s.kw;
    CHECK(count_wrong(got.y, expected.y, size.y, taps * s.cin / s.groups) == 0);
    CHECK(count_wrong(got.y_no_bias, expected.y_no_bias, size.y_no_bias, taps * s.cin / s.groups) ==
          0);
    CHECK(count_wrong(got.dx, expected.dx, size.dx, taps * s.cout / s.groups) == 0);
    CHECK(count_wrong(got.dw, expected.dw, size.dw, s.n * s.out_h() * s.out_w()) == 0);
}

std::string describe(const ConvShape& s) {
    std::string out;
    for (size_t v : {s.n, s.h, s.w, s.cin, s.kh, s.kw, s.cout, s.stride_h, s.stride_w, s.pad_h,
                     s.pad_w, s.dilation_h, s.dilation_w, s.groups})
        out += std::to_string(v) + " ";
    return out;
}

void check_shape(const ConvShape& s, uint64_t seed, bool threads,
                 std::optional<std::vector<float>> input = std::nullopt) {
    const Guarded<float> x(input ? *input : hard_values(x_size(s), seed));
    const Guarded<float> w(hard_values(w_size(s), seed + 1));
    const Guarded<float> bias(hard_values(s.cout, seed + 2)), dy(hard_values(y_size(s), seed + 3));
    const auto expected = run(kernels::reference().conv, 1, s, x, w, bias, dy);
    const Sizes<float> size(s, x, w, bias, dy);
    CAPTURE(describe(s));
    for (const auto* table : tables_to_test()) {
        CAPTURE(table->name);
        const auto got = run(table->conv, 1, s, x, w, bias, dy);
        check_bounds(s, got, expected, size);
        if (!threads) continue;
        for (int n : {2, 3, 7}) {
            if (table->cuda && n > 2) break;  // its blocks run in another order every time
            CAPTURE(n);
            const auto other = run(table->conv, n, s, x, w, bias, dy);
            CHECK(first_difference(got.y.data(), other.y.data(), got.y.size()) == got.y.size());
            CHECK(first_difference(got.dx.data(), other.dx.data(), got.dx.size()) == got.dx.size());
            CHECK(first_difference(got.dw.data(), other.dw.data(), got.dw.size()) == got.dw.size());
        }
    }
}

ConvShape square(size_t n, size_t h, size_t cin, size_t k, size_t cout, size_t stride, size_t pad) {
    return {.n = n,
            .h = h,
            .w = h,
            .cin = cin,
            .kh = k,
            .kw = k,
            .cout = cout,
            .stride_h = stride,
            .stride_w = stride,
            .pad_h = pad,
            .pad_w = pad};
}

// A valid shape drawn at random: everything differs between rows and columns.
ConvShape random_shape(uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto draw = [&](size_t low, size_t high) { return low + random() % (high - low + 1); };
    ConvShape s = {};
    s.groups = draw(0, 2) == 0 ? draw(2, 4) : 1;
    s.n = draw(1, 3);
    s.cin = s.groups * draw(1, 9);
    s.cout = s.groups * draw(1, 40);
    s.kh = draw(1, 5);
    s.kw = draw(1, 5);
    s.stride_h = draw(1, 3);
    s.stride_w = draw(1, 4);
    s.pad_h = draw(0, 3);
    s.pad_w = draw(0, 3);
    s.dilation_h = draw(1, 3);
    s.dilation_w = draw(1, 3);
    s.h = s.dilation_h * (s.kh - 1) + draw(1, 12);
    s.w = s.dilation_w * (s.kw - 1) + draw(1, 12);
    return s;
}

}  // namespace

TEST_CASE("conv: every table is within its bound of the reference at the networks' layers") {
    const ConvShape layers[] = {
        square(2, 28, 1, 5, 6, 1, 2),  square(2, 14, 6, 5, 16, 1, 0),
        square(1, 28, 1, 3, 32, 1, 1), square(1, 14, 32, 3, 64, 1, 1),
        square(1, 34, 2, 5, 32, 1, 2), square(1, 8, 64, 3, 96, 1, 1),
        square(1, 32, 3, 3, 64, 1, 1), square(1, 16, 64, 3, 70, 2, 1),
        square(3, 8, 33, 1, 48, 2, 0), square(5, 4, 80, 3, 65, 1, 1),
        square(2, 2, 40, 3, 16, 1, 1),
    };
    uint64_t seed = 1;
    for (const ConvShape& s : layers) check_shape(s, seed += 10, true);
}

TEST_CASE("conv: strides, padding, dilation and groups drawn at random") {
    for (uint64_t seed = 0; seed < 60; ++seed) check_shape(random_shape(seed), seed * 10, false);
}

TEST_CASE("conv: depthwise, a kernel the size of the image, a stride beyond the kernel") {
    ConvShape s = square(2, 9, 20, 3, 20, 1, 1);
    s.groups = 20;
    check_shape(s, 1, true);
    s.stride_h = 2;
    s.cout = 40;
    check_shape(s, 2, false);
    check_shape(square(2, 7, 5, 7, 9, 1, 0), 3, false);
    check_shape(square(2, 9, 5, 2, 9, 4, 0), 4, false);
    check_shape(square(1, 3, 4, 5, 7, 1, 2), 5, false);
    check_shape(square(1, 2, 3, 1, 4, 1, 3), 6, false);
}

TEST_CASE("conv: results large enough for every size of tile") {
    check_shape(square(4, 66, 3, 3, 5, 1, 1), 1, false);
    check_shape(square(1, 92, 4, 1, 200, 1, 0), 2, false);
    check_shape(square(1, 92, 200, 1, 4, 1, 0), 3, false);
    check_shape(square(1, 3, 32, 7, 1400, 1, 3), 4, false);
}

TEST_CASE(
    "conv: of inputs that are mostly zeros only the others are multiplied, to the same bits") {
    std::vector<ConvShape> shapes = {
        square(9, 17, 32, 3, 64, 1, 1),  square(8, 34, 2, 3, 32, 1, 1),
        square(12, 8, 64, 3, 128, 1, 1), square(9, 14, 20, 5, 37, 1, 2),
        square(9, 16, 24, 3, 40, 2, 1),  square(9, 12, 40, 3, 48, 1, 0),
        square(8, 6, 200, 3, 40, 1, 1),  square(8, 20, 40, 1, 150, 1, 0),
        square(9, 16, 16, 7, 16, 1, 3),
    };
    ConvShape s = square(9, 12, 30, 3, 50, 1, 2);
    s.w = 9;
    s.kw = 4;
    s.pad_w = 1;
    shapes.push_back(s);
    s.dilation_w = 2;
    shapes.push_back(s);
    uint64_t seed = 1000;
    for (const ConvShape& shape : shapes) {
        std::vector<float> x = hard_values(x_size(shape), seed += 10);
        std::mt19937_64 random(seed);
        for (float& value : x)
            if (random() % 12 != 0) value = random() % 2 != 0 ? 0.0f : -0.0f;
        for (size_t i = 0; i < x_size(shape) / shape.n; ++i) x[i] = 0;  // an image without anything
        check_shape(shape, seed, true, x);

        // One image alone goes through the matrix product.
        ConvShape one = shape;
        one.n = 1;
        const Guarded<float> w(hard_values(w_size(shape), seed + 1));
        const Guarded<float> bias(hard_values(shape.cout, seed + 2));
        for (const auto* table : tables_to_test()) {
            if (table->cuda) continue;
            CAPTURE(table->name);
            TestQueue q(2);
            q.reserve(table->conv.forward_scratch(shape, 2));
            Guarded<float> y(y_size(shape)), y_one(y_size(one));
            table->conv.forward(q, x.data(), w.data(), bias.data(), y, shape);
            q.reserve(table->conv.forward_scratch(one, 2));
            for (size_t n = 0; n < shape.n; ++n) {
                table->conv.forward(q, x.data() + n * x_size(one), w.data(), bias.data(), y_one,
                                    one);
                CHECK(first_difference(y.data() + n * y_size(one), y_one.data(), y_size(one)) ==
                      y_size(one));
            }
        }
    }
}

TEST_CASE("conv: nothing in, nothing out") {
    for (const ConvShape& s :
         {square(0, 5, 3, 3, 4, 1, 1), square(2, 5, 0, 3, 4, 1, 1), square(2, 5, 3, 3, 0, 1, 1)})
        check_shape(s, 1, false);
}

TEST_CASE("conv: the reference in double is the definition") {
    for (uint64_t seed = 100; seed < 120; ++seed) {
        const ConvShape s = random_shape(seed);
        const Guarded<double> x(hard_values<double>(x_size(s), seed));
        const Guarded<double> w(hard_values<double>(w_size(s), seed + 1));
        const Guarded<double> bias(hard_values<double>(s.cout, seed + 2));
        const Guarded<double> dy(hard_values<double>(y_size(s), seed + 3));
        Outputs<double> expected = {std::vector<double>(y_size(s)),
                                    {},
                                    std::vector<double>(x_size(s)),
                                    std::vector<double>(w_size(s))};
        each_product(s, [&](size_t ix, size_t iw, size_t iy) {
            expected.y[iy] += x[ix] * w[iw];
            expected.dx[ix] += dy[iy] * w[iw];
            expected.dw[iw] += x[ix] * dy[iy];
        });
        expected.y_no_bias = expected.y;
        for (size_t i = 0; i < expected.y.size(); ++i) expected.y[i] += bias[i % s.cout];
        CAPTURE(describe(s));
        check_bounds(s, run(kernels::reference_double().conv, 1, s, x, w, bias, dy), expected,
                     Sizes<double>(s, x, w, bias, dy));
    }
}
