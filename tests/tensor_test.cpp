// Shapes, storage, tensors, compute, checked operations and random numbers.
#include <cstdlib>
#include <functional>
#include <numeric>
#include <set>
#include <thread>

#include "engine/ops.h"
#include "engine/random.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

Tensor normal(const Shape& shape, uint64_t seed) {
    return Tensor::from(normal_values(shape.elements(), seed), shape);
}

Tensor spikes(const Shape& shape, uint64_t seed, double rate) {
    return Tensor::from(spike_values(shape.elements(), seed, rate), shape);
}

bool same_bits(const Tensor& a, const Tensor& b) {
    return a.shape() == b.shape() && a.bytes() == b.bytes() &&
           std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

}  // namespace

TEST_CASE("shape: sizes, edits and what does not fit") {
    const Shape s = {2, 3, 4};
    CHECK(s.rank() == 3);
    CHECK(s.elements() == 24);
    CHECK(s.str() == "[2, 3, 4]");
    CHECK(Shape().elements() == 1);
    CHECK(Shape().str() == "[]");
    CHECK(s.with_leading(5) == Shape{5, 2, 3, 4});
    CHECK(s.without_leading() == Shape{3, 4});
    CHECK(s.with(1, 7) == Shape{2, 7, 4});
    CHECK_FALSE(s == Shape{2, 3});
    CHECK_FALSE(s == Shape{2, 3, 5});
    CHECK(contains(error_of([] { Shape{1, 2, 3, 4, 5, 6, 7}; }), "[1, 2, 3, 4, 5, 6, 7]"));
    CHECK(contains(error_of([] { Shape{size_t(1) << 40, size_t(1) << 40}; }), "too many"));
    CHECK(contains(error_of([] { Shape{size_t(1) << 40, 0, size_t(1) << 40}; }), "too many"));
    CHECK(Shape{0, 5}.elements() == 0);
    CHECK(error_of([] { Shape().without_leading(); }) != "");
    CHECK(error_of([&] { s.with(3, 1); }) != "");
}

TEST_CASE("storage: live and peak bytes count tensors, from every thread") {
    Allocator& host = host_allocator();
    const size_t before = host.live_bytes();
    host.reset_peak();
    {
        const Tensor a({1000});
        CHECK(host.live_bytes() == before + 4000);
        CHECK(reinterpret_cast<uintptr_t>(a.raw()) % 64 == 0);
        const Tensor view = a.slice(10, 20), copy = a;
        CHECK(host.live_bytes() == before + 4000);
        { const Tensor b({500}); }
        CHECK(host.live_bytes() == before + 4000);
        CHECK(host.peak_bytes() == before + 6000);
    }
    CHECK(host.live_bytes() == before);
    host.reset_peak();
    CHECK(host.peak_bytes() == before);

    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([i] {
            for (size_t n = 1; n < 500; ++n) {
                Tensor t({n * size_t(i + 1)}, DType::u8);
                std::memset(t.raw(), i, t.bytes());
            }
        });
    for (auto& thread : threads) thread.join();
    CHECK(host.live_bytes() == before);
    const std::string text = error_of([] { Tensor t({size_t(1) << 58}); });
    CHECK(contains(text, "not enough memory"));
    CHECK(contains(text, std::to_string(size_t(1) << 60)));
}

TEST_CASE("storage: blocks of every size are aligned and apart") {
    std::vector<Tensor> kept;
    for (size_t bytes = 0; bytes < 5000; bytes += 37) {
        kept.emplace_back(Shape{bytes}, DType::u8);
        std::memset(kept.back().raw(), int(kept.size() % 251), bytes);
    }
    for (size_t i = 0; i < kept.size(); ++i) {
        CHECK(reinterpret_cast<uintptr_t>(kept[i].raw()) % 64 == 0);
        for (const uint8_t x : kept[i].to_vector<uint8_t>()) REQUIRE(x == (i + 1) % 251);
    }
}

