// The one interpreter of a Graph, in two orders: layer by layer over all steps, and step by step.
#include "neurons/forward.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>

#include "autograd/recompute.h"
#include "neurons/forward_chains.h"
#include "neurons/membrane.h"

namespace nc {
namespace {

[[noreturn]] void fail(const std::string& what) {
    throw Error("[forward] " + what);
}

// An activation on its way: [N, ...], or with time [T * N, ...].
struct Value {
    Var v;
    bool time = false;
    bool binary = false;  // every element is 0 or 1
    // A recomputed block's output: v is made of it when someone needs floats.
    std::shared_ptr<fn::PackedSpikes> packed = nullptr;
};

// Whether the neuron's outputs are 0 or 1. Thresholds on a device are not read for it.
bool is_binary(const Neuron& neuron, const Tensor& theta) {
    if (neuron.rule.spiking != kernels::Spiking::plain) return false;
    if (neuron.amplitude == Neuron::Amplitude::one) return true;
    if (theta.device().kind != DeviceKind::cpu) return false;
    const float* t = theta.data<float>();
    return std::all_of(t, t + theta.elements(), [](float x) { return x == 1; });
}

class Interpreter {
 public:
    Interpreter(Compute& compute, const Graph& graph, const Parameters& parameters,
                const Tensor& input, const ForwardOptions& options, Tape* tape)
        : compute_(compute),
          graph_(graph),
          parameters_(parameters),
          options_(options),
          tape_(tape),
          links_(graph),
          unread_(links_.uses),
          canonical_(is_spiking(graph) && tape == nullptr && !options.training) {
        const size_t lead = options.temporal_input ? 2 : 1;
        if (input.shape().rank() <= lead)
            fail("input " + input.shape().str() + " has no sample axes");
        T_ = options.temporal_input ? input.shape()[0] : options.T;
        N_ = input.shape()[lead - 1];
        if (T_ < 1) fail("T must be at least 1");
        const std::vector<size_t> sizes = input.shape().to_vector();
        const Shape sample(std::vector<size_t>(sizes.begin() + std::ptrdiff_t(lead), sizes.end()));
        for (const auto& node : graph.nodes)
            if (const auto* op = std::get_if<Input>(&node.op); op && !(op->shape == sample))
                fail("samples are " + sample.str() + ", the network takes " + op->shape.str());
        input_ = {options.temporal_input ? input.reshape(sample.with_leading(T_ * N_)) : input,
                  options.temporal_input};
        for (const Edge& edge : graph.edges) delayed_ = delayed_ || edge.delay > 0;
        if (delayed_ && !is_spiking(graph) && !options.temporal_input)
            fail("delayed edges need time: a spiking network or temporal input");
    }

    Forwarded layer_by_layer(const std::vector<size_t>& order) {
        std::vector<Value> values(graph_.nodes.size());
        std::map<size_t, Chain> chains;  // by first node
        std::vector<bool> absorbed(graph_.nodes.size());
        if (options_.recompute && tape_ != nullptr && !options_.observe)
            for (const size_t node : order) {
                if (absorbed[node]) continue;
                const auto chain = chain_from(graph_, links_, node);
                if (!chain) continue;
                chains[node] = *chain;
                for (const auto member : {chain->flatten, std::optional(chain->weight), chain->norm,
                                          std::optional(chain->neuron), chain->pool})
                    if (member) absorbed[*member] = true;
            }
        std::map<size_t, size_t> relu_of;  // batch norms with the ReLU that they do too
        for (const size_t node : order)
            if (const auto relu = absorbed[node] || options_.observe
                                      ? std::nullopt
                                      : relu_after(graph_, links_, node)) {
                relu_of[node] = *relu;
                absorbed[*relu] = true;
            }
        for (const size_t node : order) {
            if (const auto chain = chains.find(node); chain != chains.end()) {
                const size_t from = graph_.edges[links_.incoming[node].front()].from;
                const Chain& c = chain->second;
                values[c.pool.value_or(c.neuron)] = run_chain(c, values[from]);
                if (--unread_[from] == 0) values[from] = {};
            }
            if (absorbed[node]) continue;
            Value x;
            for (const size_t e : links_.incoming[node]) {
                const Edge& edge = graph_.edges[e];
                Value& from = values[edge.from];
                make_floats(from);
                add_into(x, edge.delay > 0 ? delayed(from, size_t(edge.delay)) : from);
                if (--unread_[edge.from] == 0) from = {};
            }
            if (std::holds_alternative<Input>(graph_.nodes[node].op)) x = input_;
            Tensor bits;
            const auto relu = relu_of.find(node);
            const bool with_relu = relu != relu_of.end();
            Value y = apply({node, x, T_, nullptr, options_.observe ? &bits : nullptr, with_relu});
            if (options_.observe)
                options_.observe(
                    {graph_, node, x.v.value, y.v.value, y.time, x.time, T_, N_, bits});
            if (std::holds_alternative<Output>(graph_.nodes[node].op)) finish(y);
            const size_t done = with_relu ? relu->second : node;
            if (unread_[done] > 0) values[done] = std::move(y);
        }
        return std::move(result_);
    }

