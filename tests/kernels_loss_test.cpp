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

// One class a row, the rest of it spread: evenly in even rows, by a ramp in odd ones.
std::vector<float> targets_of(size_t rows, size_t cols, float spread) {
    std::vector<float> out(rows * cols);
    const double ramp = double(cols) * double(cols + 1) / 2;
    for (size_t r = 0; r < rows; ++r) {
        for (size_t c = 0; c < cols; ++c)
            out[r * cols + c] =
                spread * float(r % 2 == 0 ? 1 / double(cols) : double(c + 1) / ramp);
        out[r * cols + (r * 7 + 1) % cols] += 1 - spread;
    }
    return out;
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
                for (const float smoothing : {0.0f, 0.1f, 1.0f}) {
                    if (cols == 0) continue;
                    INFO(std::string(table->name)
                         << " rows " << rows << " cols " << cols << " s " << smoothing);
                    const size_t n = rows * cols;
                    const auto z = hard_values(n, 4);
                    const auto targets = targets_of(rows, cols, smoothing);
                    std::vector<float> want(rows), slope(n);
                    TestQueue q(2);
                    Guarded<float> got(rows), alone(rows), got_slope(n);
                    reference().loss.cross_entropy(q, z.data(), targets.data(), want.data(),
                                                   slope.data(), rows, cols);
                    table->loss.cross_entropy(q, z.data(), targets.data(), got, got_slope, rows,
                                              cols);
                    table->loss.cross_entropy(q, z.data(), targets.data(), alone, nullptr, rows,
                                              cols);
                    CHECK(got.ok());
                    CHECK(alone.ok());
                    CHECK(got_slope.ok());
                    CHECK(first_difference(got.data(), alone.data(), rows) == rows);
                    for (size_t r = 0; r < rows; ++r) {
                        const float* row = z.data() + r * cols;
                        const double top = *std::max_element(row, row + cols);
                        double mean = 0;  // of the depth, by the targets
                        size_t wrong = 0;
                        for (size_t c = 0; c < cols; ++c) {
                            const double depth = top - double(row[c]), p = std::exp(-depth);
                            const double target = double(targets[r * cols + c]);
                            mean += depth * target;
                            // p <= e^-depth; the difference and the mean are rounded
                            const double bound =
                                (relative(depth, cols) * p + 4 * unit * (target + p)) /
                                double(rows);
                            wrong += !(std::abs(double(got_slope[r * cols + c]) -
                                                double(slope[r * cols + c])) <= bound + 0x1p-140);
                        }
                        CHECK(wrong == 0);
                        // The log of a sum that errs by 8 + cols / 8; each term's difference and
                        // product rounded, the terms added in vectors of at least 4 and then those.
                        const double bound =
                            unit * (8 + double(cols) / 8 + 2 * mean +
                                    (3 + double(cols) / 8) * std::abs(double(want[r])));
                        CHECK(std::abs(double(got[r]) - double(want[r])) <= bound);
                    }
                }
}

TEST_CASE("cross-entropy by hand") {
    size_t count = 0;
    const auto* tables = usable(&count);
    const float z[] = {0, 0, 0, 0};
    const float targets[] = {0, 0.25f, 0.75f, 0};
    for (size_t t = 0; t < count; ++t) {
        if (tables[t]->cuda) continue;
        INFO(std::string(tables[t]->name));
        TestQueue q;
        float loss, slope[4];
        tables[t]->loss.cross_entropy(q, z, targets, &loss, slope, 1, 4);
        CHECK(loss == doctest::Approx(std::log(4.0)));
        CHECK(slope[0] == doctest::Approx(0.25));
        CHECK(slope[2] == doctest::Approx(0.25 - 0.75));
    }
}

