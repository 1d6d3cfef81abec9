// The loss and optim families: softmax and cross-entropy within derived bounds, optimiser steps
// bitwise.
#include <algorithm>

#include "tests/check.h"

using namespace nc::kernels;
using namespace nc::test;

namespace {

const size_t row_counts[] = {0, 1, 3, 33};
const double unit = 0x1p-23;

// Relative error of e^(z - top) / sum: z - top is rounded, two exponentials err by 2 ulp each, the
// sum by one rounding per vector of at least 4 and its lanes, the quotient by one.
double relative(double below_top, size_t cols) {
    return unit * (8 + below_top / 2 + double(cols) / 8);
}

}  // namespace

TEST_CASE("softmax stays within its bound and sums to 1") {
    for (const auto* table : tables_to_test())
        for (const size_t cols : sizes)
            for (const size_t rows : row_counts) {
                INFO(std::string(table->name) << " rows " << rows << " cols " << cols);
                const size_t n = rows * cols;
                auto z = hard_values(n, 1);
                for (size_t i = 0; i < n; i += 7) z[i] *= 20;
                std::vector<float> want(n);
                TestQueue q(2);
                Guarded<float> got(n);
                reference().loss.softmax(q, z.data(), want.data(), rows, cols);
                table->loss.softmax(q, z.data(), got, rows, cols);
                CHECK(got.ok());
                for (size_t r = 0; r < rows && cols > 0; ++r) {
                    const float* row = z.data() + r * cols;
                    const double top = *std::max_element(row, row + cols);
                    double total = 0;
                    size_t wrong = 0;
                    for (size_t c = 0; c < cols; ++c) {
                        const double w = want[r * cols + c], g = got[r * cols + c];
                        wrong += !(std::abs(g - w) <=
                                   relative(top - double(row[c]), cols) * w + 4 * 0x1p-149);
                        total += g;
                    }
                    CHECK(wrong == 0);
                    CHECK(std::abs(total - 1) <= unit * (8 + double(cols) / 8));
                }
            }
}

TEST_CASE("cross-entropy and its gradient stay within their bounds") {
    for (const auto* table : tables_to_test())
        for (const size_t cols : sizes)
            for (const size_t rows : row_counts)
                for (const float smoothing : {0.0f, 0.1f}) {
                    if (cols == 0) continue;
                    INFO(std::string(table->name)
                         << " rows " << rows << " cols " << cols << " s " << smoothing);
                    const size_t n = rows * cols;
                    const auto z = hard_values(n, 4);
                    std::vector<int32_t> labels(rows);
                    for (size_t r = 0; r < rows; ++r) labels[r] = int32_t((r * 7 + 1) % cols);
                    std::vector<float> want(rows), slope(n);
                    TestQueue q(2);
                    Guarded<float> got(rows), alone(rows), got_slope(n);
                    reference().loss.cross_entropy(q, z.data(), labels.data(), smoothing,
                                                   want.data(), slope.data(), rows, cols);
                    table->loss.cross_entropy(q, z.data(), labels.data(), smoothing, got, got_slope,
                                              rows, cols);
                    table->loss.cross_entropy(q, z.data(), labels.data(), smoothing, alone, nullptr,
                                              rows, cols);
                    CHECK(got.ok());
                    CHECK(alone.ok());
                    CHECK(got_slope.ok());
                    CHECK(first_difference(got.data(), alone.data(), rows) == rows);
                    for (size_t r = 0; r < rows; ++r) {
                        const float* row = z.data() + r * cols;
                        const double top = *std::max_element(row, row + cols);
                        const double below = top - double(row[labels[r]]);
                        double mean = 0;
                        size_t wrong = 0;
                        for (size_t c = 0; c < cols; ++c) {
                            const double depth = top - double(row[c]), p = std::exp(-depth);
                            const double target = c == size_t(labels[r]) ? 1 : double(smoothing);
                            mean += depth / double(cols);
                            // p <= e^-depth; the target's parts and the mean are rounded
                            const double bound =
                                (relative(depth, cols) * p + 4 * unit * (target + p)) /
                                double(rows);
                            wrong += !(std::abs(double(got_slope[r * cols + c]) -
                                                double(slope[r * cols + c])) <= bound + 0x1p-140);
                        }
                        CHECK(wrong == 0);
                        const double bound =
                            unit * (8 + double(cols) / 8 + 2 * below +
                                    2 * double(smoothing) * mean + 2 * std::abs(double(want[r])));
                        CHECK(std::abs(double(got[r]) - double(want[r])) <= bound);
                    }
                }
}

