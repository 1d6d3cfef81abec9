// The elementwise family: every table against the reference, bitwise where kernels.h says so, else
// within 4 ulp of the largest intermediate.
#include "tests/check.h"

using namespace nc::kernels;
using namespace nc::test;

namespace {

struct Rows {
    size_t rows, cols;
};

const float inf = std::numeric_limits<float>::infinity();
const float not_a_number = std::numeric_limits<float>::quiet_NaN();

// Hard values with infinities, NaN and the corners of relu6 and hard_swish among them.
std::vector<float> wild_values(size_t n, uint64_t seed) {
    std::vector<float> v = hard_values(n, seed);
    const float special[] = {inf,  -inf,  not_a_number, -0.0f, 0.0f,
                             6.0f, -3.0f, 3.0f,         3e38f, -3e38f};
    for (size_t i = 0; i < n; ++i)
        if ((i * 2654435761u >> 7) % 11 == 0) v[i] = special[(i + seed) % 10];
    return v;
}

double ulp(double x) {
    const float a = std::fabs(float(x));
    return a < 1e38f ? double(std::nextafter(a, inf)) - double(a) : std::ldexp(1.0, 104);
}

const Activation bitwise[] = {Activation::relu, Activation::leaky_relu, Activation::relu6,
                              Activation::hard_swish};
const Activation bounded[] = {Activation::silu, Activation::gelu, Activation::sigmoid,
                              Activation::tanh};

// Runs one kernel on this table and on the reference; the outputs must be the same bits.
template <class Run>
void check_same(const Table<float>& table, size_t n, Run run, int threads = 1) {
    TestQueue queue(threads), plain;
    Guarded<float> want(n), got(n);
    run(reference().elementwise, plain, want.data());
    run(table.elementwise, queue, got.data());
    INFO(std::string(table.name) << " n " << n << " threads " << threads);
    CHECK(got.ok());
    CHECK(first_bit_difference(want.data(), got.data(), n) == n);
}

void check_bitwise(const Table<float>& table, size_t n, int threads) {
    using E = const Elementwise<float>&;
    const auto a = wild_values(n, 1), b = wild_values(n, 2);
    const float *pa = a.data(), *pb = b.data();
    const auto same = [&](auto run) { check_same(table, n, run, threads); };
    same([&](E e, Queue& q, float* o) { e.fill(q, 1.5f, o, n); });
    same([&](E e, Queue& q, float* o) { e.add(q, pa, pb, o, n); });
    same([&](E e, Queue& q, float* o) { e.sub(q, pa, pb, o, n); });
    same([&](E e, Queue& q, float* o) { e.mul(q, pa, pb, o, n); });
    same([&](E e, Queue& q, float* o) { e.div(q, pa, pb, o, n); });
    same([&](E e, Queue& q, float* o) { e.scale(q, pa, 0.3f, o, n); });
    same([&](E e, Queue& q, float* o) { e.add_scaled(q, pa, pb, 0.3f, o, n); });
    same([&](E e, Queue& q, float* o) { e.clamp(q, pa, -0.5f, 0.7f, o, n); });
    same([&](E e, Queue& q, float* o) { e.clamp(q, pa, 0.0f, inf, o, n); });
    for (const Activation kind : bitwise) {
        same([&](E e, Queue& q, float* o) { e.activate(q, kind, 0.1f, pa, o, n); });
        same([&](E e, Queue& q, float* o) { e.activate_backward(q, kind, 0.1f, pa, pb, o, n); });
    }
}

}  // namespace

TEST_CASE("elementwise kernels give the reference's bits") {
    for (const auto* table : tables_to_test()) {
        for (const size_t n : sizes) check_bitwise(*table, n, 1);
        check_bitwise(*table, 100003, 3);
    }
}

