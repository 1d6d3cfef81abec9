// From a Graph in NIR's form to its nodes: exactly the fields each has, of the full shape.
#include <algorithm>
#include <set>

#include "engine/graph_edit.h"
#include "io/layout.h"
#include "io/named_inputs.h"
#include "io/nir.h"

namespace nc {
namespace {

// Sizes in the file's order: (C, H, W), (C, L) in a network of lines, or (F).
std::vector<size_t> file_shape(const Shape& s, bool lines) {
    if (s.rank() != 3) return s.to_vector();
    if (lines) return {s[2], s[1]};
    return {s[2], s[0], s[1]};
}

NirField integers(const std::vector<size_t>& values) {
    return {{values.size()}, std::vector<int64_t>(values.begin(), values.end())};
}
NirField integer(int64_t value) {
    return {{}, std::vector<int64_t>{value}};
}
NirField number(double value) {
    return {{}, std::vector<double>{value}};
}
NirField word(const std::string& value) {
    return {{}, std::vector<std::string>{value}};
}
NirField array(const Tensor& t, const std::vector<size_t>& shape) {
    return {shape, t.to_vector<float>()};
}

class Writer {
 public:
    explicit Writer(const Graph& graph)
        : graph_(graph),
          file_(to_file_order(graph)),
          shapes_(infer_shapes(graph)),
          lines_(is_of_lines(graph)) {
        const std::vector<NamedInput> inputs = named_inputs(graph);
        for (const NamedInput& input : inputs) inputs_.insert(input.node);
    }

    NirNode run() {
        root_.type = "NIRGraph";
        for (size_t i = 0; i < graph_.nodes.size(); ++i) {
            if (inputs_.count(i) > 0)
                root_.nodes[graph_.nodes[i].name] = input(i);
            else if (!std::holds_alternative<Input>(graph_.nodes[i].op))
                root_.nodes[graph_.nodes[i].name] =
                    std::visit([&](const auto& op) { return node(op, i); }, file_.nodes[i].op);
        }
        write_edges();
        return std::move(root_);
    }

 private:
    [[noreturn]] void refuse(size_t i, const std::string& what) const {
        throw Error("[nir] node '" + graph_.nodes[i].name + "' (" +
                        std::string(operation_name(graph_.nodes[i].op)) + "): " + what,
                    ErrorKind::model);
    }
    template <class Op>
    NirNode node(const Op&, size_t i) const {
        static_assert(std::is_same_v<Op, BatchNorm> || std::is_same_v<Op, Activation> ||
                      std::is_same_v<Op, PRelu> || std::is_same_v<Op, Qcfs> ||
                      std::is_same_v<Op, MaxPool> || std::is_same_v<Op, GlobalAveragePool> ||
                      std::is_same_v<Op, Add> || std::is_same_v<Op, StepBias> ||
                      std::is_same_v<Op, Input>);
        refuse(i, "NIR has no such node");
    }

    Shape input_shape(size_t i) const {
        return shapes_[graph_.edges[inputs_of(graph_, i).front()].from];
    }
    std::vector<size_t> sizes(size_t i) const { return file_shape(shapes_[i], lines_); }

    // Of every neuron: one value, one a channel or all of them, in the file's order. Channels are
    // its slowest axis.
    NirField full(const Tensor& t, size_t i) const {
        const std::vector<float> values = t.to_vector<float>();
        const size_t all = shapes_[i].elements(), group = all / values.size();
        std::vector<float> out(all);
        for (size_t k = 0; k < all; ++k) out[k] = values[k / group];
        return {sizes(i), out};
    }
    NirField full(float value, size_t i) const { return full(Tensor::full(Shape{1}, value), i); }