TEST_CASE("tensor: views share, clones do not, misuse is named") {
    Tensor a = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2});
    const Tensor row = a.slice(1, 2), flat = a.reshape({6}), own = a.clone();
    CHECK_FALSE(a.exclusive());
    CHECK(own.exclusive());
    a.data<float>()[2] = 30;
    CHECK(row.to_vector<float>() == std::vector<float>{30, 4});
    CHECK(flat.to_vector<float>()[2] == 30);
    CHECK(own.to_vector<float>()[2] == 3);
    CHECK(a.slice(1, 3).slice(1, 2).to_vector<float>() == std::vector<float>{5, 6});
    CHECK(Tensor::full<int32_t>({2}, 7).to_vector<int32_t>() == std::vector<int32_t>{7, 7});
    CHECK(Tensor::full<double>({1}, 0.25).item() == 0.25);
    CHECK(Tensor::full<int8_t>({1, 1}, -3).item() == -3);
    CHECK(Tensor().elements() == 0);
    CHECK(str(DType::u64) == "u64");

    CHECK(contains(error_of([&] { a.data<double>(); }), "f32 read as f64: [3, 2]"));
    CHECK(contains(error_of([] { Tensor().data<float>(); }), "undefined"));
    CHECK(contains(error_of([&] { a.reshape({4}); }), "[3, 2] to [4]"));
    CHECK(contains(error_of([&] { a.slice(2, 4); }), "rows 2 to 4 of [3, 2]"));
    CHECK(contains(error_of([&] { a.slice(2, 1); }), "rows 2 to 1"));
    CHECK(contains(error_of([] { Tensor::from<float>({1, 2}, {3}); }), "2 values"));
    CHECK(contains(error_of([&] { a.item(); }), "not one element: [3, 2]"));
}

TEST_CASE("the CUDA tables are there exactly where a card is") {
    for (const std::string name : {"cuda", "cuda-vendor"}) {
        CAPTURE(name);
        const auto* table = kernels::find(name.c_str());
        REQUIRE((table != nullptr) == (kernels::cuda_backend() != nullptr));
        if (table != nullptr) {
            CHECK(table->name == name);
            CHECK(table->cuda);
        } else {
            CHECK(kernels::why_unusable(name.c_str()) == kernels::why_no_cuda());
            CHECK(kernels::why_no_cuda() != nullptr);
        }
    }
}

TEST_CASE("device names, and where nothing can run") {
    CHECK(parse_device("cpu") == Device{});
    CHECK(parse_device("cuda") == Device{DeviceKind::cuda, 0});
    CHECK(parse_device("cuda:3").str() == "cuda:3");
    for (const char* bad : {"", "gpu", "cuda:", "cuda:-1", "cuda:1x", "cuda:99999999999"})
        CHECK(contains(error_of([&] { parse_device(bad); }), std::string("'") + bad + "'"));
    CHECK(error_of([] { Compute c(Device{}, -1); }) != "");
    if (kernels::cuda() == nullptr)
        CHECK(contains(error_of([] {
                           Compute c(Device{DeviceKind::cuda, 0});
                       }),
                       "[compute] cuda is not available: "));

    const char* forced = std::getenv("NC_ISA");
    const std::string old = forced == nullptr ? "" : forced;
    setenv("NC_ISA", "mmx", 1);
    const std::string text = error_of([] { Compute c; });
    setenv("NC_ISA", "reference", 1);
    CHECK(std::string(Compute().table->name) == "reference");
    if (forced == nullptr)
        unsetenv("NC_ISA");
    else
        setenv("NC_ISA", old.c_str(), 1);
    CHECK(contains(text, "NC_ISA=mmx cannot be used: "));
}

TEST_CASE("compute: scratch grows, is counted and never shrinks") {
    const size_t before = host_allocator().live_bytes();
    {
        Compute compute;
        CHECK(compute.queue.threads >= 1);
        compute.reserve(1000);
        CHECK(compute.queue.scratch_bytes == 1000);
        CHECK(host_allocator().live_bytes() == before + 1000);
        compute.reserve(10);
        CHECK(compute.queue.scratch_bytes == 1000);
        compute.reserve(5000);
        CHECK(host_allocator().live_bytes() == before + 5000);
        CHECK(compute.zeros({3}).to_vector<float>() == std::vector<float>(3, 0.0f));
    }
    CHECK(host_allocator().live_bytes() == before);
}