namespace {

// Parameters of these sizes with rates, decays and lower limits of their own, stepped three times.
struct Stepped {
    std::vector<Guarded<float>> w, m, v;
    explicit Stepped(const std::vector<size_t>& counts) {
        for (size_t i = 0; i < counts.size(); ++i) {
            w.emplace_back(hard_values(counts[i], i + 1));
            m.emplace_back(hard_values(counts[i], i + 2));
            v.emplace_back(hard_values(counts[i], i + 3));
            for (size_t k = 0; k < counts[i]; ++k) v[i][k] = std::abs(v[i][k]);
        }
    }
    void step(const Table<float>& table, int threads, bool nesterov, bool adamw) {
        TestQueue q(threads);
        const float none = -std::numeric_limits<float>::infinity();
        for (int step = 1; step <= 3; ++step) {
            std::vector<Guarded<float>> g;
            std::vector<OptimSlice<float>> slices;
            for (size_t i = 0; i < w.size(); ++i)
                g.emplace_back(hard_values(w[i].size(), 10 * uint64_t(step) + i));
            for (size_t i = 0; i < w.size(); ++i)
                slices.push_back({.g = g[i],
                                  .w = w[i],
                                  .m = m[i],
                                  .v = adamw ? v[i].data() : nullptr,
                                  .n = w[i].size(),
                                  .lr = 0.1f / float(i + 1),
                                  .weight_decay = i % 3 == 1 ? 0 : 5e-3f,
                                  .lowest = i % 3 == 2 ? -0.25f : none});
            if (adamw)
                table.optim.adamw(q, slices.data(), slices.size(), 0.7f, 0.9f, 0.999f, 1e-8f,
                                  step == 3 ? 100000 : step);
            else
                table.optim.sgd(q, slices.data(), slices.size(), 0.7f, 0.9f, nesterov);
        }
    }
};

void check_steps(const Table<float>& table, int threads, bool nesterov,
                 const std::vector<size_t>& counts) {
    for (const bool adamw : {false, true}) {
        Stepped want(counts), got(counts);
        want.step(reference(), 1, nesterov, adamw);
        got.step(table, threads, nesterov, adamw);
        size_t wrong = 0;
        for (size_t i = 0; i < counts.size(); ++i) {
            const size_t n = counts[i];
            wrong += !got.w[i].ok() || !got.m[i].ok() || !got.v[i].ok();
            wrong += first_difference(want.w[i].data(), got.w[i].data(), n) != n;
            wrong += first_difference(want.m[i].data(), got.m[i].data(), n) != n;
            wrong += first_difference(want.v[i].data(), got.v[i].data(), n) != n;
        }
        CHECK(wrong == 0);
    }
}

}  // namespace

TEST_CASE("optimiser steps give the reference's bits") {
    for (const auto* table : tables_to_test()) {
        std::vector<size_t> all(std::begin(sizes), std::end(sizes));
        all.push_back(70001);
        for (const size_t n : all)
            for (const int threads : {1, 3})
                for (const bool nesterov : {false, true}) {
                    INFO(std::string(table->name) << " n " << n << " threads " << threads);
                    check_steps(*table, threads, nesterov, {n});
                }
        // More slices than a launch has room for, of all sizes at once, some empty.
        std::vector<size_t> mixed;
        for (size_t i = 0; i < 120; ++i) mixed.push_back(all[i * 5 % all.size()] % 5000);
        check_steps(*table, 2, true, mixed);
        check_steps(*table, 2, true, {});
    }
}

TEST_CASE("optimiser steps by hand") {
    size_t count = 0;
    const auto* tables = usable(&count);
    for (size_t t = 0; t < count; ++t) {
        if (tables[t]->cuda) continue;
        INFO(std::string(tables[t]->name));
        TestQueue q;
        const float g = 2, none = -std::numeric_limits<float>::infinity();
        float w = 1, m = 4, v = 0;
        OptimSlice<float> s = {&g, &w, &m, &v, 1, 0.25f, 1, none};
        tables[t]->optim.sgd(q, &s, 1, 0.5f, 0.5f, false);
        CHECK(m == 4.0f);  // 0.5 * 4 + (2 * 0.5 + 1 * 1)
        CHECK(w == 0.0f);  // 1 - 0.25 * 4
        w = 1, m = 4;
        tables[t]->optim.sgd(q, &s, 1, 0.5f, 0.5f, true);
        CHECK(w == 0.0f);  // 1 - 0.25 * (2 + 0.5 * 4)
        w = 1, m = 4, s.lowest = 0.5f;
        tables[t]->optim.sgd(q, &s, 1, 0.5f, 0.5f, true);
        CHECK(w == 0.5f);
        w = 1, m = 0;
        s.lr = 0.1f, s.weight_decay = 0.5f, s.lowest = none;
        tables[t]->optim.adamw(q, &s, 1, 1.0f, 0.9f, 0.999f, 0.0f, 1);
        CHECK(w == doctest::Approx(1 - 0.05 - 0.1));  // the first step moves by lr
        w = 1, m = 0, v = 0, s.lowest = 2;
        tables[t]->optim.adamw(q, &s, 1, 1.0f, 0.9f, 0.999f, 0.0f, 1);
        CHECK(w == 2.0f);
    }
}