    NirNode input(size_t i) const { return {"Input", {{"shape", integers(sizes(i))}}, {}, {}, {}}; }
    NirNode node(const Output&, size_t i) const {
        return {"Output", {{"shape", integers(sizes(i))}}, {}, {}, {}};
    }
    NirNode node(const Linear& op, size_t) const {
        NirNode out;
        out.type = op.bias.defined() ? "Affine" : "Linear";
        out.fields["weight"] = array(op.weight, op.weight.shape().to_vector());
        if (op.bias.defined()) out.fields["bias"] = array(op.bias, op.bias.shape().to_vector());
        return out;
    }
    NirNode node(const Conv& op, size_t i) const {
        const ops::ConvOptions& o = op.options;
        const Shape& s = op.weight.shape();  // [out, in, h, w]
        NirNode out;
        if (is_sum_pool(std::get<Conv>(graph_.nodes[i].op)))
            return pool("SumPool2d", {s[2], s[3], o.stride_h, o.stride_w, o.pad_h, o.pad_w});
        const Shape x = input_shape(i);
        const auto sizes = [&](size_t h, size_t w) {
            return lines_ ? integer(int64_t(w)) : integers({h, w});
        };
        out.type = lines_ ? "Conv1d" : "Conv2d";
        out.fields["weight"] =
            array(op.weight, lines_ ? std::vector<size_t>{s[0], s[1], s[3]} : s.to_vector());
        out.fields["bias"] = op.bias.defined() ? array(op.bias, {s[0]})
                                               : array(Tensor::full<float>({s[0]}, 0), {s[0]});
        out.fields["input_shape"] = sizes(x[0], x[1]);
        out.fields["stride"] = sizes(o.stride_h, o.stride_w);
        out.fields["padding"] = sizes(o.pad_h, o.pad_w);
        out.fields["dilation"] = sizes(o.dilation_h, o.dilation_w);
        out.fields["groups"] = integer(int64_t(o.groups));
        return out;
    }
    static NirNode pool(const char* type, const ops::PoolOptions& o) {
        return {type,
                {{"kernel_size", integers({o.kh, o.kw})},
                 {"stride", integers({o.stride_h, o.stride_w})},
                 {"padding", integers({o.pad_h, o.pad_w})}},
                {},
                {},
                {}};
    }
    NirNode node(const AveragePool& op, size_t) const { return pool("AvgPool2d", op.options); }
    NirNode node(const Flatten&, size_t i) const {
        return {"Flatten",
                {{"input_type", integers(file_shape(input_shape(i), lines_))},
                 {"start_dim", integer(0)},
                 {"end_dim", integer(-1)}},
                {},
                {},
                {}};
    }
    NirNode node(const Scale& op, size_t i) const {
        return {"Scale", {{"scale", full(op.scale, i)}}, {}, {}, {}};
    }
    NirNode node(const Threshold& op, size_t i) const {
        return {"Threshold", {{"threshold", full(op.threshold, i)}}, {}, {}, {}};
    }

    // A leaky one, v = beta v + x, is dt / tau = 1 - beta with r to match; beta itself goes into
    // the metadata, as does all that NIR's own semantics would do otherwise.
    NirNode node(const Neuron& op, size_t i) const {
        if (op.rule.spiking != kernels::Spiking::plain)
            refuse(i, "NIR has neurons that emit 0 or 1, not signed or exact ones");
        if (op.amplitude != Neuron::Amplitude::one)
            refuse(i, "its amplitude is not folded into the weights");
        const bool subtract = op.rule.reset == kernels::Reset::subtract;
        NirNode out;
        out.type = op.rule.beta == 1 ? "IF" : "LIF";
        out.fields["r"] = full(1.0f, i);
        out.fields["v_threshold"] = full(op.theta, i);
        out.fields["v_reset"] = full(subtract ? 0.0f : float(op.rule.reset_value), i);
        if (op.rule.beta != 1) {
            const double rate = 1 - op.rule.beta;
            out.fields["r"] = full(float(1 / rate), i);
            out.fields["tau"] = full(float(default_dt / rate), i);
            out.fields["v_leak"] = full(0.0f, i);
            out.metadata["beta"] = number(op.rule.beta);
            out.metadata["dt"] = number(default_dt);
        }
        if (subtract) out.metadata["reset"] = word("subtract");
        if (op.rule.compare == kernels::Compare::greater_equal)
            out.metadata["compare"] = word("greater_equal");
        if (op.v0.defined() || op.v0_fraction != 0) {
            std::vector<float> v0 = (op.v0.defined() ? op.v0 : op.theta).to_vector<float>();
            if (!op.v0.defined())
                for (float& v : v0) v *= float(op.v0_fraction);
            out.metadata["v0"] =
                v0.size() == 1 ? NirField{{}, v0} : full(Tensor::from(v0, Shape{v0.size()}), i);
        }
        return out;
    }