TEST_CASE("ops: arithmetic and reductions in both precisions") {
    Compute compute;
    const Tensor a = Tensor::from<float>({1, -2, 3, 4, 5, -6}, {2, 3});
    const Tensor b = Tensor::from<float>({2, 2, 2, -1, -1, -1}, {2, 3});
    const Tensor row = Tensor::from<float>({10, 20, 30}, {3});
    using V = std::vector<float>;
    CHECK(ops::add(compute, a, b).to_vector<float>() == V{3, 0, 5, 3, 4, -7});
    CHECK(ops::sub(compute, a, b).to_vector<float>() == V{-1, -4, 1, 5, 6, -5});
    CHECK(ops::mul(compute, a, b).to_vector<float>() == V{2, -4, 6, -4, -5, 6});
    CHECK(ops::scale(compute, a, -2).to_vector<float>() == V{-2, 4, -6, -8, -10, 12});
    CHECK(ops::clamp(compute, a, -1, 4).to_vector<float>() == V{1, -1, 3, 4, 4, -1});
    CHECK(ops::add_row(compute, a, row).to_vector<float>() == V{11, 18, 33, 14, 25, 24});
    CHECK(ops::mul_row(compute, a, row).to_vector<float>() == V{10, -40, 90, 40, 100, -180});
    Tensor sum = a.clone();
    ops::add_into(compute, sum, b);
    ops::add_scaled_into(compute, sum, a, 0.5);
    CHECK(sum.to_vector<float>() == V{3.5, -1, 6.5, 5, 6.5, -10});
    CHECK(ops::sum(compute, a) == 5);
    CHECK(ops::sum_squares(compute, a) == 91);
    CHECK(ops::sum_rows(compute, a).to_vector<float>() == V{5, 3, -3});
    CHECK(ops::sum_leading(compute, a.reshape({2, 3, 1})).shape() == Shape{3, 1});
    CHECK(ops::mean_leading(compute, a).to_vector<float>() == V{2.5, 1.5, -1.5});
    CHECK(ops::repeat_leading(compute, row, 2).to_vector<float>() == V{10, 20, 30, 10, 20, 30});
    CHECK(ops::argmax(compute, a) == std::vector<int32_t>{2, 1});
    CHECK(ops::matmul(compute, a, b, false, true).to_vector<float>() == V{4, -2, 6, -3});
    const Tensor d = Tensor::from<double>({1, 2, 3, 4}, {2, 2});
    CHECK(ops::matmul(compute, d, d, true, false, Tensor::from<double>({1, 0}, {2}))
              .to_vector<double>() == std::vector<double>{11, 14, 15, 20});
    CHECK(ops::sum(compute, d) == 10);

    CHECK(contains(error_of([&] { ops::add(compute, a, row); }), "[add] shapes differ: [2, 3]"));
    CHECK(contains(error_of([&] { ops::add(compute, a, Tensor()); }), "undefined"));
    CHECK(contains(error_of([&] { ops::add_row(compute, a, b); }), "row [2, 3]"));
    CHECK(contains(error_of([&] { ops::matmul(compute, a, b); }), "[2, 3] times [2, 3]"));
    CHECK(contains(error_of([&] { ops::matmul(compute, a, b, false, true, row); }), "bias [3]"));
    CHECK(contains(error_of([&] { ops::argmax(compute, row); }), "2 sizes wanted: [3]"));
    CHECK(contains(error_of([&] { ops::clamp(compute, a, 2, 1); }), "bounds"));
    CHECK(contains(error_of([&] { ops::mean_leading(compute, Tensor({0, 2})); }), "[0, 2]"));
    CHECK(contains(error_of([&] { ops::scale(compute, Tensor({2}, DType::i32), 2); }), "i32"));
    CHECK(error_of([&] { ops::add(compute, d, Tensor({2, 2})); }) != "");
}

// The convolution written down once more, in double, from the output's side.
static std::vector<double> plain_conv(const Tensor& x, const Tensor& w, const Tensor& bias,
                                      const ops::ConvOptions& o) {
    const kernels::ConvShape s = ops::conv_shape(x.shape(), w.shape(), o);
    const size_t in_group = s.cin / s.groups, out_group = s.cout / s.groups;
    std::vector<double> y;
    for (size_t n = 0; n < s.n; ++n)
        for (size_t i = 0; i < s.out_h(); ++i)
            for (size_t j = 0; j < s.out_w(); ++j)
                for (size_t c = 0; c < s.cout; ++c) {
                    double sum = bias.data<float>()[c];
                    for (size_t p = 0; p < s.kh; ++p)
                        for (size_t q = 0; q < s.kw; ++q)
                            for (size_t k = 0; k < in_group; ++k) {
                                const size_t row = i * s.stride_h + p * s.dilation_h;
                                const size_t col = j * s.stride_w + q * s.dilation_w;
                                if (row < s.pad_h || row >= s.h + s.pad_h || col < s.pad_w ||
                                    col >= s.w + s.pad_w)
                                    continue;
                                const size_t at =
                                    ((n * s.h + row - s.pad_h) * s.w + col - s.pad_w) * s.cin +
                                    c / out_group * in_group + k;
                                sum +=
                                    double(x.data<float>()[at]) *
                                    w.data<float>()[((p * s.kw + q) * in_group + k) * s.cout + c];
                            }
                    y.push_back(sum);
                }
    return y;
}

