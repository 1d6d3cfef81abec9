// The reduce and norm families: sums within the bound of their tree, the same on every vector table
// and for every number of threads; argmax exactly.
#include <map>

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
        std::vector<float> want(cols);
        std::map<std::string, std::vector<float>> agreed;
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
                std::vector<float>& same = agreed[summation_of(*table)];
                if (same.empty()) same = got.values();
                CHECK(first_difference(same.data(), got.data(), cols) == cols);
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
        std::map<std::string, std::vector<double>> agreed;
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
                std::vector<double>& same = agreed[summation_of(*table)];
                if (same.empty()) same = {double(got[0]), got_squares[0]};
                CHECK(same == std::vector<double>{double(got[0]), got_squares[0]});
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

namespace {

// Everything the norm family makes of one input; y_plain without gamma and beta, dx through
// statistics over `rows + 5` rows, dx_constant through constant ones.
struct Normed {
    std::vector<float> mean, variance, y, y_plain, dgamma, dbeta, dx, dx_constant;
    std::vector<const std::vector<float>*> all() const {
        return {&mean, &variance, &y, &y_plain, &dgamma, &dbeta, &dx, &dx_constant};
    }
};

struct NormInput {
    Rows shape;
    bool relu;
    Guarded<float> x, dy, gamma, beta;
};

constexpr float norm_eps = 1e-5f;

// The statistics and sums that later steps take are `given`, where there are any: each step is held
// to the reference's result alone.
Normed normed(const Norm<float>& norm, int threads, NormInput& in, const Normed* given) {
    const size_t rows = in.shape.rows, cols = in.shape.cols, n = rows * cols;
    TestQueue q(threads);
    const auto fresh = [&] { q.reserve(norm.scratch(rows, cols)); };
    Guarded<float> m(cols), v(cols), y(n), plain(n), dg(cols), db(cols), dx(n), constant(n);
    fresh();
    norm.statistics(q, in.x, m, v, rows, cols);
    Guarded<float> mean(given ? given->mean : m.values());
    Guarded<float> variance(given ? given->variance : v.values());
    fresh();
    norm.normalise(q, in.x, mean, variance, in.gamma, in.beta, norm_eps, in.relu, y, rows, cols);
    fresh();
    norm.normalise(q, in.x, mean, variance, nullptr, nullptr, norm_eps, in.relu, plain, rows, cols);
    fresh();
    norm.backward_sums(q, in.x, in.dy, mean, variance, in.gamma, in.beta, norm_eps, in.relu, dg, db,
                       rows, cols);
    Guarded<float> dgamma(given ? given->dgamma : dg.values());
    Guarded<float> dbeta(given ? given->dbeta : db.values());
    fresh();
    norm.backward_input(q, in.x, in.dy, mean, variance, in.gamma, in.beta, norm_eps, in.relu,
                        dgamma, dbeta, dx, rows, cols, rows + 5);
    fresh();
    norm.backward_input(q, in.x, in.dy, mean, variance, nullptr, nullptr, norm_eps, in.relu, dgamma,
                        dbeta, constant, rows, cols, 0);
    for (const auto* out : {&m, &v, &y, &plain, &dg, &db, &dx, &constant}) CHECK(out->ok());
    return {m.values(),  v.values(),  y.values(),  plain.values(),
            dg.values(), db.values(), dx.values(), constant.values()};
}

// before: what the reference's ReLU takes, with gamma and beta and without.
void check_column(size_t c, const NormInput& in, const Normed& got, const Normed& want,
                  const Normed& before) {
    const size_t rows = in.shape.rows, cols = in.shape.cols;
    const double mean = want.mean[c], variance = want.variance[c], g = in.gamma[c];
    const double inverse = 1 / std::sqrt(variance + double(norm_eps));
    double size = 0, spread = 0, with_x = 0, slope = 0, unsure_x = 0, unsure = 0;
    size_t wrong = 0;
    for (size_t r = 0; r < rows; ++r) {
        const size_t i = r * cols + c;
        const double x = in.x[i], dy = in.dy[i], from_mean = x - mean;
        size += std::abs(x) / double(rows);
        spread += std::abs(from_mean) / double(rows);
        with_x += std::abs(dy * from_mean) * inverse;
        slope += std::abs(dy);
        // a and b are rounded, so are a x and the sum
        const auto bound = [&](double factor, double shift) {
            return 4 * half_ulp *
                   (std::abs(x * factor) + 2 * std::abs(mean * factor) + std::abs(shift));
        };
        const auto differ = [&](const std::vector<float>& a, const std::vector<float>& b) {
            return std::abs(double(a[i]) - double(b[i]));
        };
        const double y_bound = bound(g * inverse, in.beta[c]), plain_bound = bound(inverse, 0);
        wrong += !(differ(got.y, want.y) <= y_bound);
        wrong += !(differ(got.y_plain, want.y_plain) <= plain_bound);
        // Where y may be of either sign the ReLU may or may not let dy through.
        const bool either = in.relu && std::abs(double(before.y[i])) <= y_bound;
        const bool either_plain = in.relu && std::abs(double(before.y_plain[i])) <= plain_bound;
        unsure += either ? std::abs(dy) : 0;
        unsure_x += either ? std::abs(dy * from_mean) * inverse : 0;
        // three factors, x - mean, three products and two sums are rounded
        const double terms =
            std::abs(dy) + (std::abs(from_mean * inverse * double(want.dgamma[c])) +
                            std::abs(double(want.dbeta[c]))) /
                               double(rows + 5);
        const double through = std::abs(g) * inverse;
        wrong += !(differ(got.dx, want.dx) <= 6 * half_ulp * through * terms +
                                                  (either ? through * std::abs(dy) : 0) + 0x1p-140);
        wrong += !(differ(got.dx_constant, want.dx_constant) <=
                   3 * half_ulp * inverse * std::abs(dy) +
                       (either_plain ? inverse * std::abs(dy) : 0) + 0x1p-140);
    }
    CHECK(wrong == 0);
    // dbeta: a plain sum. dgamma: x - mean and the product are rounded too. The variance moves by
    // twice the mean's error times the mean deviation.
    const double mean_error = (chain + 2) * half_ulp * size;
    const double variance_error =
        2 * mean_error * spread + mean_error * mean_error + (chain + 5) * half_ulp * variance;
    CHECK(std::abs(double(got.mean[c]) - mean) <= mean_error);
    CHECK(std::abs(double(got.variance[c]) - variance) <= variance_error);
    CHECK(std::abs(double(got.dgamma[c]) - double(want.dgamma[c])) <=
          (chain + 4) * half_ulp * with_x + unsure_x);
    CHECK(std::abs(double(got.dbeta[c]) - double(want.dbeta[c])) <=
          (chain + 2) * half_ulp * slope + unsure);
}

}  // namespace

