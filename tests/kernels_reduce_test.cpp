// The reduce and norm families: sums within the bound of their tree, the same on every vector table
// and for every number of threads; argmax exactly.
#include "tests/check.h"

using namespace nc::kernels;
using namespace nc::test;

namespace {

struct Rows {
    size_t rows, cols;
};

const double half_ulp = 0x1p-24;
// Additions one addend of a column passes through in float: 64 in a block, 2 for the four rows
// before, 6 for the halves after; the blocks are added in double.
const double chain = 64 + 2 + 6;

const Rows shapes[] = {{0, 1},    {0, 6},   {1, 1},     {1, 1000},  {3, 3},    {17, 2},
                       {100, 6},  {33, 10}, {65, 16},   {31, 17},   {1000, 1}, {300, 20},
                       {40, 33},  {7, 63},  {9, 64},    {9, 65},    {5, 100},  {3, 1023},
                       {5000, 6}, {700, 8}, {1100, 64}, {260, 1000}};

}  // namespace

TEST_CASE("sums stay within the bound of their tree, whatever the threads") {
    for (const Rows& shape : shapes) {
        const size_t rows = shape.rows, cols = shape.cols;
        const size_t n = rows * cols;
        const auto a = hard_values(n, 7);
        TestQueue plain;
        std::vector<float> want(cols), agreed;
        reference().reduce.sum_rows(plain, a.data(), want.data(), rows, cols);
        for (const auto* table : tables_to_test())
            for (const int threads : {1, 2, 3}) {
                INFO(std::string(table->name)
                     << " rows " << rows << " cols " << cols << " threads " << threads);
                TestQueue q(threads);
                q.reserve(table->reduce.sum_rows_scratch(rows, cols));
                Guarded<float> got(cols);
                table->reduce.sum_rows(q, a.data(), got, rows, cols);
                CHECK(got.ok());
                for (size_t c = 0; c < cols; ++c) {
                    double size = 0;
                    for (size_t r = 0; r < rows; ++r) size += std::abs(double(a[r * cols + c]));
                    CHECK(std::abs(double(got[c]) - double(want[c])) <=
                          (chain + 2) * half_ulp * size);
                }
                if (agreed.empty()) agreed = got.values();
                CHECK(first_difference(agreed.data(), got.data(), cols) == cols);
            }
    }
}

TEST_CASE("sum and sum of squares of a whole array") {
    std::vector<size_t> all(std::begin(sizes), std::end(sizes));
    all.insert(all.end(), {16384, 16385, 100001, 400000});
    for (const size_t n : all) {
        const auto a = hard_values(n, 3);
        double size = 0, squares = 0;
        for (const float v : a) {
            size += std::abs(double(v));
            squares += double(v) * double(v);
        }
        std::vector<float> sums;
        std::vector<double> square_sums;
        for (const auto* table : tables_to_test())
            for (const int threads : {1, 2, 3}) {
                INFO(std::string(table->name) << " n " << n);
                TestQueue q(threads), plain;
                q.reserve(table->reduce.sum_scratch(n));
                float want;
                Guarded<float> got(1);
                Guarded<double> got_squares(1);
                reference().reduce.sum(plain, a.data(), &want, n);
                table->reduce.sum(q, a.data(), got, n);
                table->reduce.sum_squares(q, a.data(), got_squares, n);
                CHECK(got.ok());
                CHECK(got_squares.ok());
                CHECK(std::abs(double(got[0]) - double(want)) <= (chain + 2) * half_ulp * size);
                CHECK(std::abs(got_squares[0] - squares) <= 2 * double(n) * 0x1p-53 * squares);
                sums.push_back(got[0]);
                square_sums.push_back(got_squares[0]);
            }
        for (size_t i = 1; i < sums.size(); ++i) {
            CHECK(sums[i] == sums[0]);
            CHECK(square_sums[i] == square_sums[0]);
        }
    }
}

