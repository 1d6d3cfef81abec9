// What a Graph says about itself: its tensors, names, order and counts; and check().
#include "engine/graph.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>
#include <set>
#include <tuple>
#include <unordered_set>

namespace nc {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
    using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

// The visit of both for_each_tensor; Op is an operation, const or not.
template <class Op, class Visit>
void visit_tensors(Op& operation, const Visit& visit) {
    std::visit(
        [&](auto& op) {
            using T = std::remove_cvref_t<decltype(op)>;
            if constexpr (std::is_same_v<T, Linear> || std::is_same_v<T, Conv>) {
                visit("weight", op.weight, TensorRole::weight);
                visit("bias", op.bias, TensorRole::bias);
            } else if constexpr (std::is_same_v<T, BatchNorm>) {
                visit("gamma", op.gamma, TensorRole::norm);
                visit("beta", op.beta, TensorRole::norm);
                visit("mean", op.mean, TensorRole::statistic);
                visit("variance", op.variance, TensorRole::statistic);
            } else if constexpr (std::is_same_v<T, PRelu>) {
                visit("slope", op.slope, TensorRole::norm);
            } else if constexpr (std::is_same_v<T, Qcfs>) {
                visit("lambda", op.lambda, TensorRole::threshold);
            } else if constexpr (std::is_same_v<T, Neuron>) {
                visit("theta", op.theta, TensorRole::threshold);
                visit("v0", op.v0, TensorRole::statistic);
            } else if constexpr (std::is_same_v<T, StepBias>) {
                visit("bias", op.bias, TensorRole::bias);
            } else if constexpr (std::is_same_v<T, Scale>) {
                visit("scale", op.scale, TensorRole::norm);
            } else if constexpr (std::is_same_v<T, Membrane>) {
                visit("r", op.r, TensorRole::statistic);
                visit("tau", op.tau, TensorRole::statistic);
                visit("v_leak", op.v_leak, TensorRole::statistic);
                visit("tau_syn", op.tau_syn, TensorRole::statistic);
                visit("w_in", op.w_in, TensorRole::statistic);
                visit("threshold", op.threshold, TensorRole::statistic);
                visit("v_reset", op.v_reset, TensorRole::statistic);
            } else if constexpr (std::is_same_v<T, Threshold>) {
                visit("threshold", op.threshold, TensorRole::statistic);
            } else {
                static_assert(std::is_same_v<T, Input> || std::is_same_v<T, Output> ||
                                  std::is_same_v<T, Activation> || std::is_same_v<T, AveragePool> ||
                                  std::is_same_v<T, MaxPool> ||
                                  std::is_same_v<T, GlobalAveragePool> ||
                                  std::is_same_v<T, Flatten> || std::is_same_v<T, Add>,
                              "an operation whose tensors are not listed");
            }
        },
        operation);
}

[[noreturn]] void refuse(const std::string& what) {
    throw Error("[graph] " + what, ErrorKind::model);
}

std::string quoted(const std::string& name) {
    return "'" + name + "'";
}

bool valid_name(const std::string& name) {
    return !name.empty() && name.size() <= 256 && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '.' || c == '-';
    });
}

void check_names(const Graph& g) {
    std::unordered_set<std::string> seen;
    for (const Node& node : g.nodes) {
        if (!valid_name(node.name))
            refuse("a name is 1 to 256 of A-Z a-z 0-9 _ . -, not " + quoted(node.name));
        if (!seen.insert(node.name).second) refuse("two nodes are named " + quoted(node.name));
    }
}

void check_edges(const Graph& g) {
    std::set<std::tuple<size_t, size_t, int>> seen;
    for (const Edge& e : g.edges) {
        if (e.from >= g.nodes.size() || e.to >= g.nodes.size())
            refuse("edge " + std::to_string(e.from) + " -> " + std::to_string(e.to) + " of " +
                   std::to_string(g.nodes.size()) + " nodes");
        const std::string text =
            "edge " + quoted(g.nodes[e.from].name) + " -> " + quoted(g.nodes[e.to].name);
        if (e.delay < 0) refuse(text + " has the delay " + std::to_string(e.delay));
        if (!seen.insert({e.from, e.to, e.delay}).second) refuse(text + " exists twice");
        if (std::holds_alternative<Output>(g.nodes[e.from].op)) refuse(text + " leaves an output");
        if (std::holds_alternative<Input>(g.nodes[e.to].op)) refuse(text + " enters an input");
    }
}

