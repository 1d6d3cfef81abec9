// NIR graphs by hand, and what networks do, for the tests of NIR.
#pragma once

#include <set>

#include "convert/nir.h"
#include "tests/convert_networks.h"

namespace nc::test {

inline NirField numbers(const std::vector<float>& values, std::vector<size_t> shape = {}) {
    if (shape.empty()) shape = {values.size()};
    return {std::move(shape), values};
}
inline NirField whole(const std::vector<int64_t>& values) {
    return {{values.size()}, values};
}
inline NirNode node(const std::string& type, std::map<std::string, NirField> fields) {
    NirNode out;
    out.type = type;
    out.fields = std::move(fields);
    return out;
}

// input and output of this shape around these nodes, in a row.
inline NirNode chain(const std::vector<int64_t>& shape, const std::vector<NirNode>& nodes,
                     const std::vector<int64_t>& out_shape) {
    NirNode g;
    g.type = "NIRGraph";
    g.nodes["input"] = node("Input", {{"shape", whole(shape)}});
    g.nodes["output"] = node("Output", {{"shape", whole(out_shape)}});
    std::string last = "input";
    for (size_t i = 0; i < nodes.size(); ++i) {
        const std::string name = "n" + std::to_string(i);
        g.nodes[name] = nodes[i];
        g.edges.emplace_back(last, name);
        last = name;
    }
    g.edges.emplace_back(last, "output");
    return g;
}

inline Graph read(const NirNode& g, double dt = default_dt) {
    return nir_to_graph(g, "net.nir", dt);
}
inline std::string refused(const NirNode& g) {
    return error_of([&] { read(g); });
}

// [T, 1, F] in, all values out.
inline std::vector<float> run_steps(const Graph& g, const std::vector<std::vector<float>>& steps) {
    Compute compute;
    std::vector<float> all;
    for (const auto& step : steps) all.insert(all.end(), step.begin(), step.end());
    Shape shape = std::get<Input>(g.nodes[find_node(g, "input")].op).shape;
    ForwardOptions how;
    how.temporal_input = true;
    const Tensor x = Tensor::from(all, shape.with_leading(1).with_leading(steps.size()));
    return forward(compute, g, {}, x, how).output.value.to_vector<float>();
}

inline std::string golden(const std::string& name) {
    const char* root = std::getenv("NC_GOLDEN");
    if (root == nullptr || *root == 0) {
        skip("NC_GOLDEN is not set");
        return "";
    }
    return (std::filesystem::path(root) / "nir" / name).string();
}

// Equal as files: every field, to the bit.
inline bool same_fields(const std::map<std::string, NirField>& a,
                        const std::map<std::string, NirField>& b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](auto& x, auto& y) {
               return x.first == y.first && x.second.shape == y.second.shape &&
                      x.second.values == y.second.values;
           });
}
inline bool same_tree(const NirNode& a, const NirNode& b) {
    return a.type == b.type && a.edges == b.edges && same_fields(a.fields, b.fields) &&
           same_fields(a.metadata, b.metadata) && a.nodes.size() == b.nodes.size() &&
           std::equal(a.nodes.begin(), a.nodes.end(), b.nodes.begin(), [](auto& x, auto& y) {
               return x.first == y.first && same_tree(x.second, y.second);
           });
}

// Spikes of every neuron, by name.
inline std::map<std::string, std::vector<float>> spikes(const Graph& g, const Tensor& x, int T) {
    Compute compute;
    std::map<std::string, std::vector<float>> out;
    ForwardOptions how;
    how.T = size_t(T);
    how.observe = [&](const Observation& o) {
        if (emits_spikes(g.nodes[o.node].op)) out[g.nodes[o.node].name] = o.y.to_vector<float>();
    };
    forward(compute, g, {}, x, how);
    return out;
}

inline size_t total(const std::map<std::string, std::vector<float>>& trains) {
    size_t count = 0;
    for (const auto& [name, train] : trains)
        count += size_t(std::count_if(train.begin(), train.end(), [](float y) { return y != 0; }));
    return count;
}

}  // namespace nc::test
