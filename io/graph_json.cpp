// The schema of a graph: one description of every operation's fields serves writing and reading.
#include <algorithm>
#include <cmath>
#include <set>

#include "io/layout.h"
#include "io/model.h"

namespace nc {
namespace {

// The names of an enumeration's values, in order.
using Names = std::vector<std::string>;
Names names_of(kernels::Activation) {
    return {"relu", "leaky_relu", "relu6", "hard_swish", "silu", "gelu", "sigmoid", "tanh"};
}
Names names_of(Neuron::Amplitude) {
    return {"theta", "one"};
}
Names names_of(kernels::Compare) {
    return {"greater_equal", "greater"};
}
Names names_of(kernels::Reset) {
    return {"subtract", "to_value"};
}
Names names_of(kernels::Spiking) {
    return {"plain", "negative", "exact"};
}
Names names_of(kernels::Surrogate) {
    return {"atan", "triangle", "rectangle", "sigmoid"};
}

// Calls v(name, field) for every field of an operation that is not a tensor; Op may be const.
template <class V, class Op>
void visit_fields(V& v, Op& op) {
    using T = std::remove_const_t<Op>;
    if constexpr (std::is_same_v<T, Input>) {
        v("shape", op.shape);
        v("scale", op.scale);
    } else if constexpr (std::is_same_v<T, Conv>) {
        v.pair("stride", op.options.stride_h, op.options.stride_w);
        v.pair("padding", op.options.pad_h, op.options.pad_w);
        v.pair("dilation", op.options.dilation_h, op.options.dilation_w);
        v("groups", op.options.groups);
    } else if constexpr (std::is_same_v<T, AveragePool> || std::is_same_v<T, MaxPool>) {
        v.pair("kernel_size", op.options.kh, op.options.kw);
        v.pair("stride", op.options.stride_h, op.options.stride_w);
        v.pair("padding", op.options.pad_h, op.options.pad_w);
    } else if constexpr (std::is_same_v<T, BatchNorm>) {
        v("eps", op.eps);
        v("momentum", op.momentum);
    } else if constexpr (std::is_same_v<T, Activation>) {
        v("kind", op.kind);
        v("param", op.param);
    } else if constexpr (std::is_same_v<T, Qcfs>) {
        v("levels", op.levels);
    } else if constexpr (std::is_same_v<T, Neuron>) {
        v("v0_fraction", op.v0_fraction);
        v("amplitude", op.amplitude);
        v("train_theta", op.train_theta);
        v("beta", op.rule.beta);
        v("compare", op.rule.compare);
        v("reset", op.rule.reset);
        v("reset_value", op.rule.reset_value);
        v("spiking", op.rule.spiking);
        v("surrogate", op.rule.surrogate);
        v("surrogate_width", op.rule.surrogate_width);
        v("scale_width", op.rule.scale_width);
        v("detach_reset", op.rule.detach_reset);
    } else if constexpr (std::is_same_v<T, Membrane>) {
        v("dt", op.dt);
    } else {
        static_assert(std::is_same_v<T, Output> || std::is_same_v<T, Linear> ||
                          std::is_same_v<T, PRelu> || std::is_same_v<T, GlobalAveragePool> ||
                          std::is_same_v<T, Flatten> || std::is_same_v<T, Scale> ||
                          std::is_same_v<T, Add> || std::is_same_v<T, StepBias> ||
                          std::is_same_v<T, Threshold>,
                      "an operation whose fields are not listed");
    }
}

struct FieldWriter {
    Json& out;
    template <class T>
    void operator()(const char* name, const T& value) {
        if constexpr (std::is_enum_v<T>) {
            out[name] = names_of(value)[size_t(value)];
        } else if constexpr (std::is_same_v<T, Shape>) {
            out[name] = value.to_vector();
        } else {
            out[name] = value;
        }
    }
    void pair(const char* name, size_t h, size_t w) { out[name] = {h, w}; }
};

constexpr size_t largest_size = size_t(1) << 28;  // 1 GB of floats

struct FieldReader {
    const Json& in;
    const std::string& where;  // "[path] node 'conv1' (conv)"
    std::vector<std::string> known;