    Forwarded step_by_step(const std::vector<size_t>& order) {
        const std::vector<bool> timed = timed_nodes(order);
        std::vector<Value> values(graph_.nodes.size());
        std::vector<Tensor> membranes(graph_.nodes.size());
        // The last outputs of nodes that feed delayed edges, newest first.
        std::vector<std::deque<Value>> history(graph_.nodes.size());
        std::vector<size_t> memory(graph_.nodes.size());
        for (const Edge& edge : graph_.edges)
            memory[edge.from] = std::max(memory[edge.from], size_t(edge.delay));
        const std::vector<Shape> shapes = delayed_ ? infer_shapes(graph_) : std::vector<Shape>();
        Tensor output;
        for (size_t t = 0; t < T_; ++t) {
            for (const size_t node : order) {
                if (!timed[node] && t > 0) continue;
                Value x;
                for (const size_t e : links_.incoming[node]) {
                    const Edge& edge = graph_.edges[e];
                    if (edge.delay == 0) {
                        add_into(x, values[edge.from]);
                    } else if (size_t(edge.delay) <= history[edge.from].size()) {
                        add_into(x, history[edge.from][size_t(edge.delay) - 1]);
                    } else {
                        add_into(x, {compute_.zeros(shapes[edge.from].with_leading(N_))});
                    }
                }
                if (std::holds_alternative<Input>(graph_.nodes[node].op))
                    x = {input_.time ? input_.v.value.slice(t * N_, (t + 1) * N_) : input_.v.value};
                values[node] = apply({node, x, 1, &membranes[node], nullptr, false, t});
                values[node].time = false;  // [N, ...] each step, whichever layer
                if (!std::holds_alternative<Output>(graph_.nodes[node].op)) continue;
                const Tensor& y = values[node].v.value;
                if (!timed[node]) {  // the same at every step: [1, N, ...]
                    finish(values[node]);
                    return std::move(result_);
                }
                if (t == 0) output = compute_.empty(y.shape().with(0, T_ * N_), y.dtype());
                output.slice(t * N_, (t + 1) * N_).assign(y);
            }
            for (const size_t node : order) {
                if (memory[node] == 0) continue;
                history[node].push_front(values[node]);
                if (history[node].size() > memory[node]) history[node].pop_back();
            }
        }
        finish({output, true});
        return std::move(result_);
    }

 private:
    // [N, ...] at every step: [T * N, ...].
    Value with_time(Value x) {
        if (x.time) return x;
        const Shape shape = x.v.shape().with(0, T_ * N_);
        x.v = fn::reshape(compute_, tape_, fn::repeat_leading(compute_, tape_, x.v, T_), shape);
        x.time = true;
        return x;
    }

    // sum += term, edge after edge.
    void add_into(Value& sum, Value term) {
        if (!sum.v.value.defined()) {
            sum = std::move(term);
            return;
        }
        if (sum.time != term.time) {
            sum = with_time(std::move(sum));
            term = with_time(std::move(term));
        }
        sum.v = fn::add(compute_, tape_, sum.v, term.v);
        sum.binary = false;
    }

