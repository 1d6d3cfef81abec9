// Matrix products and convolutions at the sizes that networks use.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "bench/kernels.h"

namespace nc::bench {
namespace {

using kernels::ConvShape;
using kernels::Queue;

// Each element of `got` within (terms + 2) eps of the reference's, measured in the sum of the
// absolute products (kernels.h).
bool within_bound(const float* got, const std::vector<float>& expected,
                  const std::vector<float>& magnitude, size_t terms) {
    const double eps = double(std::numeric_limits<float>::epsilon());
    for (size_t i = 0; i < expected.size(); ++i)
        if (!(std::fabs(double(got[i]) - double(expected[i])) <=
              double(terms + 2) * eps * double(magnitude[i])))
            return false;
    return true;
}

std::vector<float> absolute(std::vector<float> v) {
    for (float& x : v) x = std::fabs(x);
    return v;
}

// ----------------------------------------------------------------------------------------------
// gemm

struct GemmData {
    bool transpose_a, transpose_b;
    size_t m, n, k;
    std::vector<float> a, b, c;

    void run(const Table& table, Queue& q) {
        table.gemm.gemm(q, transpose_a, transpose_b, a.data(), b.data(), nullptr, false, c.data(),
                        m, n, k);
    }
    size_t scratch(const Table& table, int threads) const {
        return table.gemm.gemm_scratch(transpose_a, transpose_b, m, n, k, threads);
    }
    // The whole product by the table; its first rows by the reference.
    bool correct(const Table& table, int threads) {
        Scratch scratch_of(threads, scratch(table, threads));
        run(table, scratch_of.queue);
        const size_t rows = std::min<size_t>(m, 24);
        std::vector<float> some_a(rows * k), expected(rows * n), magnitude(rows * n);
        for (size_t i = 0; i < rows; ++i)
            for (size_t p = 0; p < k; ++p)
                some_a[i * k + p] = transpose_a ? a[p * m + i] : a[i * k + p];
        const auto reference = [&](const std::vector<float>& x, const std::vector<float>& y,
                                   std::vector<float>& out) {
            Scratch s(threads, kernels::reference().gemm.gemm_scratch(false, transpose_b, rows, n,
                                                                      k, threads));
            kernels::reference().gemm.gemm(s.queue, false, transpose_b, x.data(), y.data(), nullptr,
                                           false, out.data(), rows, n, k);
        };
        reference(some_a, b, expected);
        reference(absolute(some_a), absolute(b), magnitude);
        return within_bound(c.data(), expected, magnitude, k);
    }
};

NamedCase gemm_case(const std::string& label, bool transpose_a, bool transpose_b, size_t m,
                    size_t n, size_t k) {
    return {fmt::format("gemm/{}{}x{}x{}{}", label, m, n, k,
                        transpose_a   ? "-transposed_a"
                        : transpose_b ? "-transposed_b"
                                      : ""),
            [=] {
                auto d = std::make_shared<GemmData>(
                    GemmData{transpose_a, transpose_b, m, n, k, random_floats(m * k, 1),
                             random_floats(k * n, 2), std::vector<float>(m * n)});
                return Case{.operations = 2.0 * double(m) * double(n) * double(k),
                            .bytes = 0,
                            .scratch = [d](const Table& t, int n) { return d->scratch(t, n); },
                            .run = [d](const Table& t, Queue& q) { d->run(t, q); },
                            .correct = [d](const Table& t, int n) { return d->correct(t, n); }};
            }};
}

// ----------------------------------------------------------------------------------------------
// conv

enum class Pass { forward, input, weight };
constexpr const char* pass_names[] = {"forward", "backward_input", "backward_weight"};

struct ConvData {
    Pass pass;
    ConvShape shape;
    std::vector<float> x, w, y, out;  // y is dy going backward

    static size_t pixels(const ConvShape& s) { return s.n * s.out_h() * s.out_w(); }

    ConvData(Pass pass_, const ConvShape& s) : pass(pass_), shape(s) {
        x = random_floats(s.n * s.h * s.w * s.cin, 1);
        w = random_floats(s.kh * s.kw * s.cin * s.cout, 2);
        y = random_floats(pixels(s) * s.cout, 3);
        out.resize(pass == Pass::forward ? y.size() : pass == Pass::input ? x.size() : w.size());
    }
    size_t terms() const {
        const size_t taps = shape.kh * shape.kw;
        return pass == Pass::forward ? taps * shape.cin
               : pass == Pass::input ? taps * shape.cout
                                     : pixels(shape);
    }
    size_t scratch(const Table& t, int threads) const {
        return pass == Pass::forward ? t.conv.forward_scratch(shape, threads)
               : pass == Pass::input ? t.conv.backward_input_scratch(shape, threads)
                                     : t.conv.backward_weight_scratch(shape, threads);
    }
    void run(const Table& t, Queue& q) {
        if (pass == Pass::forward)
            t.conv.forward(q, x.data(), w.data(), nullptr, out.data(), shape);
        else if (pass == Pass::input)
            t.conv.backward_input(q, y.data(), w.data(), out.data(), shape);
        else
            t.conv.backward_weight(q, x.data(), y.data(), out.data(), shape);
    }
    // The reference does two images, which the rest of the batch does not touch; the gradient of
    // the weight, a sum over the batch, is compared for two images alone.
    bool correct(const Table& table, int threads) {
        ConvData some = *this;
        some.shape.n = std::min<size_t>(shape.n, 2);
        some.resize();
        if (pass != Pass::weight) {
            Scratch s(threads, scratch(table, threads));
            run(table, s.queue);
        } else {
            Scratch s(threads, some.scratch(table, threads));
            some.run(table, s.queue);
        }
        const std::vector<float> got = pass == Pass::weight ? some.out : out;
        Scratch s(threads, some.scratch(kernels::reference(), threads));
        some.run(kernels::reference(), s.queue);
        const std::vector<float> expected = some.out;
        some.x = absolute(some.x);
        some.w = absolute(some.w);
        some.y = absolute(some.y);
        some.run(kernels::reference(), s.queue);
        return within_bound(got.data(), expected, some.out, some.terms());
    }

