// The walk over an ONNX graph that builds ours; its parts by kind of operation.
#pragma once

#include <array>
#include <set>
#include <unordered_map>

#include "engine/graph.h"
#include "io/onnx_constant.h"

namespace nc::onnx {

using Dims = std::vector<int64_t>;

// A function of one number, known by its values at fixed points: whatever its spelling, it is
// recognised by comparing them.
using Function = std::vector<double>;
const std::vector<double>& sample_points();

// What an ONNX name stands for. Unknown (no constant, no nodes) after a node that was refused.
struct Value {
    ConstantPtr constant;
    std::vector<size_t> nodes;  // of our graph; the value is their sum, in this order
    Dims dims;                  // as ONNX has it, with the batch in front
    Shape shape;                // of the nodes: [H, W, C] or [F]
    Shape map;                  // what a vector enumerates (C, H, W) in the file; rank 0: nothing
    std::shared_ptr<const Function> function;  // of each element, not yet a node; null: identity
    std::vector<const NodeProto*> spelling;    // what computes it
    std::array<int64_t, 4> pad = {};           // zeros not yet around it: top, left, bottom, right

    bool known() const { return constant || !nodes.empty(); }
    bool padded() const { return pad != std::array<int64_t, 4>{}; }
    Dims sample() const { return Dims(dims.begin() + (dims.empty() ? 0 : 1), dims.end()); }
};

class Importer {
 public:
    Importer(const GraphProto& graph, std::string path, Tensors& tensors, Budget& budget)
        : graph_(graph), path_(std::move(path)), tensors_(tensors), budget_(budget) {}

    // Error lists every node that is not supported.
    Graph run();
    const std::vector<std::string>& notes() const { return notes_; }

 private:
    // onnx_import.cpp: names and values
    void read_interface();
    std::vector<bool> needed_nodes() const;
    void complain(const NodeProto&, const std::string& why);
    void visit(const NodeProto&);
    void dispatch(const NodeProto&);
    void finish();
    Value& value(const std::string& name);
    Value& input(const NodeProto&, int i);
    bool has_input(const NodeProto& node, int i) const {
        return i < node.input_size() && !node.input(i).empty();
    }
    ConstantPtr constant(const NodeProto&, int i);           // Unsupported when it is none
    ConstantPtr optional_constant(const NodeProto&, int i);  // null when left out
    void set(const NodeProto&, Value);                       // its first output
    size_t uses(const std::string& name) const;
    std::string name_for(const NodeProto&, const std::string& parameter = "");
    std::string free_name(const std::string& wanted);  // wanted, wanted_2, ...
    // A node of ours after the value's nodes; the result has the given shape and dims.
    Value emit(const std::string& name, Operation, const Value& x, const Shape& shape, Dims dims);

    // onnx_layers.cpp
    void conv(const NodeProto&);
    void linear(const NodeProto&);
    void batch_norm(const NodeProto&);
    void pool(const NodeProto&);
    void reduce_mean(const NodeProto&);
    void pad(const NodeProto&);
    void concat(const NodeProto&);
    void view(const NodeProto&);
    void transpose(const NodeProto&);
    void softmax(const NodeProto&);
    void requantize(const NodeProto&);
    const Value& map_input(const NodeProto&, bool padding);  // input 0 as [H, W, C]
    Value reshaped(const NodeProto&, const Value&, Dims dims);
    Value mean_over(const NodeProto&, const Value&, bool rows, bool cols, Dims dims);

    // onnx_pointwise.cpp
    Value& activation(const NodeProto&, int i);  // input i with its function as nodes
    Value applied(const Value&);
    void named_activation(const NodeProto&);
    void prelu(const NodeProto&);
    void clip(const NodeProto&);
    void pointwise(const NodeProto&);
    void arithmetic(const NodeProto&);
    void with_constant(const NodeProto&, const Value& x, const Constant&, bool constant_first);
    Value affine(const std::string& name, Value x, const std::vector<float>& scale,
                 const std::vector<float>& shift);
    bool into_bias(const NodeProto&, const Value& x, const std::vector<float>& shift);
    void sum(const NodeProto&, Value a, Value b, double sign);
    void set_function(const NodeProto&, const Value& x, Function, const Value* other = nullptr);

    const GraphProto& graph_;
    std::string path_;
    Tensors& tensors_;
    Budget& budget_;
    Graph out_;
    std::map<std::string, Value> values_;
    std::map<std::string, const TensorProto*> initializers_;
    std::map<std::string, size_t> uses_;
    std::unordered_map<std::string, size_t> names_;  // of our nodes: the last number given
    std::vector<std::string> complaints_, notes_;
    std::string output_;
    int64_t batch_ = 1;
    size_t roundings_ = 0;
};

// Weights in the file's order, as a tensor. Unsupported on integers and on values that are not
// finite.
Tensor tensor_of(const Constant&, const Shape&);
Shape shape_of(const Constant&);

// A constant that is one number for all of x's elements, or one a channel: 1 or C (F of a vector)
// values; empty when it is something else.
std::vector<float> channel_values(const Constant&, const Value& x);

}  // namespace nc::onnx