TEST_CASE("elementwise kernels work in place") {
    for (const auto* table : tables_to_test())
        for (const size_t n : sizes) {
            const auto a = wild_values(n, 1), b = wild_values(n, 2);
            const std::vector<float> row = {1, -0.0f, 3};
            const auto in_place = [&](auto run) {
                check_same(*table, n, [&](const Elementwise<float>& e, Queue& q, float* o) {
                    if (n > 0) std::memcpy(o, a.data(), n * sizeof(float));
                    run(e, q, o);
                });
            };
            in_place([&](auto& e, Queue& q, float* o) { e.add(q, o, b.data(), o, n); });
            in_place([&](auto& e, Queue& q, float* o) { e.mul(q, o, b.data(), o, n); });
            in_place(
                [&](auto& e, Queue& q, float* o) { e.add_scaled(q, o, b.data(), 2.5f, o, n); });
            in_place([&](auto& e, Queue& q, float* o) { e.clamp(q, o, -1.0f, 1.0f, o, n); });
            in_place([&](auto& e, Queue& q, float* o) {
                if (n % 3 == 0) e.add_row(q, o, row.data(), o, n / 3, 3);
            });
        }
}

TEST_CASE("row kernels give the reference's bits") {
    const Rows shapes[] = {{0, 5},   {5, 0},   {1, 1},    {3, 1},     {100, 2},  {33, 3},
                           {70, 6},  {9, 7},   {41, 10},  {17, 16},   {5, 17},   {3, 33},
                           {2, 100}, {3, 250}, {2, 1023}, {9000, 10}, {300, 400}};
    using E = const Elementwise<float>&;
    for (const auto* table : tables_to_test())
        for (const Rows& shape : shapes) {
            const size_t rows = shape.rows, cols = shape.cols;
            INFO("rows " << rows << " cols " << cols);
            const size_t r = rows, c = cols, n = rows * cols;
            const auto x = wild_values(n, 1), row = wild_values(cols, 2), dy = hard_values(n, 3);
            for (const int threads : {1, 3}) {
                const auto same = [&](auto run) { check_same(*table, n, run, threads); };
                same([&](E e, Queue& q, float* o) { e.add_row(q, x.data(), row.data(), o, r, c); });
                same([&](E e, Queue& q, float* o) { e.mul_row(q, x.data(), row.data(), o, r, c); });
                same([&](E e, Queue& q, float* o) { e.prelu(q, x.data(), row.data(), o, r, c); });
            }
        }
}

TEST_CASE("relu of -0 is 0, of NaN is NaN, and clamp keeps both") {
    size_t count = 0;
    const auto* tables = usable(&count);
    const float x[] = {-0.0f, not_a_number, -1.0f, 7.0f, inf, -inf};
    for (size_t t = 0; t < count; ++t) {
        if (tables[t]->cuda) continue;
        INFO(std::string(tables[t]->name));
        TestQueue q;
        float y[6];
        tables[t]->elementwise.activate(q, Activation::relu, 0, x, y, 6);
        CHECK((y[0] == 0 && !std::signbit(y[0])));
        CHECK(std::isnan(y[1]));
        CHECK((y[2] == 0 && y[3] == 7 && y[4] == inf && y[5] == 0));
        tables[t]->elementwise.activate(q, Activation::relu6, 0, x, y, 6);
        CHECK((y[0] == 0 && !std::signbit(y[0])));
        CHECK(std::isnan(y[1]));
        CHECK((y[2] == 0 && y[3] == 6 && y[4] == 6 && y[5] == 0));
        tables[t]->elementwise.activate(q, Activation::leaky_relu, 0.5f, x, y, 6);
        CHECK((y[0] == 0 && std::signbit(y[0])));
        CHECK(std::isnan(y[1]));
        CHECK((y[2] == -0.5f && y[3] == 7));
        tables[t]->elementwise.clamp(q, x, 0.0f, 6.0f, y, 6);
        CHECK((y[0] == 0 && std::signbit(y[0])));
        CHECK(std::isnan(y[1]));
    }
}

