// Matrix products and convolutions at the sizes that networks use.
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include "bench/kernels.h"

namespace nc::bench {
namespace {

using kernels::ConvShape;

// Each element of `got` within (terms + 2) eps of the reference's, measured in the sum of the
// absolute products (kernels.h); eps is that of the precision the factors were rounded to.
bool within_bound(const Tensor& got, const Tensor& expected, const Tensor& magnitude, size_t terms,
                  kernels::Precision precision) {
    const double eps = precision == kernels::Precision::fp32   ? 0x1p-23
                       : precision == kernels::Precision::tf32 ? 0x1p-10
                                                               : 0x1p-7;
    const Tensor here = got.to_host();
    const auto* a = static_cast<const float*>(here.raw());
    const auto* b = static_cast<const float*>(expected.raw());
    const auto* m = static_cast<const float*>(magnitude.raw());
    for (size_t i = 0; i < expected.bytes() / sizeof(float); ++i)
        if (!(std::fabs(double(a[i]) - double(b[i])) <= double(terms + 2) * eps * double(m[i])))
            return false;
    return true;
}

std::vector<float> absolute(std::vector<float> v) {
    for (float& x : v) x = std::fabs(x);
    return v;
}

// ----------------------------------------------------------------------------------------------
// gemm

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

// b packed beforehand, as a compiled analog network has its weights: a 1x1 convolution of m pixels.
struct Packed {
    const kernels::Analog& kernels;
    ConvShape shape;
    size_t parts;
    Tensor weights, scratch;

    Packed(const char* table, const float* b, size_t m, size_t n, size_t k, int threads)
        : kernels(*kernels::analog(table)),
          shape(layer(1, m, k, 1, n, 1, 0)),
          parts(size_t(threads)) {
        shape.w = 1;  // m pixels in a row
        const auto method = kernels::ConvMethod::direct;
        weights = Tensor({kernels.packed_floats(method, shape)});
        kernels.pack(method, b, weights.data<float>(), shape);
        scratch = Tensor({parts * kernels.scratch(method, shape)}, DType::u8);
    }
    void run(const float* a, float* c) const {
        const size_t own = scratch.bytes() / parts;
#pragma omp parallel num_threads(int(parts))
        for (size_t part = size_t(omp_get_thread_num()); part < parts;
             part += size_t(omp_get_num_threads()))
            kernels.conv(kernels::ConvMethod::direct, a, weights.data<float>(), {}, c, shape,
                         static_cast<char*>(const_cast<void*>(scratch.raw())) + part * own, part,
                         parts);
    }
};

struct GemmData {
    Compute& compute;
    bool transpose_a, transpose_b;
    size_t m, n, k;
    Values<float> a, b, c;
    std::optional<Packed> packed;

    GemmData(Compute& where, bool ta, bool tb, size_t m_, size_t n_, size_t k_,
             std::vector<float> a_, std::vector<float> b_)
        : compute(where),
          transpose_a(ta),
          transpose_b(tb),
          m(m_),
          n(n_),
          k(k_),
          a(std::move(a_)),
          b(std::move(b_)) {
        c.resize(m * n);
        bring(compute, a, b, c);
        compute.reserve(compute.table->gemm.gemm_scratch(ta, tb, m, n, k, compute.queue.threads));
    }
    void pack() { packed.emplace(compute.table->name, b.data(), m, n, k, compute.queue.threads); }
    void run() const {
        if (packed)
            packed->run(a.data(), c.data());
        else
            compute.table->gemm.gemm(compute.queue, transpose_a, transpose_b, a.data(), b.data(),
                                     nullptr, false, c.data(), m, n, k);
    }
    // The whole product there; its first rows by the reference.
    bool correct() const {
        run();
        const size_t rows = std::min<size_t>(m, 24);
        std::vector<float> some_a(rows * k);
        for (size_t i = 0; i < rows; ++i)
            for (size_t p = 0; p < k; ++p)
                some_a[i * k + p] = a.filled()[transpose_a ? p * m + i : i * k + p];
        Compute reference(kernels::reference(), compute.queue.threads);
        const GemmData expected(reference, false, transpose_b, rows, n, k, some_a, b.filled()),
            magnitude(reference, false, transpose_b, rows, n, k, absolute(some_a),
                      absolute(b.filled()));
        expected.run();
        magnitude.run();
        return within_bound(c.there(), expected.c.there(), magnitude.c.there(), k,
                            compute.queue.precision);
    }
};

NamedCase gemm_case(const std::string& label, bool transpose_a, bool transpose_b, size_t m,
                    size_t n, size_t k, bool packed = false) {
    return {fmt::format("gemm/{}{}x{}x{}{}", label, m, n, k,
                        transpose_a   ? "-transposed_a"
                        : transpose_b ? "-transposed_b"
                                      : ""),
            [=](Compute& compute) {
                auto d =
                    std::make_shared<GemmData>(compute, transpose_a, transpose_b, m, n, k,
                                               random_floats(m * k, 1), random_floats(k * n, 2));
                if (packed) d->pack();
                Case c;
                c.operations = 2.0 * double(m) * double(n) * double(k);
                c.run = [d] { d->run(); };
                c.correct = [d] { return d->correct(); };
                return c;
            },
            packed};
}

// ----------------------------------------------------------------------------------------------
// conv

enum class Pass { forward, input, weight };
constexpr const char* pass_names[] = {"forward", "backward_input", "backward_weight"};

size_t pixels(const ConvShape& s) {
    return s.n * s.out_h() * s.out_w();
}

struct ConvData {
    Compute& compute;
    Pass pass;
    ConvShape shape;
    Values<float> x, w, y, out;  // y is dy going backward
    bool sparse;                 // x is mostly zeros

