// The shape of every node's output, per sample.
#include <algorithm>

#include "engine/graph.h"

namespace nc {
namespace {

[[noreturn]] void refuse(const Node& node, const std::string& what) {
    throw Error(
        "[graph] node '" + node.name + "' (" + std::string(operation_name(node.op)) + "): " + what,
        ErrorKind::model);
}

std::string text(const Tensor& t) {
    return t.defined() ? t.shape().str() : "undefined";
}

// What a node makes of its input x; its tensors are checked against it.
struct Infer {
    const Node& node;
    const Shape& x;

    void rank(size_t wanted) const {
        if (x.rank() != wanted)
            refuse(node, "the input has the shape " + x.str() + ", not " +
                             (wanted == 1 ? "[F]" : "[H, W, C]"));
    }
    void bias(const Tensor& b, size_t out) const {
        if (b.defined() && !(b.shape() == Shape{out}))
            refuse(node, "bias " + text(b) + " for " + std::to_string(out) + " outputs");
    }
    // One value, or one a channel.
    void per_channel(const char* field, const Tensor& t) const {
        if (!t.defined() || !(t.shape() == Shape{1} || t.shape() == Shape{x.back()}))
            refuse(node, std::string(field) + " " + text(t) + " for an input " + x.str());
    }
    void each_channel(const char* field, const Tensor& t) const {
        if (!t.defined() || !(t.shape() == Shape{x.back()}))
            refuse(node, std::string(field) + " " + text(t) + " for an input " + x.str());
    }
    // One value, one a channel or one an element.
    void per_element(const char* field, const Tensor& t) const {
        const size_t n = t.elements();
        if (!t.defined() || (n != 1 && n != x.back() && n != x.elements()))
            refuse(node, std::string(field) + " " + text(t) + " for an input " + x.str());
    }
    // Both, or neither.
    void pair(const char* field, const Tensor& t, const char* other, const Tensor& u) const {
        if (t.defined() != u.defined())
            refuse(node, std::string(field) + " " + text(t) + " and " + other + " " + text(u));
        if (!t.defined()) return;
        per_element(field, t);
        per_element(other, u);
    }
    // A sample as a batch of one, through the checks of engine/ops.
    template <class Sizes>
    Shape layer(const Sizes& sizes) const {
        rank(3);
        try {
            return sizes(x.with_leading(1));
        } catch (const Error& e) {
            refuse(node, e.what());
        }
    }
    Shape pool(const ops::PoolOptions& options) const {
        return layer([&](const Shape& batch) {
            const kernels::PoolShape s = ops::pool_shape(batch, options);
            return Shape{s.out_h(), s.out_w(), s.c};
        });
    }

