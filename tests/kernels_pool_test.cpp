// The pool and image families: every table gives the reference's bits.
#include "tests/check.h"

using namespace nc::kernels;
using namespace nc::test;

namespace {

// n, h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w: without pooling over channels.
const PoolShape windows[] = {
    {1, 1, 1, 0, 1, 1, 1, 1},       {2, 4, 4, 0, 2, 2, 2, 2},       {3, 5, 7, 0, 2, 2, 2, 2},
    {1, 7, 6, 0, 3, 3, 2, 2, 1, 1}, {2, 6, 5, 0, 3, 3, 1, 1, 1, 1}, {2, 4, 4, 0, 4, 4, 4, 4},
    {1, 7, 5, 0, 7, 5, 1, 1},       {1, 9, 8, 0, 3, 2, 1, 3, 2, 1}, {2, 8, 9, 0, 2, 3, 3, 2, 0, 1},
    {0, 4, 4, 0, 2, 2, 2, 2},       {5, 28, 28, 0, 2, 2, 2, 2},
};
const size_t channels[] = {1, 2, 3, 6, 8, 10, 15, 16, 17, 31, 32, 33, 64};

// Values with many ties, zeros of both signs, infinities and some NaN.
std::vector<float> tied_values(size_t n, uint64_t seed) {
    auto v = hard_values(n, seed);
    for (size_t i = 0; i < n; ++i) {
        if (i % 5 < 3) v[i] = std::round(v[i]);
        if (i % 97 == 11) v[i] = std::nanf("");
        if (i % 89 == 3) v[i] = -std::numeric_limits<float>::infinity();
    }
    return v;
}

}  // namespace

TEST_CASE("pooling and its gradients give the reference's bits") {
    TestQueue plain;
    const Pool<float>& ref = reference().pool;
    for (const PoolShape& window : windows)
        for (const size_t c : channels) {
            PoolShape s = window;
            s.c = c;
            const size_t in = s.n * s.h * s.w * c, out = s.n * s.out_h() * s.out_w() * c;
            const auto x = tied_values(in, c), dy = hard_values(out, c + 1);
            std::vector<float> y(out), top(out), dx(in), dtop(in);
            std::vector<int32_t> index(out);
            ref.average(plain, x.data(), y.data(), s);
            ref.average_backward(plain, dy.data(), dx.data(), s);
            ref.max(plain, x.data(), top.data(), index.data(), s);
            ref.max_backward(plain, dy.data(), index.data(), dtop.data(), s);
            for (const auto* table : tables_to_test())
                for (const int threads : {1, 3}) {
                    INFO(std::string(table->name)
                         << " " << s.n << "x" << s.h << "x" << s.w << "x" << c << " window " << s.kh
                         << "x" << s.kw << " threads " << threads);
                    TestQueue q(threads);
                    Guarded<float> got(out), got_top(out), no_index(out), got_dx(in), got_dtop(in);
                    Guarded<int32_t> got_index(out);
                    table->pool.average(q, x.data(), got, s);
                    table->pool.average_backward(q, dy.data(), got_dx, s);
                    table->pool.max(q, x.data(), got_top, got_index, s);
                    table->pool.max(q, x.data(), no_index, nullptr, s);
                    table->pool.max_backward(q, dy.data(), index.data(), got_dtop, s);
                    for (const auto* v : {&got, &got_top, &no_index, &got_dx, &got_dtop})
                        CHECK(v->ok());
                    CHECK(got_index.ok());
                    CHECK(first_bit_difference(y.data(), got.data(), out) == out);
                    CHECK(first_bit_difference(top.data(), got_top.data(), out) == out);
                    CHECK(first_bit_difference(top.data(), no_index.data(), out) == out);
                    CHECK(index == got_index.values());
                    CHECK(first_bit_difference(dx.data(), got_dx.data(), in) == in);
                    CHECK(first_bit_difference(dtop.data(), got_dtop.data(), in) == in);
                }
        }
}

