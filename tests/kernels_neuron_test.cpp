// The neuron kernels: every table against the reference, bit for bit where the contract says so.
#include <cmath>

#include "tests/check.h"
#include "tests/neuron_recurrences.h"

using namespace nc;
using namespace nc::kernels;
using nc::test::first_difference;
using nc::test::Guarded;
using nc::test::TestQueue;

namespace {

const size_t param_counts[] = {1, 2, 5, 6, 10, 16, 17, 32, 64, 100, 300, 1000, 1500};

// Currents around the threshold of their element: exact ties, denormals, outliers.
std::vector<float> currents(size_t steps, size_t size, const std::vector<float>& theta,
                            uint64_t seed) {
    auto x = test::hard_values(steps * size, seed);
    for (size_t i = 0; i < x.size(); ++i) {
        const float th = theta[i % size % theta.size()];
        if (i % 5 == 0) x[i] = th / 2;
        if (i % 7 == 0) x[i] = th;
        if (i % 11 == 0) x[i] = -th;
    }
    return x;
}

std::vector<float> positive(size_t n, uint64_t seed) {
    auto v = test::normal_values(n, seed);
    for (size_t i = 0; i < n; ++i) v[i] = i % 3 == 0 ? 0.5f : std::abs(v[i]) + 0.01f;
    return v;
}

struct Case {
    NeuronRule<float> rule;
    ScanShape shape;
    bool given_membrane, with_y, with_bits;
    uint64_t seed;
};

void check_forward(const Table<float>& table, const Case& c, int threads) {
    const ScanShape& s = c.shape;
    const auto theta = positive(s.params, c.seed), v0 = test::hard_values(s.params, c.seed + 1),
               amplitude = positive(s.params, c.seed + 2);
    auto x = currents(s.constant_input ? 1 : s.steps, s.size, theta, c.seed + 3);
    const auto membrane = test::hard_values(s.size, c.seed + 4);
    const size_t words = (s.size + 63) / 64;
    Guarded<float> v_ref(membrane), v(membrane), y_ref(s.steps * s.size), y(s.steps * s.size);
    Guarded<uint64_t> bits_ref(s.steps * words), bits(s.steps * words);
    TestQueue one, queue(threads);
    auto run = [&](const Table<float>& t, Queue& q, Guarded<float>& m, Guarded<float>& out,
                   Guarded<uint64_t>& b) {
        t.neuron.forward(q, c.rule, theta.data(), v0.data(), amplitude.data(), x.data(),
                         c.given_membrane ? m.data() : nullptr, c.with_y ? out.data() : nullptr,
                         c.with_bits ? b.data() : nullptr, s);
    };
    run(reference(), one, v_ref, y_ref, bits_ref);
    run(table, queue, v, y, bits);
    CHECK(first_difference(v.data(), v_ref.data(), v.size()) == v.size());
    CHECK(first_difference(y.data(), y_ref.data(), y.size()) == y.size());
    CHECK(first_difference(bits.data(), bits_ref.data(), bits.size()) == bits.size());
    CHECK((v.ok() && y.ok() && bits.ok()));
}

// The sum of the magnitudes of the terms in dtheta, [params].
std::vector<double> dtheta_magnitude(const Case& c, const std::vector<float>& theta,
                                     const std::vector<float>& v0,
                                     const std::vector<float>& amplitude,
                                     const std::vector<float>& x, const std::vector<float>& dy) {
    const auto& r = c.rule;
    const kernels::NeuronRule<double> rule = {
        r.beta,      r.compare,         r.reset,       r.reset_value, r.spiking,
        r.surrogate, r.surrogate_width, r.scale_width, r.detach_reset};
    std::vector<double> out(c.shape.params, 0), xs(c.shape.steps), gs(c.shape.steps);
    for (size_t i = 0; i < c.shape.size; ++i) {
        const size_t p = i % c.shape.params;
        for (size_t t = 0; t < c.shape.steps; ++t) {
            xs[t] = x[(c.shape.constant_input ? 0 : t * c.shape.size) + i];
            gs[t] = dy[t * c.shape.size + i];
        }
        out[p] += test::recurrences(rule, theta[p], v0[p], amplitude[p], true, xs, gs).magnitude;
    }
    return out;
}

void check_backward(const Table<float>& table, const Case& c, int threads) {
    const ScanShape& s = c.shape;
    const auto theta = positive(s.params, c.seed), v0 = test::hard_values(s.params, c.seed + 1);
    const bool amplitude_is_theta = c.seed % 2 == 0, half = c.seed % 3 == 0;
    const auto amplitude = amplitude_is_theta ? theta : positive(s.params, c.seed + 2);
    const size_t rows = s.constant_input ? 1 : s.steps, words = (s.size + 63) / 64;
    const auto x = currents(rows, s.size, theta, c.seed + 3);
    const auto dy = test::normal_values(s.steps * s.size, c.seed + 5);
    Guarded<uint64_t> bits(s.steps * words);
    TestQueue one, queue(threads);
    one.reserve(reference().neuron.backward_scratch(s, true, 1));
    queue.reserve(table.neuron.backward_scratch(s, true, threads));
    reference().neuron.forward(one, c.rule, theta.data(), v0.data(), amplitude.data(), x.data(),
                               nullptr, nullptr, bits.data(), s);
    Guarded<float> dx_ref(rows * s.size), dx(rows * s.size), dtheta_ref(s.params), dtheta(s.params);
    auto run = [&](const Table<float>& t, Queue& q, Guarded<float>& out, float* sums,
                   const float* g) {
        t.neuron.backward(q, c.rule, theta.data(), v0.data(), amplitude.data(), amplitude_is_theta,
                          half, x.data(), bits.data(), g, out.data(), sums, s);
    };
    run(reference(), one, dx_ref, dtheta_ref.data(), dy.data());
    run(table, queue, dx, dtheta.data(), dy.data());
    CHECK((dx.ok() && dtheta.ok()));
    const bool exact = c.rule.surrogate != Surrogate::sigmoid;
    if (exact) {
        CHECK(first_difference(dx.data(), dx_ref.data(), dx.size()) == dx.size());
    } else {
        // The slope is within 4 ulp; it enters once directly and once a step through dv.
        double largest = 1e-30;
        for (size_t i = 0; i < dx.size(); ++i)
            largest = std::max(largest, std::abs(double(dx_ref[i])));
        double worst = 0;
        for (size_t i = 0; i < dx.size(); ++i)
            worst = std::max(worst, std::abs(double(dx[i]) - double(dx_ref[i])));
        CHECK(worst <= 64 * double(s.steps) * 0x1p-24 * largest);
    }
    // Every term is rounded a few times in each step that led to it, the sums over steps and over
    // a block add to that; dv itself carries the rounding of later steps. Far from the threshold
    // the sigmoid's slope may underflow.
    const auto magnitude = dtheta_magnitude(c, theta, v0, amplitude, x, dy);
    const double share = (8.0 * double(s.steps) + 1024 / double(s.params) + 16) * 0x1p-24;
    size_t beyond = 0;
    for (size_t p = 0; p < s.params; ++p)
        beyond +=
            !(std::abs(double(dtheta[p]) - double(dtheta_ref[p])) <= share * magnitude[p] + 1e-36);
    CHECK(beyond == 0);

    // Without dtheta the same dx; with another number of threads the same everything.
    Guarded<float> dx_alone(rows * s.size), dx_three(rows * s.size), dtheta_three(s.params);
    run(table, queue, dx_alone, nullptr, dy.data());
    CHECK(first_difference(dx_alone.data(), dx.data(), dx.size()) == dx.size());
    TestQueue three(3);
    three.reserve(table.neuron.backward_scratch(s, true, 3));
    run(table, three, dx_three, dtheta_three.data(), dy.data());
    CHECK(first_difference(dx_three.data(), dx.data(), dx.size()) == dx.size());
    CHECK(first_difference(dtheta_three.data(), dtheta.data(), s.params) == s.params);
}

// Every rule, taken in turn.
NeuronRule<float> rule_number(size_t k) {
    NeuronRule<float> rule;
    rule.beta = k % 2 == 0 ? 1.0f : 0.5f;
    rule.compare = k / 2 % 2 == 0 ? Compare::greater_equal : Compare::greater;
    rule.reset = k / 4 % 2 == 0 ? Reset::subtract : Reset::to_value;
    rule.reset_value = k % 3 == 0 ? 0.25f : 0.0f;
    rule.surrogate = Surrogate(k / 8 % 4);
    rule.surrogate_width = rule.surrogate == Surrogate::sigmoid ? 4.0f : k % 3 == 0 ? 1.5f : 2.0f;
    rule.scale_width = k / 32 % 2 == 1;
    rule.detach_reset = k / 64 % 2 == 1;
    return rule;
}
constexpr size_t rules = 128;

}  // namespace