TEST_CASE("ops: convolution with stride, padding, dilation and groups") {
    Compute compute;
    const std::vector<ops::ConvOptions> cases = {
        {},
        {.pad_h = 1, .pad_w = 1},
        {.stride_h = 2, .stride_w = 3, .pad_h = 2, .pad_w = 0},
        {.pad_h = 1, .pad_w = 2, .dilation_h = 2, .dilation_w = 1},
        {.stride_h = 1, .stride_w = 2, .pad_h = 1, .pad_w = 1, .groups = 2}};
    for (const auto& o : cases) {
        const Tensor x = normal({2, 7, 8, 4}, 1), w = normal({3, 2, 4 / o.groups, 6}, 2);
        const Tensor bias = normal({6}, 3);
        const Tensor y = ops::conv(compute, x, w, bias, o);
        const std::vector<double> wanted = plain_conv(x, w, bias, o);
        REQUIRE(y.elements() == wanted.size());
        for (size_t i = 0; i < wanted.size(); ++i)
            REQUIRE(std::abs(y.data<float>()[i] - wanted[i]) < 1e-5);
    }
    const Shape x = {1, 4, 4, 4};
    const auto refused = [&](const Shape& in, const Shape& w, const ops::ConvOptions& o) {
        return error_of([&] { ops::conv_shape(in, w, o); });
    };
    CHECK(contains(refused(x, {3, 3, 5, 2}, {}), "channels differ: input [1, 4, 4, 4], weight"));
    CHECK(contains(refused({4, 4, 4}, {3, 3, 4, 2}, {}), "[N, H, W, C]"));
    CHECK(contains(refused(x, {3, 3, 4}, {}), "weight is not"));
    CHECK(contains(refused(x, {5, 3, 4, 2}, {}), "larger than the padded input"));
    CHECK(contains(refused(x, {3, 3, 4, 2}, {.stride_h = 0}), "zero"));
    CHECK(contains(refused(x, {3, 3, 2, 3}, {.groups = 2}), "groups do not divide"));
    CHECK(contains(refused(x, {3, 3, 4, 2}, {.pad_h = size_t(1) << 63}), "too large"));
    CHECK(contains(refused(x, {3, 3, 4, 2}, {.dilation_w = size_t(1) << 62}), "too large"));
    CHECK(
        contains(error_of([&] {
                     ops::conv(compute, normal(x, 1), normal({3, 3, 4, 2}, 1), normal({3}, 1), {});
                 }),
                 "bias [3]"));
    CHECK(contains(error_of([&] {
                       ops::conv_backward_input(compute, x, normal({3, 3, 4, 2}, 1),
                                                normal({1, 3, 2, 2}, 1), {});
                   }),
                   "[1, 3, 2, 2] does not belong to an output [1, 2, 2, 2]"));
}

TEST_CASE("ops: pools and what does not fit them") {
    Compute compute;
    const Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 3, 3, 1});
    using V = std::vector<float>;
    const ops::PoolOptions overlapping = {.stride_h = 1, .stride_w = 1};
    CHECK(ops::average_pool(compute, x, overlapping).to_vector<float>() == V{3, 4, 6, 7});
    CHECK(ops::average_pool(compute, x, {.pad_h = 1, .pad_w = 1}).to_vector<float>() ==
          V{0.25, 1.25, 2.75, 7});
    const ops::MaxPool max = ops::max_pool(compute, x, {.pad_h = 1, .pad_w = 1});
    CHECK(max.y.to_vector<float>() == V{1, 3, 7, 9});
    CHECK(max.index.to_vector<int32_t>() == std::vector<int32_t>{0, 2, 6, 8});
    CHECK(contains(error_of([&] { ops::average_pool(compute, x, {.kh = 4}); }), "larger"));
    CHECK(contains(error_of([&] { ops::average_pool(compute, x, {.pad_h = 2}); }), "half"));
    CHECK(contains(error_of([&] { ops::max_pool(compute, x, {.stride_w = 0}); }), "zero"));
    CHECK(contains(error_of([&] { ops::max_pool(compute, x.reshape({9}), {}); }), "[9]"));
}