 private:
    void resize() {
        x.resize(shape.n * shape.h * shape.w * shape.cin);
        y.resize(pixels(shape) * shape.cout);
        if (pass == Pass::forward) out.resize(y.size());
        if (pass == Pass::input) out.resize(x.size());
    }
};

ConvShape layer(size_t n, size_t size, size_t cin, size_t k, size_t cout, size_t stride,
                size_t pad) {
    return {.n = n,
            .h = size,
            .w = size,
            .cin = cin,
            .kh = k,
            .kw = k,
            .cout = cout,
            .stride_h = stride,
            .stride_w = stride,
            .pad_h = pad,
            .pad_w = pad};
}

NamedCase conv_case(Pass pass, const std::string& network, const ConvShape& s) {
    return {fmt::format("conv.{}/{}/{}-{}-k{}-s{}-{}x{}-n{}", pass_names[int(pass)], network, s.cin,
                        s.cout, s.kh, s.stride_h, s.h, s.w, s.n),
            [=] {
                auto d = std::make_shared<ConvData>(pass, s);
                return Case{.operations = 2.0 * double(d->y.size()) * double(s.kh * s.kw * s.cin),
                            .bytes = 0,
                            .scratch = [d](const Table& t, int n) { return d->scratch(t, n); },
                            .run = [d](const Table& t, Queue& q) { d->run(t, q); },
                            .correct = [d](const Table& t, int n) { return d->correct(t, n); }};
            }};
}

}  // namespace

std::vector<NamedCase> dense_cases() {
    std::vector<NamedCase> cases = {
        gemm_case("", false, false, 2048, 2048, 2048), gemm_case("", false, false, 512, 512, 512),
        gemm_case("", true, false, 1024, 1024, 1024),  gemm_case("", false, true, 1024, 1024, 1024),
        gemm_case("mlp/", false, false, 64, 256, 784), gemm_case("mlp/", true, false, 784, 256, 64),
        gemm_case("mlp/", false, true, 64, 256, 256),  gemm_case("mlp/", false, false, 64, 10, 256),
        gemm_case("mlp/", false, false, 1, 256, 784),
    };
    const std::pair<const char*, ConvShape> layers[] = {
        {"resnet18", layer(32, 32, 3, 3, 64, 1, 1)},
        {"resnet18", layer(32, 32, 64, 3, 64, 1, 1)},
        {"resnet18", layer(32, 32, 64, 3, 128, 2, 1)},
        {"resnet18", layer(32, 16, 128, 3, 128, 1, 1)},
        {"resnet18", layer(32, 32, 64, 1, 128, 2, 0)},
        {"resnet18", layer(32, 16, 128, 3, 256, 2, 1)},
        {"resnet18", layer(32, 8, 256, 3, 256, 1, 1)},
        {"resnet18", layer(32, 16, 128, 1, 256, 2, 0)},
        {"resnet18", layer(32, 8, 256, 3, 512, 2, 1)},
        {"resnet18", layer(32, 4, 512, 3, 512, 1, 1)},
        {"resnet18", layer(32, 8, 256, 1, 512, 2, 0)},
        {"resnet20", layer(64, 32, 3, 3, 16, 1, 1)},
        {"resnet20", layer(64, 32, 16, 3, 16, 1, 1)},
        {"resnet20", layer(64, 32, 16, 3, 32, 2, 1)},
        {"resnet20", layer(64, 16, 32, 3, 32, 1, 1)},
        {"resnet20", layer(64, 8, 64, 3, 64, 1, 1)},
        {"lenet", layer(64, 28, 1, 5, 6, 1, 2)},
        {"lenet", layer(64, 14, 6, 5, 16, 1, 0)},
        {"cnn", layer(64, 28, 1, 3, 32, 1, 1)},
        {"cnn", layer(64, 14, 32, 3, 64, 1, 1)},
        {"nmnist", layer(64, 34, 2, 5, 32, 1, 2)},
        {"nmnist", layer(64, 17, 32, 5, 64, 1, 2)},
        {"nmnist", layer(64, 8, 64, 3, 128, 1, 1)},
    };
    for (Pass pass : {Pass::forward, Pass::input, Pass::weight})
        for (const auto& [network, shape] : layers)
            cases.push_back(conv_case(pass, network, shape));
    return cases;
}

}  // namespace nc::bench
