// One time step of a spiking network as an ONNX model that any runtime can carry out.
#include <onnx.pb.h>

#include "engine/graph_edit.h"
#include "io/bytes.h"
#include "io/layout.h"
#include "io/onnx.h"

namespace nc {
namespace {

using onnx::NodeProto;
using Dims = std::vector<int64_t>;

[[noreturn]] void refuse(const Node& node, const std::string& why) {
    throw Error("[onnx] node '" + node.name + "' (" + std::string(operation_name(node.op)) +
                    ") cannot be written: " + why,
                ErrorKind::model);
}

class Writer {
 public:
    // g in the file's order of values; shapes as they are here.
    Writer(const Graph& g, std::vector<Shape> shapes) : g_(g), shapes_(std::move(shapes)) {
        model_.set_ir_version(8);
        model_.set_producer_name("NeuroCUDA");
        model_.add_opset_import()->set_version(17);
        model_.mutable_graph()->set_name("step");
    }

    std::string write() {
        for (const Edge& e : g_.edges)
            if (e.delay > 0) refuse(g_.nodes[e.from], "its outputs are delayed");
        for (const size_t i : topological_order(g_)) {
            node_ = i;
            std::visit([&](const auto& op) { emit(op); }, g_.nodes[i].op);
        }
        // The logits come first, then the membranes in the order of their inputs.
        declare(*model_.mutable_graph()->add_output(), "logits", file_dims(output_));
        for (const size_t neuron : neurons_)
            declare(*model_.mutable_graph()->add_output(), name(neuron) + ".v_next",
                    file_dims(neuron));
        return model_.SerializeAsString();
    }

 private:
    // [N, C, H, W] or [N, F], with N = 1.
    Dims file_dims(size_t node) const {
        const Shape& s = shapes_[node];
        if (s.rank() == 3) return {1, int64_t(s[2]), int64_t(s[0]), int64_t(s[1])};
        return {1, int64_t(s[0])};
    }
    // A tensor of one value, one a channel or one an element, so that it broadcasts.
    Dims parameter_dims(const Tensor& t) const {
        const Shape& s = shapes_[node_];
        Dims dims = file_dims(node_);
        if (t.elements() == s.elements()) return dims;
        for (size_t k = 1; k < dims.size(); ++k) dims[k] = 1;
        if (t.elements() > 1) dims[1] = int64_t(t.elements());
        return dims;
    }
    std::string name(size_t node) const { return g_.nodes[node].name; }
    std::string own(const std::string& what) const { return name(node_) + "." + what; }

    void declare(onnx::ValueInfoProto& info, const std::string& what, const Dims& dims) {
        info.set_name(what);
        auto* type = info.mutable_type()->mutable_tensor_type();
        type->set_elem_type(1);
        for (size_t k = 0; k < dims.size(); ++k) {
            auto* size = type->mutable_shape()->add_dim();
            if (k == 0)
                size->set_dim_param("N");
            else
                size->set_dim_value(dims[k]);
        }
    }
    std::string constant(const std::string& what, const Tensor& t, const Dims& dims) {
        auto* out = model_.mutable_graph()->add_initializer();
        out->set_name(own(what));
        out->set_data_type(1);
        for (const int64_t size : dims) out->add_dims(size);
        out->set_raw_data(t.data<float>(), t.bytes());
        return own(what);
    }
    std::string number(const std::string& what, double value) {
        return constant(what, Tensor::full<float>(Shape{1}, float(value)), {});
    }
    std::string parameter(const std::string& what, const Tensor& t) {
        return constant(what, t, parameter_dims(t));
    }
    // A node of the file; returns its output's name.
    std::string then(const std::string& op, const std::vector<std::string>& inputs,
                     const std::string& output) {
        last_ = model_.mutable_graph()->add_node();
        last_->set_op_type(op);
        last_->set_name(output);
        for (const std::string& input : inputs) last_->add_input(input);
        last_->add_output(output);
        return output;
    }
    onnx::AttributeProto& attribute(const char* what, int type) {
        auto* a = last_->add_attribute();
        a->set_name(what);
        a->set_type(type);
        return *a;
    }
    void ints(const char* what, const std::vector<size_t>& values) {
        auto& a = attribute(what, 7);
        for (const size_t v : values) a.add_ints(int64_t(v));
    }
    void integer(const char* what, int64_t value) { attribute(what, 2).set_i(value); }
    void real(const char* what, double value) { attribute(what, 1).set_f(float(value)); }