TEST_CASE("neuron forward equals the reference bit for bit") {
    for (const auto* table : test::tables_to_test()) {
        CAPTURE(table->name);
        uint64_t seed = 1;
        for (size_t size : test::sizes)
            for (size_t params : param_counts)
                for (size_t steps : {size_t(0), size_t(1), size_t(4), size_t(9)}) {
                    Case c = {rule_number(seed % 8), {steps, size, params, seed % 5 == 0},
                              seed % 3 == 0,         seed % 7 != 0,
                              seed % 4 != 0,         seed};
                    CAPTURE(size);
                    CAPTURE(params);
                    CAPTURE(steps);
                    CAPTURE(seed);
                    check_forward(*table, c, 1 + int(seed % 3));
                    ++seed;
                }
        for (size_t k = 0; k < 8; ++k)  // several blocks, several threads
            check_forward(*table, {rule_number(k), {3, 5000, 7}, k % 2 == 0, true, true, k}, 3);
    }
}

TEST_CASE("neuron forward of the signed and the exact rule equals the reference bit for bit") {
    for (const auto* table : test::tables_to_test())
        for (size_t k = 0; k < 8; ++k)
            for (size_t size : test::sizes) {
                CAPTURE(table->name);
                CAPTURE(size);
                Case c = {rule_number(k), {6, size, 5, k % 3 == 0}, k % 2 == 1, true, false, k};
                c.rule.spiking = Spiking::negative;
                check_forward(*table, c, 2);
                c.rule.spiking = Spiking::exact;
                c.given_membrane = false;
                check_forward(*table, c, 2);
            }
}