    Shape operator()(const Input&) const { return x; }
    Shape operator()(const Output&) const { return x; }
    Shape operator()(const Linear& op) const {
        rank(1);
        if (!op.weight.defined() || op.weight.shape().rank() != 2 || op.weight.shape()[0] != x[0])
            refuse(node, "weight " + text(op.weight) + " for an input " + x.str());
        bias(op.bias, op.weight.shape()[1]);
        return {op.weight.shape()[1]};
    }
    Shape operator()(const Conv& op) const {
        if (!op.weight.defined()) refuse(node, "weight undefined");
        const Shape y = layer([&](const Shape& batch) {
            const kernels::ConvShape s = ops::conv_shape(batch, op.weight.shape(), op.options);
            return Shape{s.out_h(), s.out_w(), s.cout};
        });
        bias(op.bias, y.back());
        return y;
    }
    Shape operator()(const BatchNorm& op) const {
        if (op.gamma.defined() != op.beta.defined())
            refuse(node, "gamma " + text(op.gamma) + " and beta " + text(op.beta));
        if (op.gamma.defined()) {
            each_channel("gamma", op.gamma);
            each_channel("beta", op.beta);
        }
        each_channel("mean", op.mean);
        each_channel("variance", op.variance);
        return x;
    }
    Shape operator()(const Activation&) const { return x; }
    Shape operator()(const PRelu& op) const {
        per_channel("slope", op.slope);
        return x;
    }
    Shape operator()(const Qcfs& op) const {
        per_channel("lambda", op.lambda);
        return x;
    }
    Shape operator()(const Neuron& op) const {
        per_element("theta", op.theta);
        if (op.v0.defined()) per_element("v0", op.v0);
        return x;
    }
    Shape operator()(const AveragePool& op) const { return pool(op.options); }
    Shape operator()(const MaxPool& op) const { return pool(op.options); }
    Shape operator()(const GlobalAveragePool&) const {
        rank(3);
        return {x[2]};
    }
    Shape operator()(const Flatten&) const { return {x.elements()}; }
    Shape operator()(const Scale& op) const {
        per_element("scale", op.scale);
        return x;
    }
    Shape operator()(const Add&) const { return x; }
    Shape operator()(const StepBias& op) const {
        if (!op.bias.defined() || op.bias.shape().rank() != 2 || op.bias.shape()[0] == 0 ||
            op.bias.shape()[1] != x.back())
            refuse(node, "bias " + text(op.bias) + ", not [steps, C], for an input " + x.str());
        return x;
    }
    Shape operator()(const Membrane& op) const {
        per_element("r", op.r);
        pair("tau", op.tau, "v_leak", op.v_leak);
        pair("tau_syn", op.tau_syn, "w_in", op.w_in);
        pair("threshold", op.threshold, "v_reset", op.v_reset);
        if (op.tau_syn.defined() && !op.tau.defined()) refuse(node, "tau_syn without tau");
        return x;
    }
    Shape operator()(const Threshold& op) const {
        per_element("threshold", op.threshold);
        return x;
    }
};

}  // namespace

namespace {

// The shapes found so far.
struct Known {
    const Graph& g;
    std::vector<std::vector<size_t>> from, to;  // neighbours by node
    std::vector<Shape> in, out;
    std::vector<bool> known;

    explicit Known(const Graph& graph)
        : g(graph),
          from(g.nodes.size()),
          to(g.nodes.size()),
          in(g.nodes.size()),
          out(g.nodes.size()),
          known(g.nodes.size()) {
        for (const Edge& e : g.edges) {
            from[e.to].push_back(e.from);
            to[e.from].push_back(e.to);
        }
    }

    // Asks that the inputs of node i known so far agree.
    void check_inputs(size_t i) const {
        for (const size_t source : from[i])
            if (known[source] && !(out[source] == in[i]))
                refuse(g.nodes[i], "its inputs differ: " + in[i].str() + " and " +
                                       out[source].str() + " from '" + g.nodes[source].name + "'");
    }

    // Computes node i from its inputs known so far; nothing while there is none.
    void resolve(size_t i) {
        if (const auto* input = std::get_if<Input>(&g.nodes[i].op)) {
            in[i] = input->shape;
            if ((in[i].rank() != 1 && in[i].rank() != 3) || in[i].elements() == 0)
                refuse(g.nodes[i], "a sample has the shape " + in[i].str() +
                                       ", not [F] or [H, W, C] with every size positive");
        } else {
            const auto source = std::find_if(from[i].begin(), from[i].end(),
                                             [&](size_t other) { return known[other]; });
            if (source == from[i].end()) return;
            in[i] = out[*source];
            check_inputs(i);
        }
        out[i] = std::visit(Infer{g.nodes[i], in[i]}, g.nodes[i].op);
        if (out[i].elements() == 0) refuse(g.nodes[i], "an empty output " + out[i].str());
        known[i] = true;
    }
};

}  // namespace

// In topological order; then along what is known to the nodes that only delayed edges enter (a
// recurrent layer).
std::vector<Shape> infer_shapes(const Graph& g) {
    const std::vector<size_t> order = topological_order(g);
    Known shapes(g);
    for (const size_t i : order) shapes.resolve(i);
    std::vector<size_t> open = order;
    while (!open.empty()) {
        const size_t i = open.back();
        open.pop_back();
        if (!shapes.known[i]) continue;
        for (const size_t other : shapes.to[i]) {
            if (shapes.known[other]) continue;
            shapes.resolve(other);
            open.push_back(other);
        }
    }
    for (size_t i = 0; i < g.nodes.size(); ++i) {
        if (!shapes.known[i]) refuse(g.nodes[i], "it is not reached from the input");
        shapes.check_inputs(i);
    }
    return shapes.out;
}

}  // namespace nc
