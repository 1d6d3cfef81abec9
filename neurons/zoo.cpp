// The networks by name: layer lists as short as the papers give them.
#include "neurons/zoo.h"

#include <algorithm>
#include <cmath>

namespace nc {
namespace {

// Appends layers after the last node; every method returns the node it made.
class Builder {
 public:
    Builder(const std::string& model, const Shape& input, const ZooOptions& options)
        : model_(model), options_(options), shape_(input) {
        last_ = add_node(graph, "input", Input{input}, {});
    }

    Graph graph;

    size_t last() const { return last_; }
    void go_to(size_t node, const Shape& shape) {
        last_ = node;
        shape_ = shape;
    }
    const Shape& shape() const { return shape_; }

    size_t conv(const std::string& name, size_t cout, size_t k, size_t stride, size_t pad,
                bool bias) {
        need(shape_.rank() == 3, "takes images [H, W, C], not samples of shape " + shape_.str());
        need(shape_[0] + 2 * pad >= k && shape_[1] + 2 * pad >= k, too_small());
        Conv op{Tensor({k, k, shape_[2], cout}), {}, {}};
        if (bias) op.bias = Tensor::full<float>({cout}, 0);
        op.options.stride_h = op.options.stride_w = stride;
        op.options.pad_h = op.options.pad_w = pad;
        shape_ = {(shape_[0] + 2 * pad - k) / stride + 1, (shape_[1] + 2 * pad - k) / stride + 1,
                  cout};
        return append(name, op);
    }
    size_t linear(const std::string& name, size_t out, bool bias) {
        if (shape_.rank() == 3) flatten();
        Linear op{Tensor({shape_[0], out}), bias ? Tensor::full<float>({out}, 0) : Tensor()};
        shape_ = {out};
        return append(name, op);
    }
    size_t flatten() {
        shape_ = {shape_.elements()};
        return append("flatten", Flatten{});
    }
    size_t norm(const std::string& name) {
        const auto full = [&](float value) { return Tensor::full<float>({shape_.back()}, value); };
        return append(name, BatchNorm{full(1), full(0), full(0), full(1)});
    }
    size_t activation(const std::string& name) { return append(name, activation_op()); }
    size_t pool(const std::string& name) {
        need(shape_[0] >= 2 && shape_[1] >= 2, too_small());
        shape_ = {shape_[0] / 2, shape_[1] / 2, shape_[2]};
        return append(name, AveragePool{});
    }
    size_t global_pool() {
        shape_ = {shape_[2]};
        return append("pool", GlobalAveragePool{});
    }
    // The activation after a sum of several nodes.
    size_t join(const std::string& name, const std::vector<size_t>& from) {
        return last_ = add_node(graph, name, activation_op(), from);
    }
    Graph finish() {
        append("output", Output{});
        return std::move(graph);
    }

 private:
    size_t append(const std::string& name, Operation op) {
        return last_ = add_node(graph, name, std::move(op), {last_});
    }
    Operation activation_op() const {
        if (options_.activation == "relu") return Activation{};
        if (options_.activation == "qcfs")
            return Qcfs{Tensor::full<float>({shape_.back()}, 2), options_.levels};
        Neuron op = options_.neuron ? *options_.neuron : default_neuron(options_.activation);
        if (!op.theta.defined()) op.theta = Tensor::full<float>({1}, 1);
        return op;
    }
    void need(bool ok, const std::string& what) const {
        if (!ok) throw Error("[zoo] " + model_ + " " + what);
    }
    std::string too_small() const {
        return "needs larger images: a layer would see " + shape_.str();
    }