TEST_CASE("neuron backward equals the reference, whatever the number of threads") {
    for (const auto* table : test::tables_to_test()) {
        CAPTURE(table->name);
        uint64_t seed = 1;
        for (size_t size : test::sizes)
            for (size_t params : param_counts) {
                CAPTURE(size);
                CAPTURE(params);
                CAPTURE(seed);
                Case c = {rule_number(seed * 37 % rules),
                          {seed % 6, size, params, seed % 5 == 0},
                          false,
                          true,
                          true,
                          seed};
                check_backward(*table, c, 1);
                ++seed;
            }
        for (size_t k = 0; k < rules; ++k) {
            CAPTURE(k);
            check_backward(*table, {rule_number(k), {4, 2100, 10}, false, true, true, k}, 2);
        }
        check_backward(*table, {rule_number(0), {300, 333, 64}, false, true, true, 5}, 2);
        check_backward(*table, {rule_number(0), {2, 9000, 1500}, false, true, true, 6}, 2);
    }
}

TEST_CASE("qcfs equals the reference bit for bit, and its threshold's gradient within a bound") {
    for (const auto* table : test::tables_to_test())
        for (size_t size :
             {size_t(0), size_t(1), size_t(15), size_t(17), size_t(1000), size_t(5003)})
            for (size_t params : param_counts) {
                CAPTURE(table->name);
                CAPTURE(size);
                CAPTURE(params);
                const auto lambda = positive(params, size + params);
                auto x = test::hard_values(size, size + 1);
                for (size_t i = 0; i < size; ++i) {  // the ends and every tie of eight levels
                    const float l = lambda[i % params];
                    if (i % 3 == 0) x[i] = l * float(i % 18) / 16;
                    if (i % 13 == 0) x[i] = l;
                }
                const auto dy = test::normal_values(size, size + 2);
                Guarded<float> y_ref(size), y(size), dx_ref(size), dx(size), dl_ref(params),
                    dl(params), dl_three(params), dx_alone(size);
                TestQueue one, two(2), three(3);
                one.reserve(reference().neuron.qcfs_backward_scratch(size, params));
                two.reserve(table->neuron.qcfs_backward_scratch(size, params));
                three.reserve(table->neuron.qcfs_backward_scratch(size, params));
                const float* l = lambda.data();
                reference().neuron.qcfs(one, x.data(), l, 8, y_ref, size, params);
                table->neuron.qcfs(two, x.data(), l, 8, y, size, params);
                CHECK(first_difference(y.data(), y_ref.data(), size) == size);
                reference().neuron.qcfs_backward(one, x.data(), l, 8, dy.data(), dx_ref, dl_ref,
                                                 size, params);
                table->neuron.qcfs_backward(two, x.data(), l, 8, dy.data(), dx, dl, size, params);
                table->neuron.qcfs_backward(three, x.data(), l, 8, dy.data(), dx_alone, dl_three,
                                            size, params);
                CHECK(first_difference(dx.data(), dx_ref.data(), size) == size);
                CHECK(first_difference(dl.data(), dl_three.data(), params) == params);
                // Each part, at most 1 in size times dy, is rounded four times; then 1024 are
                // added.
                std::vector<double> magnitude(params, 0);
                for (size_t i = 0; i < size; ++i) magnitude[i % params] += std::abs(dy[i]);
                size_t beyond = 0;
                for (size_t p = 0; p < params; ++p)
                    beyond += !(std::abs(dl[p] - dl_ref[p]) <= (1024 + 4) * 0x1p-24 * magnitude[p]);
                CHECK(beyond == 0);
                table->neuron.qcfs_backward(two, x.data(), l, 8, dy.data(), dx_alone, nullptr, size,
                                            params);
                CHECK(first_difference(dx_alone.data(), dx_ref.data(), size) == size);
                CHECK((y.ok() && dx.ok() && dl.ok()));
            }
}

