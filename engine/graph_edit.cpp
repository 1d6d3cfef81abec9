// Edits on a Graph, each a value in and a value out.
#include "engine/graph_edit.h"

#include <algorithm>

namespace nc {
namespace {

[[noreturn]] void refuse(const std::string& what) {
    throw Error("[graph_edit] " + what, ErrorKind::model);
}

void check_index(const char* what, size_t index, size_t count) {
    if (index >= count)
        refuse("no " + std::string(what) + " " + std::to_string(index) + " of " +
               std::to_string(count));
}

}  // namespace

Graph replace(Graph g, size_t node, Operation op) {
    check_index("node", node, g.nodes.size());
    g.nodes[node].op = std::move(op);
    return g;
}

Graph remove(Graph g, size_t node) {
    check_index("node", node, g.nodes.size());
    const std::string name = "'" + g.nodes[node].name + "'";
    if (std::holds_alternative<Input>(g.nodes[node].op) ||
        std::holds_alternative<Output>(g.nodes[node].op))
        refuse(name + " is the " + std::string(operation_name(g.nodes[node].op)));

    std::vector<Edge> incoming;
    for (const size_t i : inputs_of(g, node)) {
        if (g.edges[i].from == node) refuse(name + " feeds itself");
        incoming.push_back(g.edges[i]);
    }
    std::vector<Edge> edges;
    for (const Edge& e : g.edges) {
        if (e.to == node) continue;
        if (e.from != node) {
            edges.push_back(e);
            continue;
        }
        // c + (a + b) is not (c + a) + b in floats; (a + b) + c is what a, b, c in order give.
        const bool first = std::none_of(edges.begin(), edges.end(),
                                        [&](const Edge& other) { return other.to == e.to; });
        if (incoming.size() > 1 && !first)
            refuse("removing " + name + " would change the order of the sum into '" +
                   g.nodes[e.to].name + "'");
        for (const Edge& in : incoming) edges.push_back({in.from, e.to, in.delay + e.delay});
    }
    for (const Edge& e : edges)
        if (std::count(edges.begin(), edges.end(), e) > 1)
            refuse("removing " + name + " would make a second edge '" + g.nodes[e.from].name +
                   "' -> '" + g.nodes[e.to].name + "'");
    for (Edge& e : edges) {
        e.from -= e.from > node;
        e.to -= e.to > node;
    }
    g.edges = std::move(edges);
    g.nodes.erase(g.nodes.begin() + std::ptrdiff_t(node));
    return g;
}

Graph insert_on_edge(Graph g, size_t edge, const std::string& name, Operation op) {
    check_index("edge", edge, g.edges.size());
    const Edge old = g.edges[edge];
    const size_t added = add_node(g, name, std::move(op), {});
    g.edges[edge] = {added, old.to};  // keeps its place in the sum
    g.edges.push_back({old.from, added, old.delay});
    return g;
}

Graph insert_after(Graph g, size_t node, const std::string& name, Operation op) {
    check_index("node", node, g.nodes.size());
    const size_t added = add_node(g, name, std::move(op), {});
    for (Edge& e : g.edges)
        if (e.from == node) e.from = added;
    g.edges.push_back({node, added});
    return g;
}

Graph insert_before(Graph g, size_t node, const std::string& name, Operation op) {
    check_index("node", node, g.nodes.size());
    const size_t added = add_node(g, name, std::move(op), {});
    for (Edge& e : g.edges)
        if (e.to == node) e.to = added;
    g.edges.push_back({added, node});
    return g;
}

Graph sorted(const Graph& g) {
    const std::vector<size_t> order = topological_order(g);
    const std::vector<bool> kept = between_input_and_output(g);
    constexpr size_t dropped = size_t(-1);
    std::vector<size_t> index(g.nodes.size(), dropped);
    Graph out;
    for (const size_t node : order)
        if (kept[node]) {
            index[node] = out.nodes.size();
            out.nodes.push_back(g.nodes[node]);
        }
    for (const Edge& e : g.edges)
        if (index[e.from] != dropped && index[e.to] != dropped)
            out.edges.push_back({index[e.from], index[e.to], e.delay});
    return out;
}

std::string unique_name(const Graph& g, const std::string& wanted) {
    const auto taken = [&](const std::string& name) {
        return std::any_of(g.nodes.begin(), g.nodes.end(),
                           [&](const Node& node) { return node.name == name; });
    };
    std::string name = wanted;
    for (size_t i = 2; taken(name); ++i) name = wanted + "_" + std::to_string(i);
    return name;
}

}  // namespace nc