TEST_CASE("batch norm stays within its bounds on every table, whatever the threads") {
    for (const Rows& shape : shapes)
        for (const bool relu : {false, true}) {
            auto values = hard_values(shape.rows * shape.cols, 1);
            for (auto& v : values) v += 3;
            NormInput in = {shape,
                            relu,
                            values,
                            hard_values(values.size(), 2),
                            normal_values(shape.cols, 3),
                            normal_values(shape.cols, 4)};
            const Normed want = normed(reference().norm, 1, in, nullptr);
            in.relu = false;
            const Normed before = normed(reference().norm, 1, in, nullptr);
            in.relu = relu;
            std::map<std::string, Normed> agreed;
            for (const auto* table : tables_to_test())
                for (const int threads : {1, 3}) {
                    INFO(std::string(table->name)
                         << " rows " << shape.rows << " cols " << shape.cols << " relu " << relu
                         << " threads " << threads);
                    const Normed got = normed(table->norm, threads, in, &want);
                    for (size_t c = 0; c < shape.cols; ++c) check_column(c, in, got, want, before);
                    Normed& same = agreed[summation_of(*table)];
                    if (same.mean.empty()) same = got;
                    for (size_t i = 0; i < got.all().size(); ++i) {
                        const std::vector<float>&a = *got.all()[i], &b = *same.all()[i];
                        CHECK(first_difference(a.data(), b.data(), a.size()) == a.size());
                    }
                }
        }
}

TEST_CASE("batch norm with its ReLU gives the bits of the two apart") {
    const size_t rows = 100, cols = 37, n = rows * cols;
    auto values = hard_values(n, 1);
    values[3] = std::nanf("");
    const std::vector<float> mean_of = normal_values(cols, 5, 0.1);
    for (const auto* table : tables_to_test()) {
        INFO(std::string(table->name));
        Guarded<float> x(values), dy(hard_values(n, 2)), gamma(normal_values(cols, 3));
        Guarded<float> beta(normal_values(cols, 4)), mean(mean_of);
        Guarded<float> variance(std::vector<float>(cols, 0.7f));
        Guarded<float> y(n), relu_y(n), want_y(n), slope(n), dg(cols), db(cols), dx(n);
        Guarded<float> want_dg(cols), want_db(cols), want_dx(n);
        TestQueue q(2);
        q.reserve(table->norm.scratch(rows, cols));
        const Norm<float>& norm = table->norm;
        norm.normalise(q, x, mean, variance, gamma, beta, norm_eps, false, y, rows, cols);
        norm.normalise(q, x, mean, variance, gamma, beta, norm_eps, true, relu_y, rows, cols);
        table->elementwise.activate(q, Activation::relu, 0, y, want_y, n);
        CHECK(first_bit_difference(relu_y.data(), want_y.data(), n) == n);
        table->elementwise.activate_backward(q, Activation::relu, 0, y, dy, slope, n);
        norm.backward_sums(q, x, dy, mean, variance, gamma, beta, norm_eps, true, dg, db, rows,
                           cols);
        norm.backward_sums(q, x, slope, mean, variance, gamma, beta, norm_eps, false, want_dg,
                           want_db, rows, cols);
        CHECK(first_bit_difference(dg.data(), want_dg.data(), cols) == cols);
        CHECK(first_difference(db.data(), want_db.data(), cols) == cols);
        for (const size_t total : {size_t(0), rows}) {
            norm.backward_input(q, x, dy, mean, variance, gamma, beta, norm_eps, true, dg, db, dx,
                                rows, cols, total);
            norm.backward_input(q, x, slope, mean, variance, gamma, beta, norm_eps, false, dg, db,
                                want_dx, rows, cols, total);
            CHECK(first_bit_difference(dx.data(), want_dx.data(), n) == n);
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
