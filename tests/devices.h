// Where the tests of a device run, and the networks they run there.
#pragma once

#include "neurons/zoo.h"
#include "tests/convert_networks.h"

namespace nc::test {

// The emulated device always, whose memory the host cannot touch; the real card with each of its
// tables where there is one.
struct Place {
    const kernels::Table<float>* table;
    const kernels::Backend* backend;
};

inline std::vector<Place> places() {
    std::vector<Place> out = {
        {&kernels::on_cuda_emulated::table(), &kernels::on_cuda_emulated::backend()}};
    for (const auto* table : {kernels::cuda(), kernels::cuda_vendor()})
        if (table != nullptr) out.push_back({table, kernels::cuda_backend()});
    return out;
}

// Calls body(compute) for each device.
template <class Body>
void on_devices(Body body) {
    for (const Place& p : places()) {
        INFO(std::string(p.table->name));
        Compute compute(*p.table, *p.backend);
        body(compute);
        compute.wait();
    }
}

// conv, batch norm, relu, max pool; conv, batch norm + the pooled, qcfs; average pool, linear.
inline Graph analog_network() {
    Graph g;
    const auto conv3 = [](size_t cin, size_t cout, uint64_t seed) {
        Conv c{random_tensor({3, 3, cin, cout}, seed, 1 / std::sqrt(9.0 * double(cin))),
               random_tensor({cout}, seed + 1, 0.1),
               {}};
        c.options.pad_h = c.options.pad_w = 1;
        return c;
    };
    const size_t in = add_node(g, "in", Input{{8, 8, 1}}, {});
    const size_t c1 = add_node(g, "c1", conv3(1, 6, 1), {in});
    const size_t b1 = add_node(g, "b1", random_norm(6, 3), {c1});
    const size_t a1 = add_node(g, "a1", Activation{}, {b1});
    const size_t m1 = add_node(g, "m1", MaxPool{}, {a1});
    const size_t c2 = add_node(g, "c2", conv3(6, 6, 7), {m1});
    const size_t b2 = add_node(g, "b2", random_norm(6, 9), {c2});
    const size_t q2 = add_node(g, "q2", Qcfs{Tensor::full<float>({6}, 1.5f), 4}, {b2, m1});
    const size_t p2 = add_node(g, "p2", AveragePool{}, {q2});
    const size_t flat = add_node(g, "flat", Flatten{}, {p2});
    const size_t fc = add_node(
        g, "fc", Linear{random_tensor({24, 4}, 13, 0.2), random_tensor({4}, 14, 0.1)}, {flat});
    add_node(g, "out", Output{}, {fc});
    return g;
}

// The same kinds of layers with neurons, trained directly: thresholds too.
inline Graph spiking_network() {
    Graph g = analog_network();
    Neuron lif = default_neuron("lif"), integrate = default_neuron("if");
    lif.theta = Tensor::full<float>({1}, 0.7f);
    integrate.theta = Tensor::full<float>({6}, 0.8f);
    lif.train_theta = integrate.train_theta = true;
    g = replace(g, find_node(g, "a1"), lif);
    g = replace(g, find_node(g, "m1"), AveragePool{});
    return replace(g, find_node(g, "q2"), integrate);
}

}  // namespace nc::test