TEST_CASE("cross-entropy by hand") {
    size_t count = 0;
    const auto* tables = usable(&count);
    const float z[] = {0, 0, 0, 0};
    const int32_t label = 2;
    for (size_t t = 0; t < count; ++t) {
        if (tables[t]->cuda) continue;
        INFO(std::string(tables[t]->name));
        TestQueue q;
        float loss, slope[4];
        for (const float smoothing : {0.0f, 0.2f}) {
            tables[t]->loss.cross_entropy(q, z, &label, smoothing, &loss, slope, 1, 4);
            CHECK(loss == doctest::Approx(std::log(4.0)));
            CHECK(slope[0] == doctest::Approx(0.25 - smoothing / 4));
            CHECK(slope[2] == doctest::Approx(0.25 - (1 - smoothing) - smoothing / 4));
        }
    }
}

TEST_CASE("optimiser steps give the reference's bits") {
    for (const auto* table : tables_to_test()) {
        std::vector<size_t> all(std::begin(sizes), std::end(sizes));
        all.push_back(70001);
        for (const size_t n : all)
            for (const int threads : {1, 3})
                for (const bool nesterov : {false, true}) {
                    INFO(std::string(table->name) << " n " << n << " threads " << threads);
                    const auto w = hard_values(n, 1), m = hard_values(n, 2);
                    auto v = hard_values(n, 3);
                    for (auto& x : v) x = std::abs(x);
                    TestQueue plain, q(threads);
                    Guarded<float> w1(w), m1(m), w2(w), m2(m);
                    Guarded<float> a1(w), b1(m), c1(v), a2(w), b2(m), c2(v);
                    for (int step = 1; step <= 3; ++step) {
                        const auto g = hard_values(n, uint64_t(10 + step));
                        reference().optim.sgd(plain, g.data(), 0.7f, 0.1f, 0.9f, nesterov, 5e-4f,
                                              w1, m1, n);
                        table->optim.sgd(q, g.data(), 0.7f, 0.1f, 0.9f, nesterov, 5e-4f, w2, m2, n);
                        const int64_t count = step == 3 ? 100000 : step;
                        reference().optim.adamw(plain, g.data(), 0.7f, 3e-3f, 0.9f, 0.999f, 1e-8f,
                                                1e-2f, count, a1, b1, c1, n);
                        table->optim.adamw(q, g.data(), 0.7f, 3e-3f, 0.9f, 0.999f, 1e-8f, 1e-2f,
                                           count, a2, b2, c2, n);
                    }
                    for (const auto* out : {&w2, &m2, &a2, &b2, &c2}) CHECK(out->ok());
                    CHECK(first_difference(w1.data(), w2.data(), n) == n);
                    CHECK(first_difference(m1.data(), m2.data(), n) == n);
                    CHECK(first_difference(a1.data(), a2.data(), n) == n);
                    CHECK(first_difference(b1.data(), b2.data(), n) == n);
                    CHECK(first_difference(c1.data(), c2.data(), n) == n);
                }
    }
}

TEST_CASE("optimiser steps by hand") {
    size_t count = 0;
    const auto* tables = usable(&count);
    for (size_t t = 0; t < count; ++t) {
        if (tables[t]->cuda) continue;
        INFO(std::string(tables[t]->name));
        TestQueue q;
        const float g = 2;
        float w = 1, m = 4, v = 0;
        tables[t]->optim.sgd(q, &g, 0.5f, 0.25f, 0.5f, false, 1.0f, &w, &m, 1);
        CHECK(m == 4.0f);  // 0.5 * 4 + (2 * 0.5 + 1 * 1)
        CHECK(w == 0.0f);  // 1 - 0.25 * 4
        w = 1, m = 4;
        tables[t]->optim.sgd(q, &g, 0.5f, 0.25f, 0.5f, true, 1.0f, &w, &m, 1);
        CHECK(w == 0.0f);  // 1 - 0.25 * (2 + 0.5 * 4)
        w = 1, m = 0;
        tables[t]->optim.adamw(q, &g, 1.0f, 0.1f, 0.9f, 0.999f, 0.0f, 0.5f, 1, &w, &m, &v, 1);
        CHECK(w == doctest::Approx(1 - 0.05 - 0.1));  // the first step moves by lr
    }
}
