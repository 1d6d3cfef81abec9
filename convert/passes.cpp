// What is checked and rebuilt before calibration.
#include "convert/passes.h"

#include <set>

#include "engine/graph_edit.h"

namespace nc {

bool is_activation(const Operation& op) {
    return std::holds_alternative<Activation>(op) || std::holds_alternative<PRelu>(op) ||
           std::holds_alternative<Qcfs>(op);
}

void check_convertible(const Graph& g) {
    check(g);
    std::string refused;
    bool active = false;
    for (const Node& node : g.nodes) {
        active = active || is_activation(node.op);
        std::string why;
        if (const auto* a = std::get_if<Activation>(&node.op)) {
            if (a->kind == kernels::Activation::sigmoid) why = "sigmoid has no spiking form";
            if (a->kind == kernels::Activation::tanh) why = "tanh has no spiking form";
        }
        if (std::holds_alternative<Neuron>(node.op)) why = "is a spiking neuron already";
        if (std::holds_alternative<Membrane>(node.op)) why = "is a membrane already";
        if (std::holds_alternative<Threshold>(node.op)) why = "emits spikes already";
        if (!why.empty()) refused += (refused.empty() ? "'" : "; '") + node.name + "' " + why;
    }
    for (const Edge& e : g.edges)
        if (e.delay > 0)
            refused += (refused.empty() ? "'" : "; '") + g.nodes[e.from].name + "' -> '" +
                       g.nodes[e.to].name + "' is a delayed edge";
    if (!refused.empty())
        throw Error("[convert] cannot be converted: " + refused, ErrorKind::model,
                    is_spiking(g)
                        ? "a spiking network is tuned with `nc_convert finetune`"
                        : "use ReLU, LeakyReLU, PReLU, ReLU6, HardSwish, SiLU, GELU or QCFS");
    if (!active)
        throw Error("[convert] no activation in the network: nothing would spike",
                    ErrorKind::model);
}

Graph split_shared(Graph g) {
    std::set<const void*> seen;
    for (Node& node : g.nodes)
        for_each_tensor(node, [&](const char*, Tensor& t, TensorRole) {
            if (t.defined() && t.elements() > 0 && !seen.insert(t.raw()).second) t = t.clone();
        });
    return g;
}

namespace {

struct Surroundings {
    std::vector<bool> behind;  // an activation lies upstream with no weights in between
    std::vector<bool> ahead;   // ... downstream; a BatchNorm is no obstacle
};

Surroundings activations_around(const Graph& g) {
    const auto order = topological_order(g);
    Surroundings s{std::vector<bool>(g.nodes.size()), std::vector<bool>(g.nodes.size())};
    for (const size_t node : order)
        for (const size_t e : inputs_of(g, node)) {
            const size_t from = g.edges[e].from;
            const Operation& op = g.nodes[from].op;
            if (is_activation(op) || (passes_rates(op) && s.behind[from])) s.behind[node] = true;
        }
    for (auto it = order.rbegin(); it != order.rend(); ++it)
        for (const size_t e : outputs_of(g, *it)) {
            const size_t to = g.edges[e].to;
            const Operation& op = g.nodes[to].op;
            const bool passes = passes_rates(op) || std::holds_alternative<BatchNorm>(op);
            if (is_activation(op) || (passes && s.ahead[to])) s.ahead[*it] = true;
        }
    return s;
}

}  // namespace

Graph replace_max_pools(Graph g, MaxPools choice, const Warn& warn) {
    const Surroundings around = activations_around(g);
    for (size_t i = 0; i < g.nodes.size(); ++i) {
        const auto* pool = std::get_if<MaxPool>(&g.nodes[i].op);
        if (!pool) continue;
        const bool spikes = around.behind[i];
        const std::string name = "max pooling '" + g.nodes[i].name + "'";
        if (spikes || (around.ahead[i] && choice == MaxPools::average)) {
            g = replace(std::move(g), i, AveragePool{pool->options});
            if (warn)
                warn(name + (spikes ? " of activations" : " before an activation") +
                     " became average pooling; training recovers what that changes");
        } else if (warn) {
            warn(name +
                 " stays: its input is analog, so the maximum is taken at every step, which is "
                 "not the maximum of the mean");
        }
    }
    return g;
}

}  // namespace nc
