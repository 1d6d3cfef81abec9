// Matching of a file's layers with a graph's: by name, then by what their shapes leave no doubt of.
#include "io/weights.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "io/layout.h"
#include "io/model.h"

namespace nc {
namespace {

// A layer's tensors by field, in a file or in a graph; a field's tensor may be in either.
struct Layer {
    std::string name;
    std::map<std::string, Tensor> fields;  // "weight", "running_mean", ...
    size_t node = 0;                       // of a graph
    bool optional = false;                 // of a graph: PyTorch has no such layer
    const Layer* partner = nullptr;
};

std::string full_name(const Layer& layer, const std::string& field) {
    return layer.name.empty() ? field : layer.name + "." + field;
}

std::vector<Layer> layers_of(const Graph& in_file_order) {
    std::vector<Layer> out;
    for (const size_t i : topological_order(in_file_order)) {
        const Node& node = in_file_order.nodes[i];
        const bool known =
            std::holds_alternative<Linear>(node.op) || std::holds_alternative<Conv>(node.op) ||
            std::holds_alternative<BatchNorm>(node.op) || std::holds_alternative<PRelu>(node.op);
        Layer layer{node.name, {}, i, !known, nullptr};
        for_each_tensor(node, [&](const char* field, const Tensor& tensor, TensorRole) {
            if (tensor.defined()) layer.fields[tensor_field(node.op, field)] = tensor;
        });
        if (!layer.fields.empty()) out.push_back(std::move(layer));
    }
    return out;
}

// In the order in which they first appear.
std::vector<Layer> layers_of(const StateDict& file) {
    std::vector<Layer> out;
    std::map<std::string, size_t> known;
    for (const auto& [name, tensor] : file.tensors) {
        const size_t dot = name.rfind('.');
        const std::string layer = dot == std::string::npos ? "" : name.substr(0, dot);
        const std::string field = dot == std::string::npos ? name : name.substr(dot + 1);
        if (field == "num_batches_tracked") continue;
        if (known.emplace(layer, out.size()).second) out.push_back({layer, {}, 0, false, nullptr});
        out[known[layer]].fields[field] = tensor;
    }
    return out;
}

// Takes off the first word that all names have in common ("module.", "model.") as long as that
// makes more of them fit; returns what was taken.
std::string unwrap(std::vector<Layer>& file, const std::vector<Layer>& graph) {
    std::set<std::string_view> names;
    for (const Layer& layer : graph) names.insert(layer.name);
    const auto known = [&](size_t from) {
        return std::count_if(file.begin(), file.end(), [&](const Layer& layer) {
            return layer.name.size() >= from &&
                   names.count(std::string_view(layer.name).substr(from)) > 0;
        });
    };
    size_t best = 0, from = 0;
    auto most = known(0);
    while (!file.empty()) {
        const size_t dot = file[0].name.find('.', from);
        if (dot == std::string::npos) break;
        const std::string prefix = file[0].name.substr(0, dot + 1);
        if (!std::all_of(file.begin(), file.end(),
                         [&](const Layer& layer) { return layer.name.rfind(prefix, 0) == 0; }))
            break;
        from = dot + 1;
        if (const auto now = known(from); now > most) {
            most = now;
            best = from;
        }
    }
    if (best == 0) return "";
    const std::string prefix = file[0].name.substr(0, best);
    for (Layer& layer : file) layer.name.erase(0, best);
    return prefix;
}

// The layer's fields and shapes, as text: equal where one can stand for the other.
std::string signature(const Layer& layer) {
    std::string out;
    for (const auto& [field, tensor] : layer.fields) out += field + tensor.shape().str();
    return out;
}

// A name's parts, runs of digits and of other characters apart: (text, number).
std::vector<std::pair<std::string, uint64_t>> parts_of(const std::string& name) {
    std::vector<std::pair<std::string, uint64_t>> out;
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    for (size_t i = 0; i < name.size();) {
        size_t end = i;
        while (end < name.size() && digit(name[end]) == digit(name[i]) && end - i < 18) ++end;
        const std::string text = name.substr(i, end - i);
        if (digit(name[i])) {
            out.emplace_back("", std::stoull(text));
        } else {
            out.emplace_back(text, 0);
        }
        i = end;
    }
    return out;
}

// Whether the first parts in which two names differ are numbers, the first name's the lower one:
// "layer1.0" and "layer2.0", "features.3" and "features.10".
bool numbered_before(const std::string& a, const std::string& b) {
    const auto x = parts_of(a), y = parts_of(b);
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
        if (x[i] != y[i])
            return x[i].first.empty() && y[i].first.empty() && x[i].second < y[i].second;
    return false;
}

// Whether the graph computes a before b, b needing what a makes.
bool computed_before(const Graph& graph, size_t a, size_t b) {
    std::vector<bool> seen(graph.nodes.size(), false);
    std::vector<size_t> open = {a};
    while (!open.empty()) {
        const size_t at = open.back();
        open.pop_back();
        for (const size_t e : outputs_of(graph, at)) {
            if (graph.edges[e].delay != 0 || seen[graph.edges[e].to]) continue;
            seen[graph.edges[e].to] = true;
            open.push_back(graph.edges[e].to);
        }
    }
    return seen[b];
}

// Pairs of layers whose names differ; text says which. Layers without a partner stay without one.
std::vector<std::string> match_by_shape(const Graph& graph, std::vector<Layer>& mine,
                                        std::vector<Layer>& theirs) {
    std::map<std::string, std::pair<std::vector<Layer*>, std::vector<Layer*>>> groups;
    for (Layer& layer : mine)  // in the order of computation
        if (!layer.partner && !layer.optional) groups[signature(layer)].first.push_back(&layer);
    for (Layer& layer : theirs)
        if (!layer.partner) groups[signature(layer)].second.push_back(&layer);
    for (auto& [text, group] : groups) {
        auto& [ours, others] = group;
        if (ours.size() != others.size()) continue;
        const auto by_name = [](const Layer* a, const Layer* b) {
            return parts_of(a->name) < parts_of(b->name);
        };
        std::sort(others.begin(), others.end(), by_name);
        bool clear = true;
        for (size_t i = 0; i + 1 < ours.size(); ++i)
            clear = clear && computed_before(graph, ours[i]->node, ours[i + 1]->node) &&
                    numbered_before(others[i]->name, others[i + 1]->name);
        if (!clear) continue;
        for (size_t i = 0; i < ours.size(); ++i) {
            ours[i]->partner = others[i];
            others[i]->partner = ours[i];
        }
    }
    std::vector<std::string> out;
    for (const Layer& layer : mine)
        if (layer.partner && layer.partner->name != layer.name)
            out.push_back(layer.partner->name + " as " + layer.name);
    return out;
}

// What keeps the file from fitting, a line each: all of it.
std::string misfits(const std::vector<Layer>& mine, const std::vector<Layer>& theirs) {
    std::string missing, unexpected, shapes, values;
    for (const Layer& layer : mine) {
        if (layer.optional && !layer.partner) continue;
        for (const auto& [field, tensor] : layer.fields) {
            const std::string wanted = tensor.shape().str();
            if (!layer.partner || layer.partner->fields.count(field) == 0) {
                missing += "\n  missing: " + full_name(layer, field) + " " + wanted;
                continue;
            }
            const Tensor& given = layer.partner->fields.at(field);
            const std::string there = full_name(*layer.partner, field);
            if (!(given.shape() == tensor.shape())) {
                shapes += "\n  of another shape: " + there + " is " + given.shape().str() +
                          ", the network has " + wanted;
            } else if (given.dtype() != DType::f32 && given.dtype() != DType::f64) {
                values += "\n  not floating point: " + there + " is " + str(given.dtype());
            }
        }
    }
    for (const Layer& layer : theirs)
        for (const auto& [field, tensor] : layer.fields)
            if (!layer.partner || layer.partner->fields.count(field) == 0)
                unexpected +=
                    "\n  unexpected: " + full_name(layer, field) + " " + tensor.shape().str();
    return missing + unexpected + shapes + values;
}

Tensor as_float(const Tensor& given, const std::string& name, const std::string& path) {
    Tensor out = given;
    if (given.dtype() == DType::f64) {
        const double* from = given.data<double>();
        out = Tensor(given.shape());
        std::copy(from, from + given.elements(), out.data<float>());
    }
    const float* values = std::as_const(out).data<float>();
    for (size_t i = 0; i < out.elements(); ++i)
        if (!std::isfinite(values[i]))
            throw Error("[" + path + "] tensor '" + name + "' holds " + std::to_string(values[i]) +
                            " at element " + std::to_string(i),
                        ErrorKind::model);
    return out;
}

std::string joined(const std::vector<std::string>& words) {
    std::string out;
    for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
    return out;
}

}  // namespace

StateDict load_weights(const std::string& path) {
    const Source source = [&] {
        try {
            return Source(path);
        } catch (const Error& e) {
            throw Error(e.what(), ErrorKind::model, e.hint);
        }
    }();
    const auto head = source.bytes(0, size_t(std::min<uint64_t>(source.size(), 2)));
    const bool zip = head.size() == 2 && head[0] == 'P' && head[1] == 'K';
    const bool pickle = head.size() == 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5;
    const auto ends = [&](const std::string& text) {
        return path.size() >= text.size() &&
               path.compare(path.size() - text.size(), text.size(), text) == 0;
    };
    if (zip || pickle || ends(".pt") || ends(".pth")) return load_pt(source);
    const SafeTensors file = load_safetensors(path);
    StateDict out;
    const bool model = file.metadata.count("graph") > 0;
    for (const auto& [name, tensor] : file.tensors)
        if (!model || name.rfind("state.", 0) != 0) out.tensors.emplace_back(name, tensor);
    return out;
}

LaidOver lay_over(const Graph& graph, const StateDict& file, const std::string& path) {
    Graph out = to_file_order(graph);
    std::vector<Layer> mine = layers_of(out), theirs = layers_of(file);
    LaidOver laid;
    if (!file.note.empty()) laid.notes.push_back(file.note);
    if (const std::string prefix = unwrap(theirs, mine); !prefix.empty())
        laid.notes.push_back("names are taken without '" + prefix + "'");
    for (Layer& layer : mine)
        for (Layer& other : theirs)
            if (layer.name == other.name) {
                layer.partner = &other;
                other.partner = &layer;
            }
    const auto renamed = match_by_shape(out, mine, theirs);
    if (const std::string wrong = misfits(mine, theirs); !wrong.empty())
        throw Error("[" + path + "] the weights do not fit the network:" + wrong, ErrorKind::model,
                    "the network must be the one they were trained in; PyTorch's brings it along "
                    "with `torch.onnx.export(model, x, \"model.onnx\")`");
    if (!renamed.empty())
        laid.notes.push_back("layers matched by their shapes, their names differ: " +
                             joined(renamed));

    std::vector<std::string> kept;
    bool rounded = false;
    for (const Layer& layer : mine) {
        Node& node = out.nodes[layer.node];
        for_each_tensor(node, [&](const char* field, Tensor& tensor, TensorRole) {
            if (!tensor.defined()) return;
            const std::string name = tensor_field(node.op, field);
            if (!layer.partner) {
                kept.push_back(full_name(layer, name));
                return;
            }
            const Tensor& given = layer.partner->fields.at(name);
            rounded |= given.dtype() == DType::f64;
            tensor = as_float(given, full_name(*layer.partner, name), path);
        });
    }
    if (!kept.empty())
        laid.notes.push_back("not in the file and left as they are: " + joined(kept));
    if (rounded) laid.notes.push_back("double precision is rounded to float");
    try {
        laid.graph = from_file_order(out);
    } catch (const Error& e) {
        throw Error("[" + path + "] " + e.what(), ErrorKind::model, e.hint);
    }
    return laid;
}

}  // namespace nc