TEST_CASE("large pools do not depend on the number of threads") {
    const PoolShape shapes[] = {{16, 32, 32, 16, 2, 2, 2, 2}, {16, 28, 28, 6, 2, 2, 2, 2}};
    for (const PoolShape& s : shapes)
        for (const auto* table : tables_to_test()) {
            const size_t in = s.n * s.h * s.w * s.c, out = s.n * s.out_h() * s.out_w() * s.c;
            const auto x = tied_values(in, 1), dy = hard_values(out, 2);
            std::vector<float> y, dx;
            for (const int threads : {1, 2, 5}) {
                TestQueue q(threads);
                Guarded<float> got(out), got_dx(in);
                table->pool.average(q, x.data(), got, s);
                table->pool.average_backward(q, dy.data(), got_dx, s);
                if (threads == 1) {
                    y = got.values();
                    dx = got_dx.values();
                }
                CHECK(first_bit_difference(y.data(), got.data(), out) == out);
                CHECK(first_bit_difference(dx.data(), got_dx.data(), in) == in);
            }
        }
}

TEST_CASE("pooling by hand: padding counts in the average, never wins the maximum") {
    size_t count = 0;
    const auto* tables = usable(&count);
    const PoolShape s = {1, 2, 2, 1, 2, 2, 2, 2, 1, 1};
    const float x[] = {-1, -2, -3, -4};
    for (size_t t = 0; t < count; ++t) {
        if (tables[t]->cuda) continue;
        INFO(std::string(tables[t]->name));
        TestQueue q;
        float y[4], dx[4];
        int32_t index[4];
        tables[t]->pool.average(q, x, y, s);
        for (size_t i = 0; i < 4; ++i) CHECK(y[i] == x[i] / 4);
        tables[t]->pool.max(q, x, y, index, s);
        const float dy[] = {10, 20, 30, 40};
        tables[t]->pool.max_backward(q, dy, index, dx, s);
        for (size_t i = 0; i < 4; ++i) {
            CHECK(y[i] == x[i]);
            CHECK(index[i] == int32_t(i));
            CHECK(dx[i] == dy[i]);
        }
    }
}

TEST_CASE("augmentation gives the reference's bits") {
    std::mt19937 random(5);
    for (const size_t c : {size_t(1), size_t(2), size_t(3), size_t(4), size_t(7), size_t(300)})
        for (const size_t side : {size_t(1), size_t(7), size_t(28), size_t(32), size_t(100)}) {
            if (c * side > 8000) continue;
            const size_t h = side, w = side + side / 3, stored = 3, n = 40;
            std::vector<uint8_t> images(stored * h * w * c);
            for (auto& b : images) b = uint8_t(random());
            std::vector<float> scale = normal_values(c, 1, 0.02), shift = normal_values(c, 2);
            std::vector<Augment> samples(n);
            const auto draw = [&](size_t range) {
                return int32_t(random() % (3 * range + 1)) - int32_t(range + range / 2);
            };
            for (size_t i = 0; i < n; ++i)
                samples[i] = {int32_t(random() % stored),
                              draw(i % 4 ? 4 : h),
                              draw(i % 4 ? 4 : w),
                              int32_t(i % 2),
                              draw(h),
                              draw(w),
                              draw(h),
                              draw(w)};
            samples[0] = {0, 0, 0, 0, 0, 0, 0, 0};
            const size_t size = n * h * w * c;
            std::vector<float> want(size);
            TestQueue plain;
            reference().image.augment(plain, images.data(), samples.data(), scale.data(),
                                      shift.data(), want.data(), n, h, w, c);
            CHECK(want[0] == float(images[0]) * scale[0] + shift[0]);
            for (const auto* table : tables_to_test())
                for (const int threads : {1, 3}) {
                    INFO(std::string(table->name) << " " << h << "x" << w << "x" << c);
                    TestQueue q(threads);
                    Guarded<float> got(size);
                    table->image.augment(q, images.data(), samples.data(), scale.data(),
                                         shift.data(), got, n, h, w, c);
                    CHECK(got.ok());
                    CHECK(first_difference(want.data(), got.data(), size) == size);
                }
        }
}