TEST_CASE("silu, gelu, sigmoid and tanh stay within 4 ulp over all floats") {
    std::vector<float> x;
    for (uint64_t bits = 0; bits < (1ull << 32); bits += 8191) {
        const uint32_t word = uint32_t(bits);
        float v;
        std::memcpy(&v, &word, sizeof v);
        x.push_back(v);
    }
    for (int i = -400000; i <= 400000; ++i) x.push_back(float(i) * 2.5e-4f);
    for (const float v : {inf, -inf, not_a_number, 0.0f, -0.0f, 88.8f, -87.4f, -103.9f})
        x.push_back(v);
    const size_t n = x.size();
    std::vector<float> want(n);
    for (const auto* table : tables_to_test())
        for (const Activation kind : bounded) {
            INFO(std::string(table->name) << " activation " << int(kind));
            TestQueue q(2);
            Guarded<float> got(n);
            reference().elementwise.activate(q, kind, 0, x.data(), want.data(), n);
            table->elementwise.activate(q, kind, 0, x.data(), got, n);
            CHECK(got.ok());
            size_t wrong = 0;
            for (size_t i = 0; i < n; ++i) {
                const double r = want[i], g = got[i];
                // gelu: 1 + erf is the largest intermediate, and x multiplies its error. silu: so
                // it is with a denormal e^x.
                double bound = 4 * ulp(kind == Activation::gelu ? x[i] : r);
                if (kind == Activation::silu) bound += 2 * std::abs(double(x[i])) * 0x1p-149;
                const bool fine =
                    std::isnan(r) ? std::isnan(g) : r == g || std::abs(g - r) <= bound;
                if (!fine && wrong++ == 0) MESSAGE("x ", x[i], " want ", r, " got ", g);
            }
            CHECK(wrong == 0);
        }
}

TEST_CASE("gradients of silu, gelu, sigmoid and tanh stay within 4 ulp of 1") {
    std::vector<float> x = wild_values(1000, 1);
    for (int i = -200000; i <= 200000; ++i) x.push_back(float(i) * 6e-4f);
    const size_t n = x.size();
    const auto dy = hard_values(n, 5);
    std::vector<float> want(n);
    for (const auto* table : tables_to_test())
        for (const Activation kind : bounded) {
            INFO(std::string(table->name) << " activation " << int(kind));
            TestQueue q(2);
            Guarded<float> got(n);
            reference().elementwise.activate_backward(q, kind, 0, x.data(), dy.data(), want.data(),
                                                      n);
            table->elementwise.activate_backward(q, kind, 0, x.data(), dy.data(), got, n);
            CHECK(got.ok());
            size_t wrong = 0;
            for (size_t i = 0; i < n; ++i) {
                const double r = want[i], g = got[i], d = dy[i];
                const double bound = 4 * ulp(1) * std::abs(d) + ulp(0);
                const bool fine = std::isnan(r) ? std::isnan(g) : std::abs(g - r) <= bound;
                if (!fine && wrong++ == 0) MESSAGE("x ", x[i], " dy ", d, " want ", r, " got ", g);
            }
            CHECK(wrong == 0);
        }
}

TEST_CASE("prelu gradients: dx bitwise, dslope within the bound of a blocked sum") {
    const Rows shapes[] = {{0, 3}, {1, 1}, {7, 6}, {1000, 1}, {333, 10}, {20001, 6}, {50, 64}};
    for (const auto* table : tables_to_test())
        for (const Rows& shape : shapes) {
            const size_t rows = shape.rows, cols = shape.cols;
            INFO(std::string(table->name) << " rows " << rows << " cols " << cols);
            const size_t n = rows * cols;
            const auto x = hard_values(n, 1), slope = hard_values(cols, 2), dy = hard_values(n, 3);
            std::vector<float> dx(n), dslope(cols), first(cols);
            TestQueue plain;
            reference().elementwise.prelu_backward(plain, x.data(), slope.data(), dy.data(),
                                                   dx.data(), dslope.data(), rows, cols);
            for (const int threads : {1, 2, 5}) {
                TestQueue q(threads);
                q.reserve(table->elementwise.prelu_backward_scratch(rows, cols));
                Guarded<float> got_dx(n), got(cols);
                table->elementwise.prelu_backward(q, x.data(), slope.data(), dy.data(), got_dx, got,
                                                  rows, cols);
                CHECK(got_dx.ok());
                CHECK(got.ok());
                CHECK(first_bit_difference(dx.data(), got_dx.data(), n) == n);
                for (size_t c = 0; c < cols; ++c) {
                    double total = 0;
                    for (size_t r = 0; r < rows; ++r)
                        if (x[r * cols + c] <= 0)
                            total += std::abs(double(x[r * cols + c]) * double(dy[r * cols + c]));
                    // products rounded once, chains of 64 + 8 additions, one final rounding
                    CHECK(std::abs(double(got[c]) - double(dslope[c])) <=
                          75 * 0x1p-24 * total + 0x1p-140);
                }
                if (threads == 1) first = got.values();
                CHECK(first_difference(first.data(), got.data(), cols) == cols);
            }
        }
}
