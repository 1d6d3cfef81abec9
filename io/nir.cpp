// What reading and writing NIR share: whole files, their metadata, cycles and sums over windows.
#include "io/nir.h"

#include <algorithm>

#include "io/bytes.h"
#include "io/nir_fields.h"

namespace nc {
namespace {

ModelInfo info_of(const NirNode& root, const std::string& path) {
    const Fields fields(root, "/node", path);
    const auto& metadata = root.metadata;
    const auto count = [&](const char* name, double most) {
        return int(std::clamp(fields.number(metadata, name).value_or(0), 0.0, most));
    };
    ModelInfo info;
    info.T = count("T", 65536);
    info.classes = count("classes", 1e6);
    info.dataset = fields.word(metadata, "dataset").value_or("");
    info.framing = fields.word(metadata, "framing").value_or("");
    for (auto [name, to] : {std::pair{"mean", &info.mean}, std::pair{"std", &info.std}})
        if (const auto found = metadata.find(name); found != metadata.end())
            *to = fields.floats(found->second, name);
    const bool good = info.mean.size() == info.std.size() &&
                      std::all_of(info.std.begin(), info.std.end(), [](float s) { return s > 0; });
    if (!good) fields.refuse("metadata mean and std do not normalise");
    if (const auto dt = fields.number(metadata, "dt")) info.provenance["dt"] = *dt;
    return info;
}

std::map<std::string, NirField> metadata_of(const ModelInfo& info) {
    std::map<std::string, NirField> out;
    const auto number = [&](const char* name, int value) {
        if (value > 0) out[name] = {{}, std::vector<int64_t>{value}};
    };
    const auto word = [&](const char* name, const std::string& value) {
        if (!value.empty()) out[name] = {{}, std::vector<std::string>{value}};
    };
    const auto floats = [&](const char* name, const std::vector<float>& values) {
        if (!values.empty()) out[name] = {{values.size()}, values};
    };
    number("T", info.T);
    number("classes", info.classes);
    word("dataset", info.dataset);
    word("framing", info.framing);
    floats("mean", info.mean);
    floats("std", info.std);
    return out;
}

// Neighbours among the nodes that are not done, along edges without delay.
struct Waiting {
    std::vector<std::vector<size_t>> next, before;
    std::vector<bool> done;

    explicit Waiting(const Graph& g)
        : next(g.nodes.size()), before(g.nodes.size()), done(g.nodes.size()) {
        for (const Edge& e : g.edges)
            if (e.delay == 0) {
                next[e.from].push_back(e.to);
                before[e.to].push_back(e.from);
            }
    }
    bool ready(size_t node) const {
        return !done[node] && std::all_of(before[node].begin(), before[node].end(),
                                          [&](size_t b) { return done[b]; });
    }
    // A walk in depth from every node in turn: the last to be left is in a component that no other
    // enters (Kosaraju).
    size_t in_first_component() const {
        std::vector<bool> seen = done;
        size_t last = 0;
        std::vector<std::pair<size_t, size_t>> path;  // node, next neighbour
        for (size_t start = 0; start < next.size(); ++start) {
            if (seen[start]) continue;
            seen[start] = true;
            path.push_back({start, 0});
            while (!path.empty()) {
                auto& [node, at] = path.back();
                if (at == next[node].size()) {
                    last = node;
                    path.pop_back();
                } else if (const size_t other = next[node][at++]; !seen[other]) {
                    seen[other] = true;
                    path.push_back({other, 0});
                }
            }
        }
        return last;
    }
    // All that leads to a node of such a component: the component.
    std::vector<size_t> component(size_t node) const {
        std::vector<bool> seen = done;
        std::vector<size_t> out{node};
        seen[node] = true;
        for (size_t i = 0; i < out.size(); ++i)
            for (const size_t b : before[out[i]])
                if (!seen[b]) {
                    seen[b] = true;
                    out.push_back(b);
                }
        return out;
    }
};

}  // namespace

Graph delay_cycles(Graph g) {
    Waiting waiting(g);
    std::vector<size_t> open;
    const auto finish = [&](size_t node) {
        waiting.done[node] = true;
        open.push_back(node);
    };
    const auto spread = [&] {
        for (; !open.empty();) {
            const size_t node = open.back();
            open.pop_back();
            for (const size_t other : waiting.next[node])
                if (waiting.ready(other)) finish(other);
        }
    };
    for (size_t i = 0; i < g.nodes.size(); ++i)
        if (waiting.before[i].empty()) finish(i);
    for (spread(); std::count(waiting.done.begin(), waiting.done.end(), false) > 0; spread()) {
        const std::vector<size_t> component = waiting.component(waiting.in_first_component());
        // The first by name of those entered from outside, else of all.
        const auto entered = [&](size_t node) {
            const auto& before = waiting.before[node];
            return std::any_of(before.begin(), before.end(),
                               [&](size_t b) { return waiting.done[b]; });
        };
        const size_t entry =
            *std::min_element(component.begin(), component.end(), [&](size_t a, size_t b) {
                const bool x = entered(a), y = entered(b);
                return x != y ? x : g.nodes[a].name < g.nodes[b].name;
            });
        for (Edge& e : g.edges)
            if (e.to == entry && e.delay == 0 && !waiting.done[e.from]) e.delay = 1;
        finish(entry);
    }
    return g;
}

Conv sum_pool(const ops::PoolOptions& o, size_t channels) {
    Conv out;
    out.weight = Tensor::full<float>({o.kh, o.kw, 1, channels}, 1);
    out.options.stride_h = o.stride_h;
    out.options.stride_w = o.stride_w;
    out.options.pad_h = o.pad_h;
    out.options.pad_w = o.pad_w;
    out.options.groups = channels;
    return out;
}

bool is_sum_pool(const Conv& conv) {
    const Shape& s = conv.weight.shape();
    const ops::ConvOptions& o = conv.options;
    if (conv.bias.defined() || s[2] != 1 || s[3] != o.groups || o.dilation_h * o.dilation_w != 1 ||
        2 * o.pad_h > s[0] || 2 * o.pad_w > s[1])
        return false;
    const float* w = conv.weight.data<float>();
    return std::all_of(w, w + conv.weight.elements(), [](float x) { return x == 1; });
}

Model parse_nir_model(const std::vector<uint8_t>& file, const std::string& path, double dt,
                      const std::string& output) {
    const NirNode root = parse_nir(file, path);
    Model out;
    out.graph = nir_to_graph(root, path, dt, output);
    out.info = info_of(root, path);
    return out;
}

Model load_nir(const std::string& path, double dt, const std::string& output) {
    return parse_nir_model(read_file(path), path, dt, output);
}

void save_nir(const std::string& path, const Model& model) {
    NirNode root = graph_to_nir(model.graph);
    root.metadata.merge(metadata_of(model.info));
    const std::vector<uint8_t> bytes = nir_bytes(root);
    write_file(path, bytes.data(), bytes.size());
}

}  // namespace nc