    // The value `steps` later; zeros before.
    Value delayed(const Value& from, size_t steps) {
        const Value x = with_time(from);
        const size_t rows = std::min(steps, T_) * N_;
        return {fn::delay_leading(compute_, tape_, x.v, rows), true, x.binary};
    }

    template <class Op>
    bool is(size_t node) const {
        return std::holds_alternative<Op>(graph_.nodes[node].op);
    }

    Value run_chain(const Chain& chain, const Value& x) {
        const auto with = [&](size_t node, const char* field, const Tensor& own) {
            return parameter({node, x, T_, nullptr, nullptr}, field, own);
        };
        fn::Block block;
        const Operation& layer = graph_.nodes[chain.weight].op;
        if (const auto* conv = std::get_if<Conv>(&layer)) {
            block.weight = with(chain.weight, "weight", conv->weight);
            block.bias = with(chain.weight, "bias", conv->bias);
            block.conv = conv->options;
        } else {
            const auto& linear = std::get<Linear>(layer);
            block.weight = with(chain.weight, "weight", linear.weight);
            block.bias = with(chain.weight, "bias", linear.bias);
        }
        if (chain.norm) {
            const auto& norm = std::get<BatchNorm>(graph_.nodes[*chain.norm].op);
            fn::Block::Norm own;  // clang 14 finds no default constructor inside an optional
            own.gamma = with(*chain.norm, "gamma", norm.gamma);
            own.beta = with(*chain.norm, "beta", norm.beta);
            own.mean = with(*chain.norm, "mean", norm.mean).value;
            own.variance = with(*chain.norm, "variance", norm.variance).value;
            own.eps = norm.eps;
            own.training = options_.training;
            if (options_.training) own.batch = &result_.statistics[graph_.nodes[*chain.norm].name];
            block.norm = own;
        }
        block.neuron = std::get<Neuron>(graph_.nodes[chain.neuron].op);
        block.theta = with(chain.neuron, "theta", block.neuron.theta);
        if (chain.pool) block.pool = std::get<AveragePool>(graph_.nodes[*chain.pool].op).options;
        Value y;
        y.time = true;
        y.packed = std::make_shared<fn::PackedSpikes>(
            x.packed ? fn::recompute_block(compute_, tape_, *x.packed, block)
                     : fn::recompute_block(compute_, tape_, x.v, T_, !x.time, block));
        return y;
    }

    void make_floats(Value& x) {
        if (x.packed && !x.v.value.defined()) x.v = fn::expand(compute_, tape_, *x.packed);
    }

    // Which nodes give another value at each step.
    std::vector<bool> timed_nodes(const std::vector<size_t>& order) const {
        std::vector<bool> timed(graph_.nodes.size());
        for (const size_t node : order) {
            timed[node] = is<Neuron>(node) || is<StepBias>(node) || is<Membrane>(node) ||
                          (is<Input>(node) && input_.time);
            for (const size_t e : links_.incoming[node])
                if (graph_.edges[e].delay > 0 || timed[graph_.edges[e].from]) timed[node] = true;
        }
        return timed;
    }

    void finish(const Value& y) {
        const Shape sample = y.v.shape().without_leading();
        const Shape shape = sample.with_leading(N_).with_leading(y.time ? T_ : 1);
        result_.output = fn::reshape(compute_, tape_, y.v, shape);
        result_.time = y.time;
    }

    // Where a node runs: over all T steps, or over one with the membrane kept by the caller.
    struct Place {
        size_t node;
        const Value& x;
        size_t steps;
        Tensor* membrane;   // null over all steps
        Tensor* bits;       // receives the packed spikes when not null
        bool relu = false;  // the node does the ReLU after it, too
        size_t first = 0;   // step
    };

    // The caller's value of a tensor, else the graph's own.
    Var parameter(const Place& p, const char* field, const Tensor& own) const {
        if (parameters_.empty()) return own;
        const auto found = parameters_.find(graph_.nodes[p.node].name + "." + field);
        return found == parameters_.end() ? Var(own) : found->second;
    }

    Value apply(const Place& p) {
        return std::visit([&](const auto& op) { return run(op, p); }, graph_.nodes[p.node].op);
    }

