// Which nodes run as one.
#include "neurons/forward_chains.h"

namespace nc {
namespace {

// The node that alone reads this one, and reads nothing else, at once.
std::optional<size_t> only_consumer(const Graph& g, const Links& links, size_t node) {
    if (links.uses[node] != 1) return std::nullopt;
    for (const Edge& edge : g.edges)
        if (edge.from == node && edge.delay == 0 && links.incoming[edge.to].size() == 1)
            return edge.to;
    return std::nullopt;
}

template <class Op>
bool is(const Graph& g, std::optional<size_t> node) {
    return node && std::holds_alternative<Op>(g.nodes[*node].op);
}

}  // namespace

Links::Links(const Graph& g) : incoming(g.nodes.size()), uses(g.nodes.size()) {
    for (size_t e = 0; e < g.edges.size(); ++e) {
        incoming.at(g.edges[e].to).push_back(e);
        ++uses.at(g.edges[e].from);
    }
}

std::optional<Chain> chain_from(const Graph& g, const Links& links, size_t node) {
    const auto next = [&](size_t from) { return only_consumer(g, links, from); };
    Chain chain;
    std::optional<size_t> at = node;
    if (links.incoming[node].size() != 1 || g.edges[links.incoming[node].front()].delay != 0)
        return std::nullopt;
    if (is<Flatten>(g, node)) {
        chain.flatten = node;
        at = next(node);
        if (!is<Linear>(g, at)) return std::nullopt;
    }
    if (!is<Linear>(g, at) && !is<Conv>(g, at)) return std::nullopt;
    chain.weight = *at;
    at = next(*at);
    if (is<BatchNorm>(g, at)) {
        chain.norm = at;
        at = next(*at);
    }
    if (!is<Neuron>(g, at)) return std::nullopt;
    if (std::get<Neuron>(g.nodes[*at].op).rule.spiking != kernels::Spiking::plain)
        return std::nullopt;
    chain.neuron = *at;
    at = next(*at);
    if (is<AveragePool>(g, at)) chain.pool = at;
    return chain;
}

std::optional<size_t> relu_after(const Graph& g, const Links& links, size_t node) {
    if (!is<BatchNorm>(g, node)) return std::nullopt;
    const std::optional<size_t> next = only_consumer(g, links, node);
    if (!is<Activation>(g, next)) return std::nullopt;
    const auto kind = std::get<Activation>(g.nodes[*next].op).kind;
    return kind == kernels::Activation::relu ? next : std::nullopt;
}

}  // namespace nc