template <class Op>
void check_single(const Graph& g, const char* what) {
    const Node* found = nullptr;
    for (const Node& node : g.nodes) {
        if (!std::holds_alternative<Op>(node.op)) continue;
        if (found != nullptr)
            refuse("two nodes are the " + std::string(what) + ": " + quoted(found->name) + " and " +
                   quoted(node.name));
        found = &node;
    }
    if (found == nullptr) refuse("there is no " + std::string(what));
}

// Which nodes a walk from the nodes of this kind reaches, along all edges or against them.
template <class Op>
std::vector<bool> reached_from(const Graph& g, bool backward) {
    std::vector<std::vector<size_t>> next(g.nodes.size());
    for (const Edge& e : g.edges)
        next[backward ? e.to : e.from].push_back(backward ? e.from : e.to);
    std::vector<bool> seen(g.nodes.size());
    std::vector<size_t> open;
    for (size_t i = 0; i < g.nodes.size(); ++i)
        if (std::holds_alternative<Op>(g.nodes[i].op)) {
            seen[i] = true;
            open.push_back(i);
        }
    while (!open.empty()) {
        const size_t node = open.back();
        open.pop_back();
        for (const size_t other : next[node])
            if (!seen[other]) {
                seen[other] = true;
                open.push_back(other);
            }
    }
    return seen;
}

void check_values(const Node& node, const char* field, const Tensor& t, const char* wanted,
                  bool (*good)(double)) {
    const bool here = t.defined() && t.dtype() == DType::f32 && t.device() == Device{};
    const float* floats = here ? t.data<float>() : nullptr;
    for (size_t i = 0; i < t.elements(); ++i) {
        const double value =
            here ? floats[i] : t.reshape(Shape{t.elements()}).slice(i, i + 1).item();
        if (!good(value))
            refuse("node " + quoted(node.name) + ": " + field + "[" + std::to_string(i) + "] is " +
                   std::to_string(value) + ", not " + wanted);
    }
}

void check_number(const Node& node, const char* field, double value, const char* wanted,
                  bool good) {
    if (!good)
        refuse("node " + quoted(node.name) + ": " + field + " is " + std::to_string(value) +
               ", not " + wanted);
}

bool positive(double x) {
    return std::isfinite(x) && x > 0;
}

bool finite(double x) {
    return std::isfinite(x);
}

void check_fields(const Node& node) {
    const auto number = [&](const char* field, double value, const char* wanted, bool good) {
        check_number(node, field, value, wanted, good);
    };
    std::visit(
        Overloaded{
            [&](const Input& input) {
                number("scale", input.scale, "finite and >= 0",
                       std::isfinite(input.scale) && input.scale >= 0);
            },
            [&](const BatchNorm& bn) {
                number("eps", bn.eps, "positive", positive(bn.eps));
                number("momentum", bn.momentum, "in [0, 1]", bn.momentum >= 0 && bn.momentum <= 1);
                check_values(node, "variance", bn.variance, "finite and >= 0",
                             [](double x) { return std::isfinite(x) && x >= 0; });
            },
            [&](const Activation& a) {
                number("param", a.param, "finite", std::isfinite(a.param));
            },
            [&](const Qcfs& q) {
                number("levels", q.levels, "in [1, 65536]", q.levels >= 1 && q.levels <= 65536);
                check_values(node, "lambda", q.lambda, "positive", positive);
            },
            [&](const Neuron& n) {
                check_values(node, "theta", n.theta, "positive", positive);
                check_values(node, "v0", n.v0, "finite", finite);
                number("v0_fraction", n.v0_fraction, "finite", std::isfinite(n.v0_fraction));
                number("beta", n.rule.beta, "in [0, 1]", n.rule.beta >= 0 && n.rule.beta <= 1);
                number("reset_value", n.rule.reset_value, "finite",
                       std::isfinite(n.rule.reset_value));
                number("surrogate_width", n.rule.surrogate_width, "positive",
                       positive(n.rule.surrogate_width));
            },
            [&](const Membrane& m) {
                number("dt", m.dt, "positive", positive(m.dt));
                check_values(node, "tau", m.tau, "positive", positive);
                check_values(node, "tau_syn", m.tau_syn, "positive", positive);
                check_values(node, "r", m.r, "finite", finite);
                check_values(node, "v_leak", m.v_leak, "finite", finite);
                check_values(node, "w_in", m.w_in, "finite", finite);
                check_values(node, "threshold", m.threshold, "finite", finite);
                check_values(node, "v_reset", m.v_reset, "finite", finite);
            },
            [&](const Threshold& t) {
                check_values(node, "threshold", t.threshold, "finite", finite);
            },
            [](const auto&) {},
        },
        node.op);
}

}  // namespace

