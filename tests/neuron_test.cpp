// What neurons mean: back-propagation through time against hand-written recurrences, and the
// identity between integrate-and-fire counts and QCFS.
#include "tests/check.h"
#include "tests/neuron_recurrences.h"

using namespace nc;
using namespace nc::kernels;
using nc::test::recurrences;
using nc::test::TestQueue;

TEST_CASE("BPTT equals the hand-written recurrences in double") {
    const auto& neuron = reference_double().neuron;
    for (double beta : {1.0, 0.5})
        for (Reset reset : {Reset::subtract, Reset::to_value})
            for (Surrogate surrogate :
                 {Surrogate::atan, Surrogate::triangle, Surrogate::rectangle, Surrogate::sigmoid})
                for (int flags = 0; flags < 16; ++flags) {
                    NeuronRule<double> rule;
                    rule.beta = beta;
                    rule.reset = reset;
                    rule.reset_value = 0.125;
                    rule.surrogate = surrogate;
                    rule.surrogate_width = surrogate == Surrogate::sigmoid ? 4 : 2;
                    rule.detach_reset = flags & 1;
                    rule.scale_width = flags & 2;
                    const bool learnt = flags & 4, constant = flags & 8;
                    const size_t steps = 7, size = 9, params = 3;
                    const std::vector<double> theta = {0.5, 0.75, 1.5};
                    std::vector<double> v0 = {0.1, 0, 0.3}, amplitude = {1, 0.5, 2};
                    if (learnt) amplitude = theta;
                    if (learnt) v0 = {0.25, 0.375, 0.75};
                    auto x = test::normal_values<double>((constant ? 1 : steps) * size, 5, 0.7);
                    for (double& current : x) current += 0.4;
                    const auto dy = test::normal_values<double>(steps * size, 6);
                    const ScanShape shape = {steps, size, params, constant};
                    std::vector<double> y(steps * size), dx(x.size()), dtheta(params);
                    std::vector<uint64_t> bits(steps);
                    TestQueue queue;
                    queue.reserve(neuron.backward_scratch(shape, true, 1));
                    neuron.forward(queue, rule, theta.data(), v0.data(), amplitude.data(), x.data(),
                                   nullptr, y.data(), bits.data(), shape);
                    neuron.backward(queue, rule, theta.data(), v0.data(), amplitude.data(), learnt,
                                    learnt, x.data(), bits.data(), dy.data(), dx.data(),
                                    dtheta.data(), shape);
                    std::vector<double> want(params, 0);
                    size_t spikes = 0;
                    for (size_t i = 0; i < size; ++i) {
                        std::vector<double> xs(steps), gs(steps);
                        for (size_t t = 0; t < steps; ++t) {
                            xs[t] = x[(constant ? 0 : t * size) + i];
                            gs[t] = dy[t * size + i];
                        }
                        const size_t p = i % params;
                        const auto hand =
                            recurrences(rule, theta[p], v0[p], amplitude[p], learnt, xs, gs);
                        double dx_sum = 0;
                        for (size_t t = 0; t < steps; ++t) {
                            CHECK(y[t * size + i] == amplitude[p] * hand.s[t]);
                            spikes += hand.s[t] != 0;
                            dx_sum += hand.dx[t];
                            if (!constant)
                                CHECK(dx[t * size + i] ==
                                      doctest::Approx(hand.dx[t]).epsilon(1e-12));
                        }
                        if (constant) CHECK(dx[i] == doctest::Approx(dx_sum).epsilon(1e-12));
                        want[p] += hand.dtheta;
                    }
                    for (size_t p = 0; p < params; ++p)
                        CHECK(dtheta[p] == doctest::Approx(want[p]).epsilon(1e-11));
                    CHECK(spikes > 10);
                    CHECK(spikes < steps * size - 10);
                }
}

TEST_CASE("an integrate-and-fire count over T equals QCFS with T levels on the dyadic grid") {
    size_t count = 0;
    const auto* tables = usable(&count);
    for (size_t k = 0; k < count; ++k) {
        if (tables[k]->cuda) continue;
        const auto& neuron = tables[k]->neuron;
        CAPTURE(tables[k]->name);
        for (float theta : {0.5f, 0.75f, 1.0f, 3.0f})
            for (size_t steps = 1; steps <= 32; ++steps) {
                std::vector<float> x;
                for (int i = -70; i <= 200; ++i) x.push_back(float(i) * theta / 64);
                const size_t size = x.size();
                const float half = theta / 2;
                std::vector<float> y(steps * size), qcfs(size);
                for (Spiking spiking : {Spiking::plain, Spiking::exact}) {
                    NeuronRule<float> rule;
                    rule.spiking = spiking;
                    TestQueue queue;
                    neuron.forward(queue, rule, &theta, &half, &theta, x.data(), nullptr, y.data(),
                                   nullptr, {steps, size, 1, true});
                    neuron.qcfs(queue, x.data(), &theta, int(steps), qcfs.data(), size, 1);
                    size_t differ = 0;
                    for (size_t i = 0; i < size; ++i) {
                        size_t spikes = 0;
                        for (size_t t = 0; t < steps; ++t) spikes += y[t * size + i] == theta;
                        differ += theta * float(spikes) / float(steps) != qcfs[i];
                    }
                    CAPTURE(theta);
                    CAPTURE(steps);
                    CHECK(differ == 0);
                }
            }
    }
}