TEST_CASE("exact neuron equals QCFS, and the signed neuron takes a spike back") {
    size_t count = 0;
    const auto* tables = usable(&count);
    for (size_t k = 0; k < count; ++k) {
        if (tables[k]->cuda) continue;
        const auto& neuron = tables[k]->neuron;
        CAPTURE(tables[k]->name);
        TestQueue queue;
        NeuronRule<float> rule;
        const float theta = 1, v0 = 0.5f, amplitude = 1;

        // Signed: 0.5 + 1 = 1.5 fires to 0.5; -1 takes it to -0.5, a negative spike gives 0.5 back;
        // then nothing is left to take back and -1.5 stays.
        rule.spiking = Spiking::negative;
        const float x[] = {1, -1, -2, 0};
        float y[4], v = 0.5f;
        neuron.forward(queue, rule, &theta, &v0, &amplitude, x, &v, y, nullptr, {4, 1, 1});
        CHECK(y[0] == 1);
        CHECK(y[1] == -1);
        CHECK(y[2] == 0);
        CHECK(y[3] == 0);
        CHECK(v == -1.5f);

        // Exact: the sum 2.75 rounds to 3 spikes in the first steps, whatever its order in time.
        rule.spiking = Spiking::exact;
        const float late[] = {-1.25f, 0, 0, 4};
        neuron.forward(queue, rule, &theta, &v0, &amplitude, late, nullptr, y, nullptr, {4, 1, 1});
        CHECK(y[0] + y[1] + y[2] == 3);
        CHECK(y[3] == 0);
    }
}