void for_each_tensor(Node& node,
                     const std::function<void(const char*, Tensor&, TensorRole)>& visit) {
    visit_tensors(node.op, visit);
}

void for_each_tensor(const Node& node,
                     const std::function<void(const char*, const Tensor&, TensorRole)>& visit) {
    visit_tensors(node.op, visit);
}

std::string_view operation_name(const Operation& operation) {
    return std::visit(Overloaded{
                          [](const Input&) { return "input"; },
                          [](const Output&) { return "output"; },
                          [](const Linear&) { return "linear"; },
                          [](const Conv&) { return "conv"; },
                          [](const BatchNorm&) { return "batch_norm"; },
                          [](const Activation&) { return "activation"; },
                          [](const PRelu&) { return "prelu"; },
                          [](const Qcfs&) { return "qcfs"; },
                          [](const Neuron&) { return "neuron"; },
                          [](const AveragePool&) { return "average_pool"; },
                          [](const MaxPool&) { return "max_pool"; },
                          [](const GlobalAveragePool&) { return "global_average_pool"; },
                          [](const Flatten&) { return "flatten"; },
                          [](const Scale&) { return "scale"; },
                          [](const Add&) { return "add"; },
                          [](const StepBias&) { return "step_bias"; },
                          [](const Membrane&) { return "membrane"; },
                          [](const Threshold&) { return "threshold"; },
                      },
                      operation);
}

void check(const Graph& g) {
    check_names(g);
    check_single<Input>(g, "input");
    check_single<Output>(g, "output");
    check_edges(g);
    topological_order(g);
    const std::vector<bool> between = between_input_and_output(g);
    for (size_t i = 0; i < g.nodes.size(); ++i)
        if (!between[i])
            refuse("node " + quoted(g.nodes[i].name) +
                   " is on no path from the input to the output");
    infer_shapes(g);
    for (const Node& node : g.nodes) check_fields(node);
}

// Kahn (1962), the smallest index first: a graph already in order keeps it.
std::vector<size_t> topological_order(const Graph& g) {
    const size_t n = g.nodes.size();
    std::vector<std::vector<size_t>> next(n);
    std::vector<size_t> waiting(n);
    for (const Edge& e : g.edges) {
        if (e.from >= n || e.to >= n)
            refuse("edge " + std::to_string(e.from) + " -> " + std::to_string(e.to) + " of " +
                   std::to_string(n) + " nodes");
        if (e.delay != 0) continue;
        next[e.from].push_back(e.to);
        ++waiting[e.to];
    }
    std::priority_queue<size_t, std::vector<size_t>, std::greater<>> ready;
    for (size_t i = 0; i < n; ++i)
        if (waiting[i] == 0) ready.push(i);
    std::vector<size_t> order;
    while (!ready.empty()) {
        const size_t node = ready.top();
        ready.pop();
        order.push_back(node);
        for (const size_t other : next[node])
            if (--waiting[other] == 0) ready.push(other);
    }
    if (order.size() == n) return order;

    // Every node left has a predecessor that is left: walking back must meet a node twice.
    std::vector<size_t> before(n);
    for (size_t i = 0; i < n; ++i)
        if (waiting[i] > 0)
            for (const size_t other : next[i]) before[other] = i;
    size_t node = 0;
    while (waiting[node] == 0) ++node;
    std::vector<bool> seen(n);
    for (; !seen[node]; node = before[node]) seen[node] = true;
    std::string cycle = quoted(g.nodes[node].name);
    for (size_t i = before[node]; i != node; i = before[i])
        cycle = quoted(g.nodes[i].name) + " -> " + cycle;
    refuse("cycle among edges of delay 0: " + quoted(g.nodes[node].name) + " -> " + cycle);
}