    [[noreturn]] void fail(const std::string& what, const std::string& hint = "") const {
        throw Error(where + ": " + what, ErrorKind::model, hint);
    }
    const Json* find(const char* name) {
        known.push_back(name);
        const auto at = in.find(name);
        return at == in.end() ? nullptr : &*at;
    }
    [[noreturn]] void wrong(const char* name, const char* wanted, const Json& value) const {
        fail(std::string(name) + " is " +
             value.dump(-1, ' ', false, Json::error_handler_t::replace) + ", not " + wanted);
    }
    size_t size(const char* name, const Json& value) const {
        if (!value.is_number_unsigned() || value.get<uint64_t>() > largest_size)
            wrong(name, "a size", value);
        return value.get<size_t>();
    }

    template <class T>
    void operator()(const char* name, T& out) {
        const Json* value = find(name);
        if (!value) {
            if constexpr (std::is_same_v<T, Shape>) fail(std::string(name) + " is missing");
            return;
        }
        if constexpr (std::is_enum_v<T>) {
            if (!value->is_string()) wrong(name, "a name", *value);
            const auto& text = value->template get_ref<const std::string&>();
            const Names names = names_of(out);
            const auto at = std::find(names.begin(), names.end(), text);
            if (at == names.end())
                fail(std::string(name) + " '" + text + "' is unknown", suggestion(text, names));
            out = T(at - names.begin());
        } else if constexpr (std::is_same_v<T, bool>) {
            if (!value->is_boolean()) wrong(name, "true or false", *value);
            out = value->template get<bool>();
        } else if constexpr (std::is_same_v<T, double>) {
            if (!value->is_number() || !std::isfinite(value->template get<double>()))
                wrong(name, "a number", *value);
            out = value->template get<double>();
        } else if constexpr (std::is_same_v<T, int>) {
            if (!value->is_number_unsigned() || value->template get<uint64_t>() > 1u << 30)
                wrong(name, "a count", *value);
            out = value->template get<int>();
        } else if constexpr (std::is_same_v<T, size_t>) {
            out = size(name, *value);
        } else {
            static_assert(std::is_same_v<T, Shape>);
            out = shape(name, *value);
        }
    }
    void pair(const char* name, size_t& h, size_t& w) {
        const Json* value = find(name);
        if (!value) return;
        if (value->is_array() && value->size() == 2) {
            h = size(name, (*value)[0]);
            w = size(name, (*value)[1]);
        } else {
            h = w = size(name, *value);
        }
    }
    Shape shape(const char* name, const Json& value) const {
        if (!value.is_array()) wrong(name, "a shape", value);
        std::vector<size_t> sizes;
        for (const auto& item : value) sizes.push_back(size(name, item));
        try {
            return Shape(sizes);
        } catch (const Error& e) {
            fail(std::string(name) + ": " + e.what());
        }
    }
    void refuse_unknown() const {
        for (const auto& [name, value] : in.items())
            if (std::find(known.begin(), known.end(), name) == known.end())
                fail("unknown field '" + name + "'", suggestion(name, known));
    }
};

template <size_t I = 0>
Operation operation_named(const std::string& name, const std::string& where) {
    if constexpr (I < std::variant_size_v<Operation>) {
        Operation op = std::variant_alternative_t<I, Operation>{};
        return operation_name(op) == name ? op : operation_named<I + 1>(name, where);
    } else {
        std::vector<std::string> known;
        [&]<size_t... Is>(std::index_sequence<Is...>) {
            (known.emplace_back(operation_name(std::variant_alternative_t<Is, Operation>{})), ...);
        }
        (std::make_index_sequence<std::variant_size_v<Operation>>());
        throw Error(where + ": unknown operation '" + name + "'", ErrorKind::model,
                    suggestion(name, known));
    }
}

// What an undrawn tensor holds, so that the graph is valid.
float neutral(const std::string& field) {
    static const std::set<std::string> ones = {"variance", "theta", "gamma",   "scale",    "r",
                                               "tau",      "w_in",  "tau_syn", "threshold"};
    if (ones.count(field) > 0) return 1;
    if (field == "lambda") return 2;
    if (field == "slope") return 0.25f;
    return 0;
}

bool may_be_missing(const std::string& field) {
    static const std::set<std::string> optional = {
        "bias", "gamma", "beta", "v0", "tau", "v_leak", "tau_syn", "w_in", "threshold", "v_reset"};
    return optional.count(field) > 0;
}

Tensor read_tensor(FieldReader& fields, const Node& node, const char* field,
                   const std::map<std::string, Tensor>& tensors) {
    const Json* json = fields.find(field);
    if (!json) {
        if (!may_be_missing(field)) fields.fail(std::string(field) + " is missing");
        return {};
    }
    if (!json->is_object()) fields.wrong(field, "{\"shape\": [..]}", *json);
    const std::string inside = fields.where + " " + field;
    FieldReader inner{*json, inside, {}};
    const Json* shape_json = inner.find("shape");
    const Json* value_json = tensors.empty() ? inner.find("value") : nullptr;
    inner.refuse_unknown();
    if (!shape_json) inner.fail("shape is missing");
    const Shape shape = inner.shape("shape", *shape_json);
    if (tensors.empty()) {
        float value = neutral(field);
        if (value_json) {
            if (!value_json->is_number() || !std::isfinite(value_json->get<float>()))
                inner.wrong("value", "a number", *value_json);
            value = value_json->get<float>();
        }
        if (shape.elements() > largest_size) inner.fail("shape " + shape.str() + " is too large");
        return Tensor::full(shape, value);
    }
    const std::string name = node.name + "." + tensor_field(node.op, field);
    auto at = tensors.find(name);
    if (at == tensors.end()) at = tensors.find(node.name + "." + field);  // the name of old files
    if (at == tensors.end()) fields.fail("tensor '" + name + "' is not in the file");
    const Tensor& tensor = at->second;
    if (!(tensor.shape() == shape))
        fields.fail("tensor '" + name + "' is " + tensor.shape().str() + ", the graph says " +
                    shape.str());
    if (tensor.dtype() != DType::f32)
        fields.fail("tensor '" + name + "' is " + str(tensor.dtype()) + ", not f32");
    const float* values = tensor.data<float>();
    for (size_t i = 0; i < tensor.elements(); ++i)
        if (!std::isfinite(values[i]))
            fields.fail("tensor '" + name + "' holds " + std::to_string(values[i]) +
                        " at element " + std::to_string(i));
    return tensor;
}

Node read_node(const Json& json, size_t index, const std::map<std::string, Tensor>& tensors,
               const std::string& path) {
    std::string where = "[" + path + "] node " + std::to_string(index);
    const auto text = [&](const char* key) {
        if (!json.is_object() || !json.contains(key) || !json[key].is_string())
            throw Error(where + ": " + key + " is not a string", ErrorKind::model);
        return json[key].get<std::string>();
    };
    Node node;
    node.name = text("name");
    where = "[" + path + "] node '" + node.name + "'";
    const std::string op = text("op");
    node.op = operation_named(op, where);
    where += " (" + op + ")";
    FieldReader fields{json, where, {"name", "op"}};
    std::visit([&](auto& operation) { visit_fields(fields, operation); }, node.op);
    for_each_tensor(node, [&](const char* field, Tensor& tensor, TensorRole) {
        tensor = read_tensor(fields, node, field, tensors);
    });
    fields.refuse_unknown();
    return node;
}

Edge read_edge(const Json& json, size_t index, const Graph& graph, const std::string& path) {
    const std::string where = "[" + path + "] edge " + std::to_string(index);
    if (!json.is_object()) throw Error(where + " is not an object", ErrorKind::model);
    FieldReader fields{json, where, {}};
    const auto end = [&](const char* key) {
        const Json* name = fields.find(key);
        if (!name || !name->is_string()) fields.fail(std::string(key) + " is not a node's name");
        std::vector<std::string> known;
        for (size_t i = 0; i < graph.nodes.size(); ++i)
            if (graph.nodes[i].name == name->get_ref<const std::string&>()) return i;
        for (const auto& node : graph.nodes) known.push_back(node.name);
        fields.fail(std::string(key) + " names no node: '" + name->get<std::string>() + "'",
                    suggestion(name->get<std::string>(), known));
    };
    Edge edge{};
    edge.from = end("from");
    edge.to = end("to");
    fields("delay", edge.delay);
    fields.refuse_unknown();
    return edge;
}

}  // namespace

std::string tensor_field(const Operation& op, const std::string& field) {
    if (std::holds_alternative<BatchNorm>(op)) {
        if (field == "gamma") return "weight";
        if (field == "beta") return "bias";
        return "running_" + std::string(field == "variance" ? "var" : field);
    }
    return std::holds_alternative<PRelu>(op) ? "weight" : field;
}

Json graph_to_json(const Graph& graph) {
    const Graph stored = to_file_order(graph);
    Json nodes = Json::array(), edges = Json::array();
    for (const auto& node : stored.nodes) {
        Json json = {{"name", node.name}, {"op", operation_name(node.op)}};
        FieldWriter fields{json};
        std::visit([&](const auto& op) { visit_fields(fields, op); }, node.op);
        for_each_tensor(node, [&](const char* field, const Tensor& tensor, TensorRole) {
            if (tensor.defined()) json[field]["shape"] = tensor.shape().to_vector();
        });
        nodes.push_back(std::move(json));
    }
    for (const auto& edge : stored.edges) {
        Json json = {{"from", stored.nodes[edge.from].name}, {"to", stored.nodes[edge.to].name}};
        if (edge.delay != 0) json["delay"] = edge.delay;
        edges.push_back(std::move(json));
    }
    Json out = Json::object();
    out["nodes"] = std::move(nodes);
    out["edges"] = std::move(edges);
    return out;
}

std::map<std::string, Tensor> graph_tensors(const Graph& graph) {
    std::map<std::string, Tensor> out;
    for (const auto& node : to_file_order(graph).nodes)
        for_each_tensor(node, [&](const char* field, const Tensor& tensor, TensorRole) {
            if (tensor.defined()) out[node.name + "." + tensor_field(node.op, field)] = tensor;
        });
    return out;
}

Graph graph_from_json(const Json& json, const std::map<std::string, Tensor>& tensors,
                      const std::string& path) {
    const std::string where = "[" + path + "] graph";
    FieldReader fields{json, where, {}};
    if (!json.is_object()) fields.fail("not an object");
    const Json* nodes = fields.find("nodes");
    const Json* edges = fields.find("edges");
    fields.refuse_unknown();
    if (!nodes || !nodes->is_array()) fields.fail("nodes is not a list");
    if (!edges || !edges->is_array()) fields.fail("edges is not a list");
    Graph graph;
    std::set<std::string> names;  // edges are found by name: two of one name would mislead
    for (const auto& node : *nodes) {
        graph.nodes.push_back(read_node(node, graph.nodes.size(), tensors, path));
        const std::string& name = graph.nodes.back().name;
        if (!names.insert(name).second) fields.fail("two nodes are named '" + name + "'");
    }
    for (const auto& edge : *edges)
        graph.edges.push_back(read_edge(edge, graph.edges.size(), graph, path));
    try {
        return from_file_order(graph);
    } catch (const Error& e) {
        throw Error("[" + path + "] " + e.what(), ErrorKind::model, e.hint);
    }
}

}  // namespace nc
