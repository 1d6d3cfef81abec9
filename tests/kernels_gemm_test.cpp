// Matrix products: every table against the reference, the reference against its definition.
#include "tests/check.h"

using namespace nc::test;
namespace kernels = nc::kernels;

namespace {

struct Case {
    bool transpose_a, transpose_b, bias, accumulate;
    size_t m, n, k;
};

// The product of one table, into c's values.
template <class F>
std::vector<F> run(const kernels::Table<F>& table, int threads, const Case& t, const Guarded<F>& a,
                   const Guarded<F>& b, const Guarded<F>& bias, const std::vector<F>& c) {
    TestQueue q(threads);
    q.reserve(table.gemm.gemm_scratch(t.transpose_a, t.transpose_b, t.m, t.n, t.k, threads));
    Guarded<F> out = t.accumulate ? Guarded<F>(c) : Guarded<F>(c.size());
    table.gemm.gemm(q, t.transpose_a, t.transpose_b, a.data(), b.data(),
                    t.bias ? bias.data() : nullptr, t.accumulate, out, t.m, t.n, t.k);
    CHECK(out.ok());
    return out.values();
}

template <class F>
double element_a(const Case& t, const Guarded<F>& a, size_t i, size_t p) {
    return double(t.transpose_a ? a[p * t.m + i] : a[i * t.k + p]);
}
template <class F>
double element_b(const Case& t, const Guarded<F>& b, size_t p, size_t j) {
    return double(t.transpose_b ? b[j * t.k + p] : b[p * t.n + j]);
}

// |a| |b| + |bias| + |c|: what an element's rounding errors are measured in.
template <class F>
std::vector<double> magnitude(const Case& t, const Guarded<F>& a, const Guarded<F>& b,
                              const Guarded<F>& bias, const std::vector<F>& c) {
    std::vector<double> out(t.m * t.n);
    for (size_t i = 0; i < t.m; ++i)
        for (size_t j = 0; j < t.n; ++j) {
            double& sum = out[i * t.n + j];
            sum = (t.bias ? std::fabs(double(bias[j])) : 0) +
                  (t.accumulate ? std::fabs(double(c[i * t.n + j])) : 0);
            for (size_t p = 0; p < t.k; ++p)
                sum += std::fabs(element_a(t, a, i, p) * element_b(t, b, p, j));
        }
    return out;
}

// Bound. Every term goes through at most k fused (or 2k separate) roundings, and the sum through
// one more for each block of k, for the bias and for c: with u = eps / 2 the error is at most (2k +
// k / block + 2) u |a||b|, and the reference's own rounding adds u; (k + 2) eps holds both as the
// first addition, to zero, is exact. Each rounding may also lose half a denormal.
template <class F>
double bound(const Case& t, double size) {
    const double eps = double(std::numeric_limits<F>::epsilon());
    return double(t.k + 2) * (eps * size + double(std::numeric_limits<F>::denorm_min()));
}

size_t worst_index(const std::vector<float>& x, const std::vector<float>& y,
                   const std::vector<double>& size, const Case& t) {
    for (size_t i = 0; i < x.size(); ++i)
        if (!(std::fabs(double(x[i]) - double(y[i])) <= bound<float>(t, size[i]))) return i;
    return x.size();
}

void check_case(const Case& t, uint64_t seed, bool threads) {
    const Guarded<float> a(hard_values(t.m * t.k, seed)), b(hard_values(t.k * t.n, seed + 1));
    const Guarded<float> bias(hard_values(t.n, seed + 2));
    const std::vector<float> c = hard_values(t.m * t.n, seed + 3);
    const auto expected = run(kernels::reference(), 1, t, a, b, bias, c);
    const auto size = magnitude(t, a, b, bias, c);
    for (const auto* table : tables_to_test()) {
        CAPTURE(table->name);
        CAPTURE(t.m);
        CAPTURE(t.n);
        CAPTURE(t.k);
        CAPTURE(t.transpose_a);
        CAPTURE(t.transpose_b);
        CAPTURE(t.bias);
        CAPTURE(t.accumulate);
        const auto got = run(*table, 1, t, a, b, bias, c);
        const size_t wrong = worst_index(got, expected, size, t);
        if (wrong < got.size()) {
            CAPTURE(wrong);
            CHECK(got[wrong] == expected[wrong]);
        }
        if (!threads) continue;
        for (int n : {2, 3, 7}) {
            if (table->cuda && n > 2) break;  // its blocks run in another order every time
            CAPTURE(n);
            const auto other = run(*table, n, t, a, b, bias, c);
            CHECK(first_difference(got.data(), other.data(), got.size()) == got.size());
        }
    }
}

}  // namespace