TEST_CASE("argmax finds the first of equals, ties and NaN included") {
    const float inf = std::numeric_limits<float>::infinity();
    for (const auto* table : tables_to_test())
        for (const size_t cols : sizes)
            for (const size_t rows : {size_t(1), size_t(5), size_t(200)}) {
                if (cols == 0) continue;
                auto a = hard_values(rows * cols, 11);
                for (size_t i = 0; i < a.size(); ++i) {
                    if (i % 3 != 0) a[i] = std::round(a[i]);  // many ties
                    if (i % 29 == 1) a[i] = std::nanf("");
                    if (i % 31 == 2) a[i] = i % 2 ? inf : -inf;
                }
                for (size_t c = 0; c < cols; ++c) a[c] = c % 2 ? -inf : std::nanf("");
                TestQueue q(2);
                std::vector<int32_t> want(rows);
                Guarded<int32_t> got(rows);
                reference().reduce.argmax(q, a.data(), want.data(), rows, cols);
                table->reduce.argmax(q, a.data(), got, rows, cols);
                INFO(std::string(table->name) << " rows " << rows << " cols " << cols);
                CHECK(got.ok());
                CHECK(want == got.values());
                CHECK(want[0] == 0);
            }
}

TEST_CASE("batch norm stays within its bounds on every table, whatever the threads") {
    const float eps = 1e-5f;
    for (const Rows& shape : shapes) {
        const size_t rows = shape.rows, cols = shape.cols;
        const size_t n = rows * cols;
        auto x = hard_values(n, 1);
        for (auto& v : x) v += 3;
        const auto dy = hard_values(n, 2), gamma = normal_values(cols, 3),
                   beta = normal_values(cols, 4);
        TestQueue plain;
        std::vector<float> mean(cols), variance(cols), y(n), plain_y(n), dgamma(cols), dbeta(cols);
        std::vector<float> dx(n), constant_dx(n);
        const Norm<float>& ref = reference().norm;
        ref.statistics(plain, x.data(), mean.data(), variance.data(), rows, cols);
        ref.normalise(plain, x.data(), mean.data(), variance.data(), gamma.data(), beta.data(), eps,
                      y.data(), rows, cols);
        ref.normalise(plain, x.data(), mean.data(), variance.data(), nullptr, nullptr, eps,
                      plain_y.data(), rows, cols);
        ref.backward_sums(plain, x.data(), dy.data(), mean.data(), variance.data(), eps,
                          dgamma.data(), dbeta.data(), rows, cols);
        ref.backward_input(plain, x.data(), dy.data(), mean.data(), variance.data(), gamma.data(),
                           eps, dgamma.data(), dbeta.data(), dx.data(), rows, cols, rows + 5);
        ref.backward_input(plain, x.data(), dy.data(), mean.data(), variance.data(), nullptr, eps,
                           dgamma.data(), dbeta.data(), constant_dx.data(), rows, cols, 0);
        std::vector<std::vector<float>> agreed;
        for (const auto* table : tables_to_test())
            for (const int threads : {1, 3}) {
                INFO(std::string(table->name)
                     << " rows " << rows << " cols " << cols << " threads " << threads);
                const Norm<float>& norm = table->norm;
                TestQueue q(threads);
                const auto fresh = [&] { q.reserve(norm.scratch(rows, cols)); };
                Guarded<float> m(cols), v(cols), o(n), p(n), dg(cols), db(cols), d(n), k(n);
                fresh();
                norm.statistics(q, x.data(), m, v, rows, cols);
                fresh();
                norm.normalise(q, x.data(), mean.data(), variance.data(), gamma.data(), beta.data(),
                               eps, o, rows, cols);
                fresh();
                norm.normalise(q, x.data(), mean.data(), variance.data(), nullptr, nullptr, eps, p,
                               rows, cols);
                fresh();
                norm.backward_sums(q, x.data(), dy.data(), mean.data(), variance.data(), eps, dg,
                                   db, rows, cols);
                fresh();
                norm.backward_input(q, x.data(), dy.data(), mean.data(), variance.data(),
                                    gamma.data(), eps, dgamma.data(), dbeta.data(), d, rows, cols,
                                    rows + 5);
                fresh();
                norm.backward_input(q, x.data(), dy.data(), mean.data(), variance.data(), nullptr,
                                    eps, dgamma.data(), dbeta.data(), k, rows, cols, 0);
                for (const auto* out : {&m, &v, &o, &p, &dg, &db, &d, &k}) CHECK(out->ok());

                size_t wrong = 0;
                for (size_t c = 0; c < cols; ++c) {
                    const double inverse = 1 / std::sqrt(double(variance[c]) + double(eps));
                    double size = 0, spread = 0, with_x = 0, slope = 0;
                    for (size_t r = 0; r < rows; ++r) {
                        const size_t i = r * cols + c;
                        const double from_mean = double(x[i]) - double(mean[c]), g = gamma[c];
                        size += std::abs(double(x[i])) / double(rows);
                        spread += std::abs(from_mean) / double(rows);
                        with_x += std::abs(double(dy[i]) * from_mean) * inverse;
                        slope += std::abs(double(dy[i]));
                        // a and b are rounded, so are a x and the sum
                        const auto near = [&](double got, double want, double factor,
                                              double shift) {
                            const double whole = std::abs(double(x[i]) * factor) +
                                                 2 * std::abs(double(mean[c]) * factor) + shift;
                            return std::abs(got - want) <= 4 * half_ulp * whole;
                        };
                        wrong += !near(o[i], y[i], g * inverse, std::abs(double(beta[c])));
                        wrong += !near(p[i], plain_y[i], inverse, 0);
                        // three factors, x - mean, three products and two sums are rounded
                        const double terms = std::abs(double(dy[i])) +
                                             (std::abs(from_mean * inverse * double(dgamma[c])) +
                                              std::abs(double(dbeta[c]))) /
                                                 double(rows + 5);
                        wrong += !(std::abs(double(d[i]) - double(dx[i])) <=
                                   6 * half_ulp * std::abs(g) * inverse * terms + 0x1p-140);
                        wrong += !(std::abs(double(k[i]) - double(constant_dx[i])) <=
                                   3 * half_ulp * inverse * std::abs(double(dy[i])) + 0x1p-140);
                    }
                    // dbeta: a plain sum. dgamma: x - mean and the product are rounded too. The
                    // variance moves by twice the mean's error times the mean deviation.
                    const double mean_error = (chain + 2) * half_ulp * size;
                    const double variance_error = 2 * mean_error * spread +
                                                  mean_error * mean_error +
                                                  (chain + 5) * half_ulp * double(variance[c]);
                    CHECK(std::abs(double(m[c]) - double(mean[c])) <= mean_error);
                    CHECK(std::abs(double(v[c]) - double(variance[c])) <= variance_error);
                    CHECK(std::abs(double(dg[c]) - double(dgamma[c])) <=
                          (chain + 4) * half_ulp * with_x);
                    CHECK(std::abs(double(db[c]) - double(dbeta[c])) <=
                          (chain + 2) * half_ulp * slope);
                }
                CHECK(wrong == 0);

                const std::vector<std::vector<float>> all = {m.values(), v.values(),  o.values(),
                                                             p.values(), dg.values(), db.values(),
                                                             d.values(), k.values()};
                if (agreed.empty()) agreed = all;
                for (size_t i = 0; i < all.size(); ++i)
                    CHECK(first_difference(all[i].data(), agreed[i].data(), all[i].size()) ==
                          all[i].size());
            }
    }
}

TEST_CASE("batch norm of a constant channel is exact") {
    size_t count = 0;
    const auto* tables = usable(&count);
    for (size_t t = 0; t < count; ++t) {
        if (tables[t]->cuda) continue;
        INFO(std::string(tables[t]->name));
        const std::vector<float> x(6 * 500, 2.5f);
        std::vector<float> mean(6), variance(6);
        TestQueue q;
        q.reserve(tables[t]->norm.scratch(500, 6));
        tables[t]->norm.statistics(q, x.data(), mean.data(), variance.data(), 500, 6);
        for (size_t c = 0; c < 6; ++c) {
            CHECK(mean[c] == 2.5f);
            CHECK(variance[c] == 0.0f);
        }
    }
}