    // The node's input: the sum of its edges, in their order.
    std::string input() {
        std::string sum;
        size_t count = 0;
        for (const size_t e : inputs_of(g_, node_)) {
            const std::string from = name(g_.edges[e].from);
            sum = count == 0 ? from : then("Add", {sum, from}, own("sum" + std::to_string(count)));
            ++count;
        }
        return sum;
    }
    void just(const std::string& op) { then(op, {input()}, name(node_)); }

    void emit(const Input& op) {
        const bool quantised = op.scale > 0;
        const std::string x = quantised ? own("x") : name(node_);
        declare(*model_.mutable_graph()->add_input(), x, file_dims(node_));
        if (!quantised) return;
        const std::string scaled = then("Mul", {x, number("scale", op.scale)}, own("scaled"));
        const std::string low = number("low", -128), high = number("high", 127);
        then("Round", {then("Clip", {scaled, low, high}, own("clipped"))}, name(node_));
    }
    void emit(const Output&) {
        output_ = node_;
        then("Identity", {input()}, "logits");
    }
    void emit(const Linear& op) {
        const Shape& s = op.weight.shape();  // [out, in]
        std::vector<std::string> inputs = {
            input(), constant("weight", op.weight, {int64_t(s[0]), int64_t(s[1])})};
        if (op.bias.defined()) inputs.push_back(constant("bias", op.bias, {int64_t(s[0])}));
        then("Gemm", inputs, name(node_));
        integer("transB", 1);
    }
    void emit(const Conv& op) {
        const Shape& s = op.weight.shape();  // [out, in / groups, kh, kw]
        std::vector<std::string> inputs = {input(),
                                           constant("weight", op.weight, Dims(s.begin(), s.end()))};
        if (op.bias.defined()) inputs.push_back(constant("bias", op.bias, {int64_t(s[0])}));
        then("Conv", inputs, name(node_));
        const auto& o = op.options;
        ints("kernel_shape", {s[2], s[3]});
        ints("strides", {o.stride_h, o.stride_w});
        ints("pads", {o.pad_h, o.pad_w, o.pad_h, o.pad_w});
        ints("dilations", {o.dilation_h, o.dilation_w});
        integer("group", int64_t(o.groups));
    }
    void emit(const BatchNorm& op) {
        const Dims dims = {int64_t(op.mean.elements())};
        const Tensor one = Tensor::full<float>(op.mean.shape(), 1);
        const Tensor zero = Tensor::full<float>(op.mean.shape(), 0);
        then("BatchNormalization",
             {input(), constant("gamma", op.gamma.defined() ? op.gamma : one, dims),
              constant("beta", op.beta.defined() ? op.beta : zero, dims),
              constant("mean", op.mean, dims), constant("variance", op.variance, dims)},
             name(node_));
        real("epsilon", op.eps);
    }
    void emit(const Activation& op) {
        using kernels::Activation;
        const std::string x = input();
        switch (op.kind) {
            case Activation::relu:
                then("Relu", {x}, name(node_));
                return;
            case Activation::leaky_relu:
                then("LeakyRelu", {x}, name(node_));
                return real("alpha", op.param);
            case Activation::relu6:
                then("Clip", {x, number("low", 0), number("high", 6)}, name(node_));
                return;
            case Activation::hard_swish: {
                const std::string gate = then("HardSigmoid", {x}, own("gate"));
                real("alpha", 1.0 / 6);
                real("beta", 0.5);
                then("Mul", {x, gate}, name(node_));
                return;
            }
            case Activation::silu:
                then("Mul", {x, then("Sigmoid", {x}, own("gate"))}, name(node_));
                return;
            case Activation::gelu: {
                const std::string half = then("Mul", {x, number("half", 0.5)}, own("halved"));
                const std::string root =
                    then("Mul", {x, number("root", 0.70710678118654752)}, own("scaled"));
                const std::string erf = then("Erf", {root}, own("erf"));
                then("Mul", {half, then("Add", {erf, number("one", 1)}, own("gate"))}, name(node_));
                return;
            }
            case Activation::sigmoid:
                then("Sigmoid", {x}, name(node_));
                return;
            case Activation::tanh:
                then("Tanh", {x}, name(node_));
                return;
        }
    }
    void emit(const PRelu& op) {
        Dims dims = parameter_dims(op.slope);
        dims.erase(dims.begin());
        then("PRelu", {input(), constant("slope", op.slope, dims)}, name(node_));
    }
    // lambda * floor(levels * clip(x / lambda, 0, 1) + 1/2) / levels, in the kernel's order.
    void emit(const Qcfs& op) {
        const std::string lambda = parameter("lambda", op.lambda);
        const std::string levels = number("levels", op.levels);
        std::string x = then("Div", {input(), lambda}, own("share"));
        x = then("Clip", {x, number("low", 0), number("high", 1)}, own("clipped"));
        x = then("Add", {then("Mul", {x, levels}, own("level")), number("half", 0.5)}, own("up"));
        x = then("Mul", {then("Floor", {x}, own("floor")), lambda}, own("scaled"));
        then("Div", {x, levels}, name(node_));
    }
    // Integrate, compare, reset, as kernels::Neuron rounds them: each operation once.
    void emit(const Neuron& op) {
        using kernels::Compare;
        using kernels::Reset;
        using kernels::Spiking;
        if (op.rule.spiking != Spiking::plain)
            refuse(g_.nodes[node_], "its spikes depend on more than its membrane");
        neurons_.push_back(node_);
        const std::string theta = parameter("theta", op.theta), v = own("v");
        // An input that has a value of its own need not be given: v(0), at the first step.
        const Tensor start = op.v0.defined() ? op.v0 : scaled(op.theta, op.v0_fraction);
        constant("v", spread(start), file_dims(node_));
        declare(*model_.mutable_graph()->add_input(), v, file_dims(node_));
        const float beta = float(op.rule.beta);
        const std::string kept =
            beta == 1 ? v : then("Mul", {v, number("beta", beta)}, own("kept"));
        const std::string a = then("Add", {kept, input()}, own("a"));
        const std::string spikes =
            then(op.rule.compare == Compare::greater ? "Greater" : "GreaterOrEqual", {a, theta},
                 own("fires"));
        const bool unit = op.amplitude == Neuron::Amplitude::one;
        const std::string s = then("Cast", {spikes}, unit ? name(node_) : own("spikes"));
        integer("to", 1);
        if (!unit) then("Mul", {s, theta}, name(node_));
        if (op.rule.reset == Reset::subtract)
            then("Sub", {a, then("Mul", {s, theta}, own("taken"))}, own("v_next"));
        else
            then("Where", {spikes, number("reset", op.rule.reset_value), a}, own("v_next"));
    }
    void pool(const char* op, const ops::PoolOptions& o) {
        just(op);
        ints("kernel_shape", {o.kh, o.kw});
        ints("strides", {o.stride_h, o.stride_w});
        ints("pads", {o.pad_h, o.pad_w, o.pad_h, o.pad_w});
    }
    void emit(const AveragePool& op) {
        pool("AveragePool", op.options);
        integer("count_include_pad", 1);
    }
    void emit(const MaxPool& op) { pool("MaxPool", op.options); }
    void emit(const GlobalAveragePool&) {
        then("Flatten", {then("GlobalAveragePool", {input()}, own("map"))}, name(node_));
    }
    void emit(const Flatten&) { just("Flatten"); }
    void emit(const Scale& op) {
        then("Mul", {input(), parameter("scale", op.scale)}, name(node_));
    }
    void emit(const Add&) { just("Identity"); }
    void emit(const StepBias&) { refuse(g_.nodes[node_], "its bias differs from step to step"); }
    void emit(const Membrane&) { refuse(g_.nodes[node_], "it lives in physical time"); }
    void emit(const Threshold& op) {
        const std::string over =
            then("Greater", {input(), parameter("threshold", op.threshold)}, own("fires"));
        then("Cast", {over}, name(node_));
        integer("to", 1);
    }

