// Permutations of tensors; no value is changed.
#include "io/layout.h"

#include <cstring>

namespace nc {
namespace {

// out[i, j, ..] of sizes permuted: axis k of out is axis axes[k] of x. f32 only.
Tensor permuted(const Tensor& x, const std::vector<size_t>& axes) {
    const Shape& from = x.shape();
    const size_t rank = from.rank();
    std::vector<size_t> stride(rank, 1), sizes, step;
    for (size_t k = rank; k-- > 1;) stride[k - 1] = stride[k] * from[k];
    for (const size_t axis : axes) {
        sizes.push_back(from[axis]);
        step.push_back(stride[axis]);
    }
    Tensor out{Shape(sizes)};
    float* to = out.data<float>();
    const float* values = x.data<float>();
    std::vector<size_t> index(rank, 0);
    size_t at = 0;
    for (size_t i = 0; i < x.elements(); ++i) {
        to[i] = values[at];
        for (size_t k = rank; k-- > 0;) {
            at += step[k];
            if (++index[k] < sizes[k]) break;
            at -= step[k] * sizes[k];
            index[k] = 0;
        }
    }
    return out;
}

// Rows of the leading axis, which enumerates a map [h, w, c] here and [c, h, w] in files.
Tensor map_rows(const Tensor& x, const Shape& map, bool to_file) {
    const size_t h = map[0], w = map[1], c = map[2], rest = x.elements() / (h * w * c);
    const Tensor split = to_file ? permuted(x.reshape({h, w, c, rest}), {2, 0, 1, 3})
                                 : permuted(x.reshape({c, h, w, rest}), {1, 2, 0, 3});
    return split.reshape(x.shape());
}

// For every node the map [H, W, C] that its input's and its output's values enumerate; rank 0 when
// they do not. Where edges disagree the first without delay counts, if there is one: any fixed
// choice can be undone.
struct Maps {
    std::vector<Shape> in, out;
};
Maps maps_of(const Graph& graph) {
    const auto shapes = infer_shapes(graph);
    const auto order = topological_order(graph);
    const size_t n = graph.nodes.size();
    constexpr size_t none = size_t(-1);
    std::vector<size_t> from(n, none);
    for (const bool delayed : {false, true})
        for (const Edge& edge : graph.edges)
            if (from[edge.to] == none && (edge.delay != 0) == delayed) from[edge.to] = edge.from;
    Maps maps{std::vector<Shape>(n), std::vector<Shape>(n)};
    // Once is enough but for delayed edges, whose sources may come later.
    for (bool changed = true; changed;) {
        changed = false;
        for (const size_t node : order) {
            const Operation& op = graph.nodes[node].op;
            if (from[node] != none) maps.in[node] = maps.out[from[node]];
            Shape out;
            if (shapes[node].rank() == 3)
                out = shapes[node];
            else if (!std::holds_alternative<Linear>(op) &&
                     !std::holds_alternative<GlobalAveragePool>(op))
                out = maps.in[node];
            changed = changed || !(out == maps.out[node]);
            maps.out[node] = out;
        }
    }
    return maps;
}

// Transposes the weights' axes.
void transpose_weights(Graph& graph, bool to_file) {
    for (auto& node : graph.nodes) {
        const auto swap = [&](Tensor& weight, const std::vector<size_t>& axes) {
            if (!weight.defined() || weight.shape().rank() != axes.size())
                throw Error("[graph] node '" + node.name + "': a weight of rank " +
                                std::to_string(axes.size()) + " wanted, found " +
                                (weight.defined() ? weight.shape().str() : "none"),
                            ErrorKind::model);
            weight = permuted(weight, axes);
        };
        if (auto* conv = std::get_if<Conv>(&node.op))
            swap(conv->weight,
                 to_file ? std::vector<size_t>{3, 2, 0, 1} : std::vector<size_t>{2, 3, 1, 0});
        if (auto* linear = std::get_if<Linear>(&node.op)) swap(linear->weight, {1, 0});
    }
}

// Permutes what enumerates a map; weights are in this program's order.
void permute_maps(Graph& graph, bool to_file) {
    const auto maps = maps_of(graph).in;
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
        const Shape& map = maps[i];
        if (map.rank() != 3) continue;
        Node& node = graph.nodes[i];
        if (std::holds_alternative<Conv>(node.op)) continue;
        for_each_tensor(node, [&](const char* field, Tensor& tensor, TensorRole) {
            // A Linear's outputs may be as many as its inputs, but do not enumerate the map.
            const bool linear_bias =
                std::holds_alternative<Linear>(node.op) && std::strcmp(field, "bias") == 0;
            if (!tensor.defined() || linear_bias) return;
            if (tensor.shape().rank() >= 1 && tensor.shape()[0] == map.elements())
                tensor = map_rows(tensor, map, to_file);
        });
    }
}

}  // namespace

std::vector<Shape> output_maps(const Graph& graph) {
    return maps_of(graph).out;
}

Graph to_file_order(const Graph& graph) {
    check(graph);
    Graph out = graph;
    permute_maps(out, true);
    transpose_weights(out, true);
    return out;
}

Graph from_file_order(const Graph& graph) {
    Graph out = graph;
    transpose_weights(out, false);
    check(out);
    permute_maps(out, false);
    return out;
}

}  // namespace nc