    // A quantised network rounds what it is given to signed 8-bit values: adding and taking away
    // 1.5 * 2^23 rounds to even.
    Value run(const Input& op, const Place& p) {
        if (!(op.scale > 0)) return p.x;
        constexpr float magic = 12582912;
        const Shape row = {p.x.v.shape().back()};
        const auto constant = [&](float value) {
            Tensor t = compute_.empty(row);
            compute_.table->elementwise.fill(compute_.queue, value, t.data<float>(), t.elements());
            return t;
        };
        Tensor y = ops::clamp(compute_, ops::scale(compute_, p.x.v.value, op.scale), -128, 127);
        y = ops::add_row(compute_, ops::add_row(compute_, y, constant(magic)), constant(-magic));
        return {Var(y), p.x.time};
    }
    Value run(const Output&, const Place& p) { return p.x; }
    Value run(const Add&, const Place& p) { return p.x; }
    Value run(const Linear& op, const Place& p) {
        const Var w = parameter(p, "weight", op.weight), b = parameter(p, "bias", op.bias);
        if (!canonical_) return {fn::linear(compute_, tape_, p.x.v, w, b), p.x.time};
        return {ops::canonical_linear(compute_, {p.x.v.value, p.x.binary}, w.value, b.value,
                                      options_.path),
                p.x.time};
    }
    Value run(const Conv& op, const Place& p) {
        const Var w = parameter(p, "weight", op.weight), b = parameter(p, "bias", op.bias);
        if (!canonical_) return {fn::conv(compute_, tape_, p.x.v, w, b, op.options), p.x.time};
        return {ops::canonical_conv(compute_, {p.x.v.value, p.x.binary}, w.value, b.value,
                                    op.options, options_.path),
                p.x.time};
    }
    Value run(const BatchNorm& op, const Place& p) {
        fn::BatchStatistics* batch =
            options_.training ? &result_.statistics[graph_.nodes[p.node].name] : nullptr;
        return {fn::batch_norm(compute_, tape_, p.x.v, parameter(p, "gamma", op.gamma),
                               parameter(p, "beta", op.beta), parameter(p, "mean", op.mean).value,
                               parameter(p, "variance", op.variance).value, op.eps,
                               options_.training, batch, p.relu),
                p.x.time};
    }
    Value run(const Activation& op, const Place& p) {
        return {fn::activation(compute_, tape_, p.x.v, op.kind, op.param), p.x.time};
    }
    Value run(const PRelu& op, const Place& p) {
        return {fn::prelu(compute_, tape_, p.x.v, parameter(p, "slope", op.slope)), p.x.time};
    }
    Value run(const Qcfs& op, const Place& p) {
        return {fn::qcfs(compute_, tape_, p.x.v, parameter(p, "lambda", op.lambda), op.levels),
                p.x.time};
    }
    Value run(const Neuron& op, const Place& p) {
        if (options_.neuron)
            if (const Tensor y = options_.neuron(p.node, p.x.v.value, p.x.time); y.defined())
                return {Var(y), true, true};
        const Var theta = parameter(p, "theta", op.theta);
        if (p.membrane != nullptr && op.rule.spiking == kernels::Spiking::exact)
            fail("neuron '" + graph_.nodes[p.node].name +
                 "' is exact: it sees all steps before it spikes and cannot run step by step");
        fn::Scan scan;
        scan.T = p.steps;
        scan.constant_input = !p.x.time && p.membrane == nullptr;
        scan.membrane = p.membrane;
        fn::Spikes spikes = fn::neuron(compute_, tape_, op, theta, p.x.v, scan);
        if (p.bits != nullptr) *p.bits = spikes.bits;
        return {std::move(spikes.y), true, is_binary(op, theta.value)};
    }
    Value run(const AveragePool& op, const Place& p) {
        return {fn::average_pool(compute_, tape_, p.x.v, op.options), p.x.time};
    }
    Value run(const MaxPool& op, const Place& p) {
        return {fn::max_pool(compute_, tape_, p.x.v, op.options), p.x.time, p.x.binary};
    }
    Value run(const GlobalAveragePool&, const Place& p) {
        return {fn::global_average_pool(compute_, tape_, p.x.v), p.x.time};
    }
    Value run(const Flatten&, const Place& p) {
        const Shape& shape = p.x.v.shape();
        return {fn::reshape(compute_, tape_, p.x.v, {shape[0], shape.without_leading().elements()}),
                p.x.time, p.x.binary};
    }
    // Before the first neuron a static input has no time: it gets some here.
    Value run(const StepBias& op, const Place& p) {
        const Var bias = parameter(p, "bias", op.bias);
        const Value x = p.membrane == nullptr ? with_time(p.x) : p.x;
        return {fn::add_steps(compute_, tape_, x.v, bias, p.steps, p.first), true};
    }
    Value run(const Scale& op, const Place& p) {
        return {fn::mul_row(compute_, tape_, p.x.v, parameter(p, "scale", op.scale)), p.x.time};
    }
    Value run(const Membrane& op, const Place& p) {
        if (tape_ != nullptr) fail("membrane '" + graph_.nodes[p.node].name + "' has no gradient");
        const bool constant = !p.x.time && p.membrane == nullptr;
        Tensor y = run_membrane(compute_, op, p.x.v.value, p.steps, constant, p.membrane);
        return {std::move(y), true, op.threshold.defined()};
    }
    Value run(const Threshold& op, const Place& p) {
        const fn::Scan scan{.T = p.x.time ? p.steps : 1};
        const Neuron step = comparison(op.threshold);
        return {fn::neuron(compute_, tape_, step, step.theta, p.x.v, scan).y, p.x.time, true};
    }