    NirNode node(const Membrane& op, size_t i) const {
        const bool leaky = op.tau.defined(), synapse = op.tau_syn.defined(),
                   spikes = op.threshold.defined();
        NirNode out;
        if (!leaky)
            out.type = spikes ? "IF" : "I";
        else
            out.type = std::string(synapse ? "CubaLI" : "LI") + (spikes ? "F" : "");
        out.fields["r"] = full(op.r, i);
        if (leaky) {
            out.fields[synapse ? "tau_mem" : "tau"] = full(op.tau, i);
            out.fields["v_leak"] = full(op.v_leak, i);
            out.metadata["dt"] = number(op.dt);
        }
        if (synapse) {
            out.fields["tau_syn"] = full(op.tau_syn, i);
            out.fields["w_in"] = full(op.w_in, i);
        }
        if (spikes) {
            out.fields["v_threshold"] = full(op.threshold, i);
            out.fields["v_reset"] = full(op.v_reset, i);
        }
        return out;
    }

    // Edges that wait a step because they close a cycle are written as they are: a reader delays
    // them again. Every other delay is a node.
    void write_edges() {
        std::vector<bool> plain;
        for (const Edge& e : graph_.edges) plain.push_back(e.delay <= 1);
        Graph read;
        for (bool settled = false; !settled;) {
            settled = true;
            read = graph_;
            for (size_t k = 0; k < plain.size(); ++k)
                if (plain[k]) read.edges[k].delay = 0;
            read = delay_cycles(std::move(read));
            for (size_t k = 0; k < plain.size(); ++k)
                if (read.edges[k].delay < graph_.edges[k].delay) settled = plain[k] = false;
        }
        for (size_t k = 0; k < graph_.edges.size(); ++k) {
            const Edge& e = graph_.edges[k];
            if (inputs_.count(e.to) > 0) continue;  // from the input of several
            const std::string &from = graph_.nodes[e.from].name, &to = graph_.nodes[e.to].name;
            if (read.edges[k].delay != e.delay)
                refuse(e.to, "a reader of NIR would let it wait a step for '" + from + "'");
            if (plain[k]) {
                root_.edges.emplace_back(from, to);
                continue;
            }
            const std::string name = unique_name(graph_, to + ".delay" + std::to_string(k));
            NirNode delay;
            delay.type = "Delay";
            delay.fields["delay"] = full(float(e.delay * default_dt), e.from);
            root_.nodes[name] = delay;
            root_.metadata["dt"] = number(default_dt);
            root_.edges.emplace_back(from, name);
            root_.edges.emplace_back(name, to);
        }
    }

    const Graph& graph_;
    const Graph file_;
    const std::vector<Shape> shapes_;
    const bool lines_;
    std::set<size_t> inputs_;  // what the file has as such
    NirNode root_;
};

}  // namespace

bool is_of_lines(const Graph& g) {
    const std::vector<Shape> shapes = infer_shapes(g);
    bool convolves = false;
    std::set<size_t> inputs;
    for (const NamedInput& input : named_inputs(g)) inputs.insert(input.node);
    for (size_t i = 0; i < g.nodes.size(); ++i) {
        const Operation& op = g.nodes[i].op;
        if (inputs.count(i) > 0 && shapes[i].rank() == 3 && shapes[i][0] == 1) continue;
        const auto* conv = std::get_if<Conv>(&op);
        if (shapes[i].rank() == 3 && shapes[i][0] != 1) return false;
        if (std::holds_alternative<AveragePool>(op) || (conv && is_sum_pool(*conv))) return false;
        if (conv && (conv->weight.shape()[0] != 1 || conv->options.pad_h != 0)) return false;
        convolves = convolves || conv;
    }
    return convolves;
}

NirNode graph_to_nir(const Graph& graph) {
    return Writer(graph).run();
}

}  // namespace nc
