// Names, values and nodes of an ONNX graph in their order.
#include "io/onnx_import.h"

#include <algorithm>
#include <cmath>

#include "engine/graph_edit.h"
#include "io/layout.h"

namespace nc::onnx {
namespace {

std::string quoted(const std::string& name) {
    return "'" + name + "'";
}

std::string label(const NodeProto& node) {
    const std::string name = !node.name().empty()     ? node.name()
                             : node.output_size() > 0 ? node.output(0)
                                                      : std::string("?");
    return quoted(name) + " (" + (node.domain().empty() ? "" : node.domain() + "::") +
           node.op_type() + ")";
}

bool ends_with(const std::string& text, const std::string& end) {
    return text.size() >= end.size() &&
           text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// "/layer1/layer1.0/relu/Relu" is layer1.0.relu.
std::string readable(const std::string& name, const std::string& op_type) {
    std::vector<std::string> parts;
    for (size_t from = 0; from <= name.size();) {
        const size_t to = std::min(name.find('/', from), name.size());
        const std::string part = name.substr(from, to - from);
        // A scope repeats its parent's name.
        if (!parts.empty() && part.rfind(parts.back() + ".", 0) == 0) parts.pop_back();
        if (!part.empty()) parts.push_back(part);
        from = to + 1;
    }
    if (parts.size() > 1 && parts.back() == op_type) parts.pop_back();
    std::string out;
    for (const std::string& part : parts) out += (out.empty() ? "" : ".") + part;
    for (char& c : out) {
        const bool fine = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                          (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
        if (!fine) c = '_';
    }
    constexpr size_t longest = 200;
    return out.substr(0, longest);
}

}  // namespace

Shape shape_of(const Constant& c) {
    return Shape(std::vector<size_t>(c.dims.begin(), c.dims.end()));
}

Tensor tensor_of(const Constant& c, const Shape& shape) {
    if (c.integer()) throw Unsupported{"weights that are integers"};
    for (const float x : c.floats)
        if (!std::isfinite(x)) throw Unsupported{"weights that are not finite"};
    return Tensor::from(c.floats, shape);
}

void Importer::complain(const NodeProto& node, const std::string& why) {
    complaints_.push_back(label(node) + ": " + why);
}

Value& Importer::value(const std::string& name) {
    const auto found = values_.find(name);
    if (found != values_.end()) return found->second;
    const auto weights = initializers_.find(name);
    if (weights == initializers_.end())
        throw Unsupported{quoted(name) + " is used before it is computed"};
    Value v;
    v.constant = tensors_.decode(*weights->second);
    v.dims = v.constant->dims;
    return values_[name] = v;
}

Value& Importer::input(const NodeProto& node, int i) {
    if (!has_input(node, i)) throw Unsupported{"input " + std::to_string(i) + " is missing"};
    return value(node.input(i));
}

ConstantPtr Importer::constant(const NodeProto& node, int i) {
    const Value& v = input(node, i);
    if (!v.constant) throw Unsupported{"input " + quoted(node.input(i)) + " has to be a constant"};
    return v.constant;
}

ConstantPtr Importer::optional_constant(const NodeProto& node, int i) {
    return has_input(node, i) ? constant(node, i) : nullptr;
}

void Importer::set(const NodeProto& node, Value v) {
    if (node.output_size() == 0) return;
    if (!values_.emplace(node.output(0), std::move(v)).second)
        throw Unsupported{quoted(node.output(0)) + " is computed twice"};
}

size_t Importer::uses(const std::string& name) const {
    const auto found = uses_.find(name);
    return found == uses_.end() ? 0 : found->second;
}

std::string Importer::name_for(const NodeProto& node, const std::string& parameter) {
    // Exporters keep the module's name in its parameters' names.
    std::string wanted;
    for (const char* end : {".weight", ".running_mean"})
        if (ends_with(parameter, end))
            wanted = readable(parameter.substr(0, parameter.size() - std::string(end).size()), "");
    if (wanted.empty()) wanted = readable(node.name(), node.op_type());
    if (wanted.empty()) wanted = readable(node.op_type(), "");
    if (wanted.empty()) wanted = "node";
    return free_name(wanted);
}

std::string Importer::free_name(const std::string& wanted) {
    std::string name = wanted;
    for (size_t& last = names_[wanted]; last++ > 0 || name != wanted;) {
        name = wanted + "_" + std::to_string(last);
        if (names_.emplace(name, 1).second) break;
    }
    return name;
}

Value Importer::emit(const std::string& name, Operation op, const Value& x, const Shape& shape,
                     Dims dims) {
    Value out;
    out.nodes = {add_node(out_, name, std::move(op), x.nodes)};
    out.shape = shape;
    out.dims = std::move(dims);
    return out;
}

void Importer::read_interface() {
    for (const TensorProto& t : graph_.initializer()) initializers_[t.name()] = &t;
    const auto refuse = [&](const std::string& what, const std::string& hint = "") {
        throw Error("[onnx] " + path_ + ": " + what, ErrorKind::model, hint);
    };
    const ValueInfoProto* found = nullptr;
    for (const ValueInfoProto& info : graph_.input()) {
        if (initializers_.count(info.name())) continue;  // listed too before IR version 4
        if (found) refuse("two inputs, " + quoted(found->name()) + " and " + quoted(info.name()));
        found = &info;
    }
    if (!found) refuse("no input");
    if (graph_.output_size() != 1)
        refuse(std::to_string(graph_.output_size()) + " outputs; a network has one, its logits");
    output_ = graph_.output(0).name();

    const TensorShapeProto& shape = found->type().tensor_type().shape();
    if (found->type().tensor_type().elem_type() != float32)
        refuse("input " + quoted(found->name()) + " is not made of 32-bit floats");
    Value x;
    for (int k = 0; k < shape.dim_size(); ++k) {
        const bool fixed = shape.dim(k).has_dim_value() && shape.dim(k).dim_value() > 0;
        if (k > 0 && !fixed)
            refuse("input " + quoted(found->name()) + " has no fixed size along axis " +
                       std::to_string(k),
                   "export it with only the batch left open");
        // An open batch may be any number: 1 makes every size that is computed from it a number.
        x.dims.push_back(fixed ? shape.dim(k).dim_value() : 1);
    }
    try {
        elements_of(x.dims);
    } catch (const Unsupported& e) {
        refuse("input " + quoted(found->name()) + ": " + e.why);
    }
    const auto size = [&](size_t k) { return size_t(x.dims[k]); };
    if (x.dims.size() == 4)
        x.shape = Shape{size(2), size(3), size(1)};
    else if (x.dims.size() == 3)
        x.shape = Shape{size(1), size(2), 1};
    else if (x.dims.size() == 2)
        x.shape = Shape{size(1)};
    else
        refuse("input " + quoted(found->name()) + " has the sizes " + text_of(x.dims) +
               ", not [N, C, H, W], [N, H, W] or [N, F]");
    batch_ = x.dims[0];
    names_ = {{"input", 1}, {"output", 1}};
    x.nodes = {add_node(out_, "input", Input{x.shape}, {})};
    values_[found->name()] = x;
}

// Nodes that the output depends on; others compute sizes of things that are gone.
std::vector<bool> Importer::needed_nodes() const {
    std::vector<bool> needed(size_t(graph_.node_size()));
    std::set<std::string> wanted = {output_};
    for (int i = graph_.node_size(); i-- > 0;) {
        const NodeProto& node = graph_.node(i);
        for (const std::string& name : node.output())
            if (!name.empty() && wanted.count(name)) needed[size_t(i)] = true;
        if (needed[size_t(i)]) wanted.insert(node.input().begin(), node.input().end());
    }
    return needed;
}

void Importer::dispatch(const NodeProto& node) {
    const std::string& op = node.op_type();
    bool constants = true, known = true;
    std::vector<ConstantPtr> inputs;
    for (const std::string& name : node.input()) {
        if (name.empty()) {
            inputs.push_back(nullptr);
            continue;
        }
        const Value& v = value(name);
        constants = constants && v.constant;
        known = known && v.known();
        inputs.push_back(v.constant);
    }
    if (!known) return set(node, {});
    const auto among = [&](std::initializer_list<const char*> names) {
        return std::find(names.begin(), names.end(), op) != names.end();
    };
    if (constants && is_foldable(op)) {
        Value v;
        v.constant = fold(node, inputs, tensors_, budget_);
        v.dims = v.constant->dims;
        return set(node, v);
    }
    if (op == "Shape" || op == "CastLike") {
        // Of a value that has sizes only, or its type only: the network's floats.
        Constant like;
        like.dims = input(node, op == "Shape" ? 0 : 1).dims;
        inputs[op == "Shape" ? 0 : 1] = std::make_shared<const Constant>(like);
        if (op == "Shape" || inputs[0]) {
            Value v;
            v.constant = fold(node, inputs, tensors_, budget_);
            v.dims = v.constant->dims;
            return set(node, v);
        }
    }
    if (among({"Identity", "Dropout"})) return set(node, input(node, 0));
    if (among({"Cast", "CastLike"})) {
        if (op == "Cast" && !is_float(int(int_attribute(node, "to", float32))))
            throw Unsupported{"the network's values become integers"};
        return set(node, input(node, 0));
    }
    if (op == "Conv") return conv(node);
    if (among({"Gemm", "MatMul"})) return linear(node);
    if (op == "BatchNormalization") return batch_norm(node);
    if (among({"AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"})) return pool(node);
    if (op == "ReduceMean") return reduce_mean(node);
    if (op == "Pad") return pad(node);
    if (op == "Concat") return concat(node);
    if (is_view(op)) return view(node);
    if (op == "Transpose") return transpose(node);
    if (among({"Softmax", "LogSoftmax"})) return softmax(node);
    if (among({"QuantizeLinear", "DequantizeLinear"})) return requantize(node);
    if (among({"Relu", "LeakyRelu", "HardSwish", "Gelu"})) return named_activation(node);
    if (op == "PRelu") return prelu(node);
    if (op == "Clip") return clip(node);
    if (op == "HardSigmoid" || unary(op)) return pointwise(node);
    if (among({"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"})) return arithmetic(node);
    throw Unsupported{is_foldable(op) ? "only of constants" : "no such operation here"};
}

void Importer::visit(const NodeProto& node) {
    try {
        if (!node.domain().empty() && node.domain() != "ai.onnx")
            throw Unsupported{"an operation outside the standard"};
        dispatch(node);
    } catch (const Unsupported& e) {
        complain(node, e.why);
    } catch (const Error& e) {
        if (e.kind == ErrorKind::model && !e.hint.empty()) throw;  // a file beside the model
        complain(node, e.what());
    }
    for (const std::string& name : node.output()) values_.emplace(name, Value());
}

void Importer::finish() {
    if (complaints_.empty()) {
        const auto refuse = [&](const std::string& what) {
            throw Error("[onnx] " + path_ + ": output " + quoted(output_) + " " + what,
                        ErrorKind::model);
        };
        Value v;
        try {
            v = value(output_);
            if (v.function) v = applied(v);
        } catch (const Unsupported& e) {
            refuse("cannot be computed: " + e.why);
        }
        if (!v.known() || v.constant) refuse("does not depend on the input");
        if (v.padded()) refuse("has zeros around it");
        Value last = v;
        if (v.shape.rank() == 3) {
            if (v.shape[0] * v.shape[1] != 1)
                refuse("is a feature map " + text_of(v.dims) + ", not one number a class");
            last = emit(free_name("flatten"), Flatten{}, v, Shape{v.shape[2]}, v.dims);
        }
        if (v.map.rank() == 3) refuse("is a flattened feature map, not one number a class");
        add_node(out_, "output", Output{}, last.nodes);
        return;
    }
    constexpr size_t most = 100;
    std::string text;
    for (size_t i = 0; i < std::min(most, complaints_.size()); ++i) text += "\n  " + complaints_[i];
    if (complaints_.size() > most)
        text += "\n  and " + std::to_string(complaints_.size() - most) + " more";
    throw Error("[onnx] " + path_ + " has " + std::to_string(complaints_.size()) +
                    (complaints_.size() == 1 ? " node that is" : " nodes that are") +
                    " not supported:" + text,
                ErrorKind::model);
}

Graph Importer::run() {
    read_interface();
    const std::vector<bool> needed = needed_nodes();
    ++uses_[output_];
    for (int i = 0; i < graph_.node_size(); ++i)
        if (needed[size_t(i)])
            for (const std::string& name : graph_.node(i).input()) ++uses_[name];
    for (int i = 0; i < graph_.node_size(); ++i)
        if (needed[size_t(i)]) visit(graph_.node(i));
    finish();
    if (roundings_ > 0)
        notes_.push_back(std::to_string(roundings_) +
                         " roundings of activations to 8 bits are left out: the network is the one "
                         "in floats that they stand for");
    return from_file_order(sorted(out_));
}

}  // namespace nc::onnx