    Compute& compute_;
    const Graph& graph_;
    const Parameters& parameters_;
    const ForwardOptions& options_;
    Tape* tape_;
    const Links links_;
    std::vector<size_t> unread_;  // edges out of a node still to be read
    const bool canonical_;
    bool delayed_ = false;
    size_t T_, N_;
    Value input_;
    Forwarded result_;
};

// An order in which every node follows all its inputs, delayed ones too; none in a recurrent graph.
std::optional<std::vector<size_t>> order_over_all_edges(Graph graph) {
    for (auto& edge : graph.edges) edge.delay = 0;
    try {
        return topological_order(graph);
    } catch (const Error&) {
        return std::nullopt;
    }
}

// Everything must be where the kernels run.
void check_devices(const Compute& compute, const Graph& graph, const Parameters& parameters,
                   const Tensor& input) {
    const auto need = [&](const std::string& what, const Tensor& t) {
        if (!t.defined() || t.device() == compute.device) return;
        throw Error("[forward] " + what + " is on " + t.device().str() +
                        ", the work is to be done on " + compute.device.str(),
                    ErrorKind::usage, "on_device() and Tensor::to() bring things there");
    };
    need("the input", input);
    for (const auto& [name, v] : parameters) need(name, v.value);
    for (const Node& node : graph.nodes)
        for_each_tensor(node, [&](const char* field, const Tensor& t, TensorRole) {
            need(node.name + "." + field, t);
        });
}

}  // namespace

Forwarded forward(Compute& compute, const Graph& graph, const Parameters& parameters,
                  const Tensor& input, const ForwardOptions& options, Tape* tape) {
    check_devices(compute, graph, parameters, input);
    const std::vector<size_t> order = topological_order(graph);
    Interpreter run(compute, graph, parameters, input, options, tape);
    const bool inference = tape == nullptr && !options.training && !options.observe;
    if (options.neuron && (tape != nullptr || options.training))
        fail("others' neurons do not train");
    if (options.step_by_step) {
        if (!inference || options.neuron) fail("step by step is for inference, unobserved");
        return run.step_by_step(order);
    }
    if (const auto all = order_over_all_edges(graph)) return run.layer_by_layer(*all);
    if (!inference || options.neuron)
        fail("a recurrent graph runs step by step only: for inference, unobserved");
    return run.step_by_step(order);
}

Var mean_logits(Compute& compute, Tape* tape, const Forwarded& forwarded) {
    return fn::mean_leading(compute, tape, forwarded.output);
}

}  // namespace nc