    ConvData(Compute& where, Pass pass_, const ConvShape& s, std::vector<float> x_,
             std::vector<float> w_, std::vector<float> y_, bool sparse_)
        : compute(where),
          pass(pass_),
          shape(s),
          x(std::move(x_)),
          w(std::move(w_)),
          y(std::move(y_)),
          sparse(sparse_) {
        out.resize(pass == Pass::forward ? y.size() : pass == Pass::input ? x.size() : w.size());
        bring(compute, x, w, y, out);
        const auto& conv = compute.table->conv;
        const int threads = compute.queue.threads;
        compute.reserve(pass == Pass::forward ? conv.forward_scratch(s, threads)
                        : pass == Pass::input ? conv.backward_input_scratch(s, threads)
                                              : conv.backward_weight_scratch(s, threads));
    }
    size_t terms() const {
        const size_t taps = shape.kh * shape.kw;
        return pass == Pass::forward ? taps * shape.cin
               : pass == Pass::input ? taps * shape.cout
                                     : pixels(shape);
    }
    void run() const {
        const auto& conv = compute.table->conv;
        if (pass == Pass::forward)
            conv.forward(compute.queue, x.data(), w.data(), nullptr, out.data(), shape);
        else if (pass == Pass::input)
            conv.backward_input(compute.queue, y.data(), w.data(), out.data(), shape);
        else
            conv.backward_weight(compute.queue, x.data(), y.data(), out.data(), shape);
    }
    // Of the first images, which the rest of the batch does not touch: enough of them that zeros
    // are skipped where they are in the whole.
    ConvData first_images(Compute& where, bool magnitudes) const {
        ConvShape s = shape;
        s.n = std::min<size_t>(shape.n, sparse ? 16 : 2);
        const auto part = [&](const Values<float>& v, size_t n) {
            std::vector<float> out(v.filled().begin(), v.filled().begin() + std::ptrdiff_t(n));
            return magnitudes ? absolute(std::move(out)) : out;
        };
        return ConvData(where, pass, s, part(x, s.n * s.h * s.w * s.cin), part(w, w.size()),
                        part(y, pixels(s) * s.cout), sparse);
    }
    // The reference does the first images; the gradient of the weight, a sum over the batch, is
    // compared for these alone.
    bool correct() const {
        Compute reference(kernels::reference(), compute.queue.threads);
        const ConvData expected = first_images(reference, false),
                       magnitude = first_images(reference, true),
                       here = first_images(compute, false);
        for (const ConvData* d : {&expected, &magnitude, &here}) d->run();
        if (pass != Pass::weight) run();
        return within_bound(pass == Pass::weight ? here.out.there() : out.there(),
                            expected.out.there(), magnitude.out.there(), expected.terms(),
                            compute.queue.precision);
    }
};

// share: of the inputs that are not zero; only their products are counted.
NamedCase conv_case(Pass pass, const std::string& network, const ConvShape& s, double share) {
    const bool sparse = share < 1;
    return {fmt::format("conv.{}/{}/{}-{}-k{}-s{}-{}x{}-n{}{}", pass_names[int(pass)], network,
                        s.cin, s.cout, s.kh, s.stride_h, s.h, s.w, s.n,
                        sparse ? fmt::format("-{:g}%", 100 * share) : ""),
            [=](Compute& compute) {
                std::vector<float> x = random_floats(s.n * s.h * s.w * s.cin, 1);
                if (sparse) {
                    const std::vector<float> chance = random_floats(x.size(), 4, 0, 1);
                    for (size_t i = 0; i < x.size(); ++i)
                        if (chance[i] >= share) x[i] = 0;
                }
                auto d = std::make_shared<ConvData>(compute, pass, s, std::move(x),
                                                    random_floats(s.kh * s.kw * s.cin * s.cout, 2),
                                                    random_floats(pixels(s) * s.cout, 3), sparse);
                Case c;
                c.operations = 2.0 * double(d->y.size()) * double(s.kh * s.kw * s.cin) * share;
                c.run = [d] { d->run(); };
                c.correct = [d] { return d->correct(); };
                return c;
            }};
}

}  // namespace

std::vector<NamedCase> dense_cases() {
    std::vector<NamedCase> cases = {
        gemm_case("", false, false, 2048, 2048, 2048),
        gemm_case("", false, false, 512, 512, 512),
        gemm_case("", true, false, 1024, 1024, 1024),
        gemm_case("", false, true, 1024, 1024, 1024),
        gemm_case("packed/", false, false, 2048, 2048, 2048, true),
        gemm_case("mlp/", false, false, 64, 256, 784),
        gemm_case("mlp/", true, false, 784, 256, 64),
        gemm_case("mlp/", false, true, 64, 256, 256),
        gemm_case("mlp/", false, false, 64, 10, 256),
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
            cases.push_back(conv_case(pass, network, shape, 1));
    // Average-pooled spikes over 16 steps of 32 recordings, as often as a trained network has them.
    const std::pair<ConvShape, double> spikes[] = {{layer(512, 34, 2, 3, 32, 1, 1), 0.05},
                                                   {layer(512, 17, 32, 3, 64, 1, 1), 0.07},
                                                   {layer(512, 8, 64, 3, 128, 1, 1), 0.14}};
    for (Pass pass : {Pass::forward, Pass::weight})
        for (const auto& [shape, share] : spikes)
            cases.push_back(conv_case(pass, "nmnist-3x3", shape, share));
    return cases;
}

}  // namespace nc::bench
