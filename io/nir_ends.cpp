// A NIR graph of several inputs or outputs as one of one input and one output.
#include "engine/graph_edit.h"
#include "io/nir_parts.h"

namespace nc {
namespace {

constexpr size_t most_channels = 2048;  // of several inputs together: selections are squares

std::string quoted(const std::string& name) {
    return "'" + name + "'";
}

// Weights that take `own` of the channels.
Operation selection(bool map, size_t channels, size_t first, size_t own) {
    Tensor weight = Tensor::full<float>({own, channels}, 0);
    for (size_t k = 0; k < own; ++k) weight.data<float>()[k * channels + first + k] = 1;
    if (map) return Conv{weight.reshape({own, channels, 1, 1}), {}, {}};
    return Linear{weight, {}};
}

void check_ends(const Graph& g, const std::string& path) {
    for (const Edge& e : g.edges) {
        const bool leaves = std::holds_alternative<Output>(g.nodes[e.from].op);
        if (!leaves && !std::holds_alternative<Input>(g.nodes[e.to].op)) continue;
        throw Error("[" + path + "] the edge " + quoted(g.nodes[e.from].name) + " -> " +
                        quoted(g.nodes[e.to].name) +
                        (leaves ? " leaves an output" : " enters an input"),
                    ErrorKind::model);
    }
}

}  // namespace

std::string file_text(const Shape& s) {
    return s.rank() == 3 ? text_of({s[2], s[0], s[1]}) : text_of(s.to_vector());
}

Graph with_one_output(Graph g, const std::vector<std::string>& names, const std::string& output,
                      const std::string& path) {
    std::vector<std::string> outputs;
    std::string known;
    for (size_t i = 0; i < names.size(); ++i) {
        if (!std::holds_alternative<Output>(g.nodes[i].op)) continue;
        outputs.push_back(names[i]);
        known += (known.empty() ? "" : ", ") + quoted(names[i]);
    }
    if (outputs.size() < 2 && output.empty()) return g;
    if (output.empty())
        throw Error(
            "[" + path + "] the graph has " + std::to_string(outputs.size()) + " outputs: " + known,
            ErrorKind::model, "--output NAME takes one of them");
    if (std::find(outputs.begin(), outputs.end(), output) == outputs.end())
        throw Error("[" + path + "] no output is named " + quoted(output), ErrorKind::usage,
                    suggestion(output, outputs));
    check_ends(g, path);
    const std::vector<bool> used = between_input_and_output(g);
    for (size_t i = 0; i < names.size(); ++i)
        if (std::holds_alternative<Output>(g.nodes[i].op) && names[i] != output)
            g.nodes[i].op = Add{};
    const std::vector<bool> wanted = between_input_and_output(g);
    // What leads nowhere at all stays, to be refused.
    const auto stays = [&](size_t node) { return wanted[node] || !used[node]; };
    Graph out;
    std::vector<size_t> place(g.nodes.size());
    for (size_t i = 0; i < place.size(); ++i) {
        place[i] = out.nodes.size();
        if (stays(i)) out.nodes.push_back(g.nodes[i]);
    }
    for (const Edge& e : g.edges)
        if (stays(e.from) && stays(e.to))
            out.edges.push_back({place[e.from], place[e.to], e.delay});
    return out;
}

Graph with_one_input(Graph g, const std::string& path) {
    std::vector<size_t> inputs;
    const auto shape = [&](size_t node) { return std::get<Input>(g.nodes[node].op).shape; };
    size_t channels = 0;
    for (size_t i = 0; i < g.nodes.size(); ++i) {
        if (!std::holds_alternative<Input>(g.nodes[i].op)) continue;
        inputs.push_back(i);
        const Shape own = shape(i), first = shape(inputs.front());
        channels += own.back();
        if (own.rank() != first.rank() || !(own.with(own.rank() - 1, first.back()) == first))
            throw Error("[" + path + "] the inputs " + quoted(g.nodes[inputs.front()].name) + " " +
                            file_text(first) + " and " + quoted(g.nodes[i].name) + " " +
                            file_text(own) + " differ in more than their channels",
                        ErrorKind::model);
    }
    if (inputs.size() < 2) return g;
    check_ends(g, path);
    if (channels > most_channels)
        throw Error("[" + path + "] " + std::to_string(inputs.size()) + " inputs have " +
                        std::to_string(channels) + " channels together, more than " +
                        std::to_string(most_channels),
                    ErrorKind::model);
    const Shape one = shape(inputs.front());
    const Shape whole = one.with(one.rank() - 1, channels);
    const size_t all = add_node(g, unique_name(g, "input"), Input{whole}, {});
    size_t first = 0;
    for (const size_t i : inputs) {
        const size_t own = shape(i).back();
        g.nodes[i].op = selection(one.rank() == 3, channels, first, own);
        g.edges.push_back({all, i, 0});
        first += own;
    }
    return g;
}

}  // namespace nc