TEST_CASE("canonical sums: every path gives the same bits") {
    Compute compute;
    for (const double rate : {0.0, 0.05, 0.29, 0.6, 1.0}) {
        const ops::CanonicalInput rows = {spikes({9, 70}, 1, rate), true};
        const Tensor w = normal({70, 33}, 2), bias = normal({33}, 3);
        const Tensor dense = ops::canonical_linear(compute, rows, w, bias, ops::SpikePath::dense);
        const ops::CanonicalInput image = {spikes({2, 6, 5, 4}, 4, rate), true};
        const Tensor kernel = normal({3, 3, 4, 10}, 5);
        const ops::ConvOptions options = {.stride_h = 2, .pad_h = 1, .pad_w = 1};
        const Tensor image_dense =
            ops::canonical_conv(compute, image, kernel, {}, options, ops::SpikePath::dense);
        const ops::ConvOptions grouped = {.pad_h = 1, .groups = 2};
        const Tensor half = normal({3, 3, 2, 10}, 6);
        const Tensor grouped_dense =
            ops::canonical_conv(compute, image, half, {}, grouped, ops::SpikePath::dense);
        for (const auto path : {ops::SpikePath::event, ops::SpikePath::automatic}) {
            CHECK(same_bits(ops::canonical_linear(compute, rows, w, bias, path), dense));
            CHECK(same_bits(ops::canonical_conv(compute, image, kernel, {}, options, path),
                            image_dense));
            CHECK(same_bits(ops::canonical_conv(compute, image, half, {}, grouped, path),
                            grouped_dense));
        }
        Compute reference(kernels::reference());
        CHECK(same_bits(ops::canonical_linear(reference, rows, w, bias, ops::SpikePath::automatic),
                        dense));
    }
    // Values other than 0 and 1 cannot be events: asked for or not, they run densely.
    const ops::CanonicalInput analog = {normal({3, 8}, 7), false};
    const Tensor w = normal({8, 5}, 8);
    CHECK(same_bits(ops::canonical_linear(compute, analog, w, {}, ops::SpikePath::event),
                    ops::canonical_linear(compute, analog, w, {}, ops::SpikePath::dense)));
    CHECK(contains(error_of([&] {
                       ops::canonical_linear(compute, analog, normal({9, 5}, 1), {},
                                             ops::SpikePath::automatic);
                   }),
                   "input [3, 8], weight [9, 5]"));
}

TEST_CASE("random: the published vector, resuming, and uniform draws") {
    Random zero(0);  // Random123's known answer for key 0, counter 0
    CHECK(zero.bits() == 0x6627e8d5u);
    CHECK(zero.bits() == 0xe169c58du);
    CHECK(zero.bits() == 0xbc57ac4cu);
    CHECK(zero.bits() == 0x9b00dbd8u);

    Random a(42, 3);
    std::vector<uint32_t> all;
    for (int i = 0; i < 50; ++i) all.push_back(a.bits());
    for (uint64_t at = 0; at < 50; ++at) {
        Random b(42, 3, at);
        CHECK(b.bits() == all[at]);
        CHECK(b.counter() == at + 1);
    }
    CHECK(Random(42, 4).bits() != all[0]);
    CHECK(Random(43, 3).bits() != all[0]);

    Random r(7);
    std::vector<int> hits(6);
    double sum = 0, squares = 0, uniforms = 0;
    const int n = 60000;
    for (int i = 0; i < n; ++i) {
        ++hits[r.below(6)];
        const double x = r.normal(), u = r.uniform();
        REQUIRE((u >= 0 && u < 1));
        uniforms += u;
        sum += x;
        squares += x * x;
    }
    for (const int h : hits) CHECK(std::abs(h - n / 6) < 500);  // five standard deviations: 457
    CHECK(std::abs(uniforms / n - 0.5) < 0.006);                // 5 / sqrt(12 n)
    CHECK(std::abs(sum / n) < 0.021);                           // 5 / sqrt(n)
    CHECK(std::abs(squares / n - 1) < 0.029);                   // 5 sqrt(2 / n)
    const uint64_t big = (uint64_t(1) << 40) + 1;
    for (int i = 0; i < 100; ++i) CHECK(r.below(big) < big);
    CHECK(r.below(1) == 0);

    const std::vector<uint32_t> p = r.permutation(1000);
    CHECK(std::set<uint32_t>(p.begin(), p.end()).size() == 1000);
    CHECK(*std::max_element(p.begin(), p.end()) == 999);
    CHECK_FALSE(std::is_sorted(p.begin(), p.end()));
    CHECK(r.permutation(0).empty());
}