std::vector<bool> between_input_and_output(const Graph& g) {
    std::vector<bool> out = reached_from<Input>(g, false);
    const std::vector<bool> to_output = reached_from<Output>(g, true);
    for (size_t i = 0; i < out.size(); ++i) out[i] = out[i] && to_output[i];
    return out;
}

std::vector<size_t> inputs_of(const Graph& g, size_t node) {
    std::vector<size_t> out;
    for (size_t i = 0; i < g.edges.size(); ++i)
        if (g.edges[i].to == node) out.push_back(i);
    return out;
}

std::vector<size_t> outputs_of(const Graph& g, size_t node) {
    std::vector<size_t> out;
    for (size_t i = 0; i < g.edges.size(); ++i)
        if (g.edges[i].from == node) out.push_back(i);
    return out;
}

size_t find_node(const Graph& g, std::string_view name) {
    for (size_t i = 0; i < g.nodes.size(); ++i)
        if (g.nodes[i].name == name) return i;
    std::vector<std::string> names;
    for (const Node& node : g.nodes) names.push_back(node.name);
    const std::string wanted(name);
    throw Error("[graph] no node is named " + quoted(wanted), ErrorKind::model,
                suggestion(wanted, names));
}

bool is_spiking(const Graph& g) {
    return std::any_of(g.nodes.begin(), g.nodes.end(), [](const Node& n) {
        return std::holds_alternative<Neuron>(n.op) || std::holds_alternative<Membrane>(n.op);
    });
}

bool emits_spikes(const Operation& op) {
    const auto* membrane = std::get_if<Membrane>(&op);
    return std::holds_alternative<Neuron>(op) || std::holds_alternative<Threshold>(op) ||
           (membrane && membrane->threshold.defined());
}

bool is_residual(const Graph& g) {
    std::vector<size_t> incoming(g.nodes.size());
    for (const Edge& e : g.edges)
        if (e.delay == 0 && ++incoming.at(e.to) == 2) return true;
    return false;
}

size_t weight_layers(const Graph& g) {
    return size_t(std::count_if(g.nodes.begin(), g.nodes.end(), [](const Node& n) {
        return std::holds_alternative<Linear>(n.op) || std::holds_alternative<Conv>(n.op);
    }));
}

size_t parameter_count(const Graph& g) {
    size_t count = 0;
    for (const Node& node : g.nodes)
        for_each_tensor(node, [&](const char*, const Tensor& t, TensorRole role) {
            if (role != TensorRole::statistic) count += t.elements();
        });
    return count;
}

size_t add_node(Graph& g, const std::string& name, Operation op, const std::vector<size_t>& from) {
    const size_t index = g.nodes.size();
    for (const size_t source : from)
        if (source >= index)
            refuse("node " + quoted(name) + " after node " + std::to_string(source) + " of " +
                   std::to_string(index));
    g.nodes.push_back({name, std::move(op)});
    for (const size_t source : from) g.edges.push_back({source, index});
    return index;
}

Graph on_device(Graph graph, const Compute& compute) {
    if (compute.on_host()) return graph;
    for (Node& node : graph.nodes) {
        if (auto* neuron = std::get_if<Neuron>(&node.op)) {
            const auto theta = neuron->theta.to_vector<float>();
            if (std::all_of(theta.begin(), theta.end(), [](float t) { return t == 1; }))
                neuron->amplitude = Neuron::Amplitude::one;
        }
        for_each_tensor(node, [&](const char*, Tensor& tensor, TensorRole) {
            tensor = tensor.to(*compute.allocator);
        });
    }
    return graph;
}

Graph on_host(Graph graph) {
    for (Node& node : graph.nodes)
        for_each_tensor(node,
                        [](const char*, Tensor& tensor, TensorRole) { tensor = tensor.to_host(); });
    return graph;
}

}  // namespace nc