TEST_CASE("gemm: every table is within its bound of the reference") {
    uint64_t seed = 1;
    for (size_t m : sizes)
        for (size_t n : sizes)
            for (size_t k : sizes) {
                if (m * n * k > 40000 && (m * n * k > 8000000 || (m + n + k) % 5 != 0)) continue;
                ++seed;
                const size_t kind = seed % 16;
                check_case(
                    {(kind & 1) != 0, (kind & 2) != 0, (kind & 4) != 0, (kind & 8) != 0, m, n, k},
                    seed * 16, false);
            }
}

TEST_CASE("gemm: every way of storing the operands, of adding bias and of accumulating") {
    for (size_t kind = 0; kind < 16; ++kind)
        for (const auto& [m, n, k] : {std::tuple<size_t, size_t, size_t>{45, 70, 530},
                                      {3, 200, 40},
                                      {29, 10, 1},
                                      {230, 33, 65}})
            check_case(
                {(kind & 1) != 0, (kind & 2) != 0, (kind & 4) != 0, (kind & 8) != 0, m, n, k},
                kind * 100 + m, false);
}

TEST_CASE("gemm: the same bits whatever the number of threads") {
    for (size_t kind = 0; kind < 4; ++kind)
        for (const auto& [m, n, k] : {std::tuple<size_t, size_t, size_t>{500, 100, 70},
                                      {17, 700, 600},
                                      {1000, 3, 257},
                                      {5, 3000, 64}})
            check_case({(kind & 1) != 0, (kind & 2) != 0, true, true, m, n, k}, kind * 100 + m,
                       true);
}

TEST_CASE("gemm: results large enough for every size of tile") {
    for (size_t kind = 0; kind < 4; ++kind)
        for (const auto& [m, n, k] : {std::tuple<size_t, size_t, size_t>{1500, 1450, 13},
                                      {17000, 21, 19},
                                      {900, 800, 9}})
            check_case({(kind & 1) != 0, (kind & 2) != 0, kind == 1, kind == 2, m, n, k},
                       kind * 100 + m, false);
}

TEST_CASE("gemm: integers up to 2^24 are exact") {
    const Case t = {false, true, true, false, 37, 41, 300};
    std::vector<float> a(t.m * t.k), b(t.k * t.n), bias(t.n);
    for (size_t i = 0; i < a.size(); ++i) a[i] = float(int(i * 7919 % 201) - 100);
    for (size_t i = 0; i < b.size(); ++i) b[i] = float(int(i * 104729 % 255) - 127);
    for (size_t i = 0; i < bias.size(); ++i) bias[i] = float(i * 1000);
    const Guarded<float> ga(a), gb(b), gbias(bias);
    std::vector<float> exact(t.m * t.n);
    for (size_t i = 0; i < t.m; ++i)
        for (size_t j = 0; j < t.n; ++j) {
            int64_t sum = int64_t(bias[j]);
            for (size_t p = 0; p < t.k; ++p)
                sum += int64_t(a[i * t.k + p]) * int64_t(b[j * t.k + p]);
            exact[i * t.n + j] = float(sum);
        }
    for (const auto* table : tables_to_test()) {
        CAPTURE(table->name);
        CHECK(run(*table, 1, t, ga, gb, gbias, exact) == exact);
    }
}

TEST_CASE("gemm: the reference in double is the definition") {
    for (size_t kind = 0; kind < 16; ++kind) {
        const Case t = {
            (kind & 1) != 0, (kind & 2) != 0, (kind & 4) != 0, (kind & 8) != 0, 19, 75, 90};
        const Guarded<double> a(hard_values<double>(t.m * t.k, kind));
        const Guarded<double> b(hard_values<double>(t.k * t.n, kind + 100));
        const Guarded<double> bias(hard_values<double>(t.n, kind + 200));
        const std::vector<double> c = hard_values<double>(t.m * t.n, kind + 300);
        const auto got = run(kernels::reference_double(), 1, t, a, b, bias, c);
        const auto size = magnitude(t, a, b, bias, c);
        size_t wrong = 0;
        for (size_t i = 0; i < t.m; ++i)
            for (size_t j = 0; j < t.n; ++j) {
                double sum = t.accumulate ? c[i * t.n + j] : 0;
                if (t.bias) sum += bias[j];
                for (size_t p = t.k; p-- > 0;) sum += element_a(t, a, i, p) * element_b(t, b, p, j);
                const size_t at = i * t.n + j;
                if (!(std::fabs(got[at] - sum) <= bound<double>(t, size[at]))) ++wrong;
            }
        CHECK(wrong == 0);
    }
}
