// Compiling an analog network: batch norms go into weights, sums of two and ReLUs into the layer
// before them, weights are packed or transformed.
#include "neurons/analog_plan.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "engine/graph_edit.h"
#include "engine/graph_fold.h"

namespace nc::analog {
namespace {

using kernels::ConvMethod;
using kernels::ConvShape;

[[noreturn]] void refuse(const std::string& what, const std::string& hint = "") {
    throw Error("[runtime] " + what, ErrorKind::model, hint);
}

// Why a node has no place in an analog network at inference; "" for one that has.
std::string objection(const Node& node) {
    const auto* input = std::get_if<Input>(&node.op);
    if (input != nullptr && input->scale > 0) return "takes quantised samples";
    if (std::holds_alternative<Neuron>(node.op) || std::holds_alternative<Membrane>(node.op) ||
        std::holds_alternative<Threshold>(node.op) || std::holds_alternative<StepBias>(node.op))
        return "is a " + std::string(operation_name(node.op));
    return "";
}

void check_supported(const Graph& g) {
    std::string refused;
    for (const Node& node : g.nodes)
        if (const std::string why = objection(node); !why.empty())
            refused += (refused.empty() ? "'" : "; '") + node.name + "' " + why;
    for (const Edge& edge : g.edges)
        if (edge.delay > 0)
            refused += (refused.empty() ? "'" : "; '") + g.nodes[edge.from].name +
                       "' is delayed by " + std::to_string(edge.delay);
    if (!refused.empty()) refuse("not an analog network: " + refused);
}

// The time of a method in products that one core does meanwhile. Transforming an element costs as
// much as about `transform` products, a byte of weights arrives in the time of `byte` of them: they
// do not fit the caches of a core, and each is read once a run. Measured on AVX-512.
double cost(ConvMethod method, const ConvShape& s) {
    constexpr double transform = 10, byte = 4;
    const double weights = double(s.cin) * double(s.cout);
    if (method == ConvMethod::direct)
        return std::max(double(s.n * s.out_h() * s.out_w()), byte * sizeof(float)) * 9 * weights;
    const size_t m = method == ConvMethod::winograd2 ? 2 : 4;
    const size_t tiles = s.n * ((s.out_h() + m - 1) / m) * ((s.out_w() + m - 1) / m);
    const double positions = double((m + 2) * (m + 2));
    return positions * (std::max(double(tiles), byte * sizeof(float)) * weights +
                        double(tiles) * transform * double(s.cin + s.cout));
}

ConvMethod choose(ConvChoice choice, const ConvShape& s) {
    if (choice == ConvChoice::direct || !kernels::fits_winograd(s)) return ConvMethod::direct;
    if (choice == ConvChoice::winograd2) return ConvMethod::winograd2;
    if (choice == ConvChoice::winograd4) return ConvMethod::winograd4;
    ConvMethod best = ConvMethod::direct;
    for (const ConvMethod method : {ConvMethod::winograd2, ConvMethod::winograd4})
        if (cost(method, s) < cost(best, s)) best = method;
    return best;
}

class Compiler {
 public:
    Compiler(const Graph& graph, const AnalogOptions& options) : options_(options) {
        check(graph);
        check_supported(graph);
        plan_.graph = sorted(fold_batch_norm(graph));
        plan_.table = options.table != nullptr ? options.table : kernels::best();
        if (plan_.table == nullptr || plan_.table->cuda)
            refuse("there are no CPU kernels to run on: see NC_ISA");
        plan_.kernels = kernels::analog(plan_.table->name);
        plan_.threads = std::clamp<size_t>(options.threads, 1, 256);
        plan_.batch = std::max<size_t>(options.batch, 1);
        shapes_ = infer_shapes(plan_.graph);
        values_.assign(nodes().size(), none);
        sums_.assign(nodes().size(), none);
        done_.assign(nodes().size(), false);
    }

    Plan compile() {
        for (size_t node = 0; node < nodes().size(); ++node)
            if (!done_[node]) lower(node);
        plan_.offsets = arena_.offsets(&plan_.arena_bytes);
        return std::move(plan_);
    }

 private:
    const std::vector<Node>& nodes() const { return plan_.graph.nodes; }
    template <class Op>
    const Op* is(size_t node) const {
        return std::get_if<Op>(&nodes()[node].op);
    }
    std::vector<size_t> sources(size_t node) const {
        std::vector<size_t> out;
        for (const size_t e : inputs_of(plan_.graph, node))
            out.push_back(plan_.graph.edges[e].from);
        return out;
    }
    // The node that alone reads this one.
    std::optional<size_t> consumer(size_t node) const {
        const auto out = outputs_of(plan_.graph, node);
        return out.size() == 1 ? std::optional(plan_.graph.edges[out[0]].to) : std::nullopt;
    }

    // ------------------------------------------------------------------------------------------
    // memory: of the stage that is added next
    Buffer make(size_t elements) {
        return arena_.make(plan::bytes_of(plan::bytes_of(elements, sizeof(float)), plan_.batch),
                           plan_.stages.size());
    }
    Buffer use(Buffer b) {
        if (b >= 0) arena_.use(b, plan_.stages.size());
        return b;
    }