    std::string model_;
    const ZooOptions& options_;
    Shape shape_;
    size_t last_;
};

std::string numbered(const char* name, int i) {
    return name + std::to_string(i);
}

// Linear layers with batch norm and activation after each but the last.
void classifier(Builder& b, std::initializer_list<size_t> hidden, int classes, bool norm = true) {
    int i = 1;
    for (size_t width : hidden) {
        b.linear(numbered("fc", i), width, !norm);
        if (norm) b.norm(numbered("fc_bn", i));
        b.activation(numbered("fc_act", i));
        ++i;
    }
    b.linear(numbered("fc", i), size_t(classes), true);
}

// conv, batch norm, activation, average pool 2.
void block(Builder& b, int i, size_t cout, size_t k, size_t pad, bool norm = true,
           bool pool = true) {
    b.conv(numbered("conv", i), cout, k, 1, pad, !norm);
    if (norm) b.norm(numbered("bn", i));
    b.activation(numbered("act", i));
    if (pool) b.pool(numbered("pool", i));
}

// Residual networks for CIFAR (He et al., 2016): a 3x3 stem of stride 1, stages of basic blocks,
// global average pool. A shortcut that changes shape is a 1x1 convolution with batch norm (option B
// there): option A's zero channels would be silent neurons.
void residual(Builder& b, const std::vector<size_t>& widths, int blocks, int classes) {
    b.conv("conv1", widths[0], 3, 1, 1, false);
    b.norm("bn1");
    b.activation("act1");
    for (size_t stage = 0; stage < widths.size(); ++stage)
        for (int i = 0; i < blocks; ++i) {
            const std::string prefix =
                "layer" + std::to_string(stage + 1) + "." + std::to_string(i) + ".";
            const size_t width = widths[stage], stride = stage > 0 && i == 0 ? 2 : 1;
            const size_t from = b.last();
            const Shape from_shape = b.shape();
            size_t shortcut = from;
            if (stride != 1 || from_shape.back() != width) {
                b.conv(prefix + "shortcut", width, 1, stride, 0, false);
                shortcut = b.norm(prefix + "shortcut_bn");
                b.go_to(from, from_shape);
            }
            b.conv(prefix + "conv1", width, 3, stride, 1, false);
            b.norm(prefix + "bn1");
            b.activation(prefix + "act1");
            b.conv(prefix + "conv2", width, 3, 1, 1, false);
            const size_t main = b.norm(prefix + "bn2");
            b.join(prefix + "act2", {main, shortcut});
        }
    b.global_pool();
    b.linear("fc", size_t(classes), true);
}

// Configuration D of Simonyan and Zisserman (2015) with batch norm, average pools and, as usual on
// small images, 512 wide linear layers.
void vgg16(Builder& b, int classes) {
    const int layers[] = {2, 2, 3, 3, 3};
    const size_t widths[] = {64, 128, 256, 512, 512};
    int i = 1;
    for (int stage = 0; stage < 5; ++stage)
        for (int k = 1; k <= layers[stage]; ++k)
            block(b, i++, widths[stage], 3, 1, true, k == layers[stage]);
    classifier(b, {512, 512}, classes);
}

// Normal, variance 2 / fan in.
Tensor normal(const Shape& shape, Random random) {
    Tensor w(shape);
    const double scale = std::sqrt(2 * double(shape.back()) / double(shape.elements()));
    float* values = w.data<float>();
    for (size_t i = 0; i < w.elements(); ++i) values[i] = float(scale * random.normal());
    return w;
}

}  // namespace

Neuron default_neuron(const std::string& kind) {
    Neuron n;
    if (kind == "if") return n;
    if (kind != "lif")
        throw Error("[zoo] unknown neuron '" + kind + "'", ErrorKind::usage,
                    suggestion(kind, {"if", "lif"}));
    n.rule.beta = 0.5;
    n.v0_fraction = 0;
    n.amplitude = Neuron::Amplitude::one;
    return n;
}

std::vector<std::string> model_names() {
    return {"mlp",      "lenet",    "cnn",   "cnn-nmnist", "cnn-nmnist-3x3",
            "resnet18", "resnet20", "vgg16", "dqn"};
}

Graph make_model(const std::string& name, const Shape& input, int classes,
                 const ZooOptions& options) {
    const std::vector<std::string> names = model_names();
    if (std::find(names.begin(), names.end(), name) == names.end())
        throw Error("[zoo] unknown model '" + name + "'", ErrorKind::usage,
                    suggestion(name, names));
    const std::vector<std::string> activations = {"relu", "qcfs", "if", "lif"};
    if (std::find(activations.begin(), activations.end(), options.activation) == activations.end())
        throw Error("[zoo] unknown activation '" + options.activation + "'", ErrorKind::usage,
                    suggestion(options.activation, activations));
    if (options.levels < 1)
        throw Error("[zoo] levels must be at least 1: " + std::to_string(options.levels));
    if (classes < 1) throw Error("[zoo] classes must be at least 1: " + std::to_string(classes));
    if (input.rank() != 1 && input.rank() != 3)
        throw Error("[zoo] samples must be [H, W, C] or [F], not " + input.str());

    Builder b(name, input, options);
    if (name == "mlp") {
        classifier(b, {256, 256}, classes);
    } else if (name == "lenet") {
        block(b, 1, 6, 5, 2);
        block(b, 2, 16, 5, 0);
        classifier(b, {120, 84}, classes);
    } else if (name == "cnn") {
        block(b, 1, 32, 3, 1);
        block(b, 2, 64, 3, 1);
        classifier(b, {128}, classes);
    } else if (name == "cnn-nmnist") {
        block(b, 1, 32, 5, 2);
        block(b, 2, 64, 5, 2);
        block(b, 3, 128, 3, 1);
        classifier(b, {}, classes);
    } else if (name == "cnn-nmnist-3x3") {
        block(b, 1, 32, 3, 1, false);
        block(b, 2, 64, 3, 1, false);
        block(b, 3, 128, 3, 1, false);
        classifier(b, {}, classes);
    } else if (name == "resnet20") {
        residual(b, {16, 32, 64}, 3, classes);
    } else if (name == "resnet18") {
        residual(b, {64, 128, 256, 512}, 2, classes);
    } else if (name == "vgg16") {
        vgg16(b, classes);
    } else {  // dqn: action values from a state, as for CartPole
        classifier(b, {128, 128}, classes, false);
    }
    Graph graph = draw_weights(b.finish(), options.seed);
    check(graph);
    return graph;
}

Graph draw_weights(Graph graph, uint64_t seed) {
    uint64_t stream = 0;
    for (auto& node : graph.nodes)
        for_each_tensor(node, [&](const char*, Tensor& tensor, TensorRole role) {
            ++stream;
            if (role == TensorRole::weight && tensor.defined())
                tensor = normal(tensor.shape(), Random(seed, stream));
        });
    return graph;
}

}  // namespace nc