    static Tensor scaled(const Tensor& t, double factor) {
        std::vector<float> values = t.to_vector<float>();
        for (float& v : values) v *= float(factor);
        return Tensor::from(values, t.shape());
    }
    // One value for every element, channels first.
    Tensor spread(const Tensor& t) const {
        const Shape& s = shapes_[node_];
        const size_t n = s.elements(), channels = s.back(), area = n / channels;
        std::vector<float> values(n);
        const float* from = t.data<float>();
        for (size_t i = 0; i < n; ++i)
            values[i] = t.elements() == n ? from[i] : from[i / area % t.elements()];
        return Tensor::from(values, Shape{n});
    }

    const Graph& g_;
    std::vector<Shape> shapes_;
    onnx::ModelProto model_;
    NodeProto* last_ = nullptr;
    size_t node_ = 0, output_ = 0;
    std::vector<size_t> neurons_;
};

}  // namespace

std::vector<uint8_t> onnx_step(const Graph& graph) {
    const Graph in_file_order = to_file_order(graph);
    const std::string bytes = Writer(in_file_order, infer_shapes(graph)).write();
    return std::vector<uint8_t>(bytes.begin(), bytes.end());
}

void save_onnx_step(const std::string& path, const Graph& graph) {
    const std::vector<uint8_t> bytes = onnx_step(graph);
    write_file(path, bytes.data(), bytes.size());
}

}  // namespace nc