    // The sum of a node's edges.
    Buffer input(size_t node) {
        if (sums_[node] != none) return sums_[node];
        const auto from = sources(node);
        if (from.size() == 1) return values_[from[0]];
        const size_t elements = shapes_[from[0]].elements();
        Addition stage = {.terms = {}, .out = make(elements), .elements = elements};
        for (const size_t other : from) stage.terms.push_back(use(values_[other]));
        plan_.stages.push_back(stage);
        return stage.out;
    }

    // What follows a weight layer and can be done where its sums are written.
    struct End {
        Buffer add = none;
        bool relu = false;
        std::optional<size_t> value;  // the node whose value it then is; else
        std::optional<size_t> sum;    // the node whose sum of edges it is
    };
    bool is_relu(size_t node) const {
        const auto* op = is<Activation>(node);
        return op != nullptr && op->kind == kernels::Activation::relu;
    }
    End end_of(size_t layer) const {
        End end;
        end.value = layer;
        std::optional<size_t> next = consumer(layer);
        if (!next) return end;
        const auto from = sources(*next);
        if (from.size() > 2) return end;
        if (from.size() == 2) {
            const size_t other = from[0] == layer ? from[1] : from[0];
            if (values_[other] == none) return end;  // comes later: that layer adds this one
            end.add = values_[other];
            end.value = std::nullopt;
            end.sum = next;
            if (!is<Add>(*next) && !is_relu(*next)) return end;
        }
        if (is<Add>(*next)) {
            end.value = next;
            next = consumer(*next);
            if (!next || sources(*next).size() != 1) return end;
        }
        if (is_relu(*next)) {
            end.relu = true;
            end.value = next;
        }
        return end;
    }

    void lower(size_t node) {
        const Operation& op = nodes()[node].op;
        const Shape& shape = shapes_[node];
        if (const auto* in = std::get_if<Input>(&op)) {
            plan_.sample = in->shape;
            values_[node] = callers;
        } else if (std::holds_alternative<Output>(op)) {
            plan_.result = use(input(node));
            plan_.outputs = shape.elements();
        } else if (std::holds_alternative<Flatten>(op) || std::holds_alternative<Add>(op)) {
            values_[node] = input(node);
        } else if (const auto* linear = std::get_if<Linear>(&op)) {
            add_layer(node, linear->weight, linear->bias,
                      {.n = plan_.batch,
                       .h = 1,
                       .w = 1,
                       .cin = linear->weight.shape()[0],
                       .kh = 1,
                       .kw = 1,
                       .cout = linear->weight.shape()[1]});
        } else if (const auto* conv = std::get_if<Conv>(&op)) {
            const Shape in = shapes_[sources(node)[0]].with_leading(plan_.batch);
            add_layer(node, conv->weight, conv->bias,
                      ops::conv_shape(in, conv->weight.shape(), conv->options));
        } else {
            const Shape in = shapes_[sources(node)[0]].with_leading(1);
            Pointwise stage = {.op = op,
                               .x = input(node),
                               .out = none,
                               .elements = in.elements(),
                               .pool = std::nullopt};
            if (const auto* average = std::get_if<AveragePool>(&op))
                stage.pool = ops::pool_shape(in, average->options);
            else if (const auto* max = std::get_if<MaxPool>(&op))
                stage.pool = ops::pool_shape(in, max->options);
            else if (std::holds_alternative<GlobalAveragePool>(op))
                stage.pool = ops::pool_shape(in, {in[1], in[2], 1, 1});
            use(stage.x);
            stage.out = values_[node] = make(shape.elements());
            plan_.stages.push_back(std::move(stage));
        }
    }

    void add_layer(size_t node, const Tensor& weight, const Tensor& bias, const ConvShape& shape) {
        const Buffer x = input(node);
        const End end = end_of(node);
        WeightLayer layer = {};
        layer.name = nodes()[node].name;
        layer.shape = shape;
        layer.method = choose(options_.conv, shape);
        layer.bias = bias.defined() ? bias.data<float>() : nullptr;
        layer.x = use(x);
        layer.add = use(end.add);
        layer.relu = end.relu;
        layer.packed_floats = plan_.kernels->packed_floats(layer.method, shape);
        Tensor packed({std::max<size_t>(layer.packed_floats, 1)});
        plan_.kernels->pack(layer.method, weight.data<float>(), packed.data<float>(), shape);
        layer.packed = packed.data<float>();
        plan_.constant_bytes += packed.bytes();
        plan_.constants.push_back(std::move(packed));
        layer.scratch_bytes = (plan_.kernels->scratch(layer.method, shape) + 63) / 64 * 64;
        layer.scratch =
            arena_.make(plan::bytes_of(layer.scratch_bytes, plan_.threads), plan_.stages.size());
        layer.out = make(shape.out_h() * shape.out_w() * shape.cout);
        if (end.value) {
            values_[*end.value] = layer.out;
            done_[*end.value] = true;
        } else {
            sums_[*end.sum] = layer.out;
        }
        // Whatever lies between is read by nobody else.
        for (size_t at = node; end.value && at != *end.value; at = *consumer(at)) done_[at] = true;
        plan_.stages.push_back(std::move(layer));
    }

    const AnalogOptions& options_;
    Plan plan_;
    plan::Arena arena_;
    std::vector<Shape> shapes_;
    std::vector<Buffer> values_;  // by node
    std::vector<Buffer> sums_;    // by node: of its edges, where a layer made it
    std::vector<bool> done_;
};

}  // namespace

Plan compile(const Graph& graph, const AnalogOptions& options) {
    return Compiler(graph, options).compile();
}

}  // namespace nc::analog
