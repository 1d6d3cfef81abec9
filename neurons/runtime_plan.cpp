// Compiling a network: which stages run in which order, and where in the arena their data lies.
#include "neurons/runtime_plan.h"

#include <algorithm>
#include <limits>

#include "engine/graph_fold.h"

namespace nc::plan {
namespace {

[[noreturn]] void refuse(const std::string& what, const std::string& hint = "") {
    throw Error("[runtime] " + what, ErrorKind::model, hint);
}

constexpr size_t padded_to_16(size_t n) {
    return (n + 15) / 16 * 16;
}

// What a node gives. Pooled spikes stay spikes until someone needs their averages.
struct Signal {
    size_t h = 1, w = 1, c = 1;
    bool timed = false, binary = false;
    Floats x;
    Buffer bits = none;
    std::optional<kernels::PoolShape> pool;
    size_t list = SIZE_MAX;
    size_t elements() const { return h * w * c; }
};

class Compiler {
 public:
    Compiler(const Graph& graph, const RuntimeOptions& options) : options_(options) {
        check(graph);
        check_supported(graph);
        plan_.graph = fold_amplitudes(fold_batch_norm(graph));
        plan_.table = options.table != nullptr ? options.table : kernels::best();
        if (plan_.table == nullptr || plan_.table->cuda)
            refuse("there are no CPU kernels to run on: see NC_ISA");
        plan_.kernels = kernels::stages(plan_.table->name);
        plan_.threads = std::clamp<size_t>(options.threads, 1, 256);
        plan_.chunk = std::clamp<size_t>(options.T, 1, most_steps);
        shapes_ = infer_shapes(plan_.graph);
        order_ = topological_order(plan_.graph);
        place_.resize(order_.size());
        for (size_t i = 0; i < order_.size(); ++i) place_[order_[i]] = i;
        signals_.resize(order_.size());
        timed_.resize(order_.size());
        for (const size_t node : order_) {
            const Operation& op = this->graph().nodes[node].op;
            timed_[node] = std::holds_alternative<Neuron>(op) ||
                           std::holds_alternative<StepBias>(op) ||
                           (std::holds_alternative<Input>(op) && options.temporal);
            for (const size_t e : inputs_of(this->graph(), node))
                if (timed_[this->graph().edges[e].from]) timed_[node] = true;
        }
    }

    Plan compile() {
        for (const auto& [name, path] : options_.layers)
            if (!is_weight_layer(graph().nodes[find_node(graph(), name)].op))
                refuse("'" + name + "' is not a weight layer, so it has no path to choose");
        for (const size_t node : order_)
            std::visit([&](const auto& op) { lower(op, node); }, graph().nodes[node].op);
        plan_.offsets = arena_.offsets(&plan_.arena_bytes);
        return std::move(plan_);
    }

 private:
    const Graph& graph() const { return plan_.graph; }
    const std::string& name(size_t node) const { return graph().nodes[node].name; }

    // ------------------------------------------------------------------------------------------
    // memory
    Buffer make(size_t bytes) { return arena_.make(bytes, plan_.stages.size()); }
    // The stage that is added next uses it.
    void use(Buffer b) { arena_.use(b, plan_.stages.size()); }
    Buffer make_floats(size_t count, bool timed) {
        // Rows may be read up to the next multiple of 16 channels.
        const size_t values = bytes_of(count, timed ? plan_.chunk : 1);
        const size_t bytes = bytes_of(values, sizeof(float)) + 64;
        return timed ? make(bytes) : arena_.keep(bytes);
    }

    void add(Stage stage, bool timed) {
        plan_.stages.push_back(std::move(stage));
        plan_.once.push_back(!timed);
    }

    const float* constant(const std::vector<float>& values) {
        plan_.constants.push_back(Tensor::from(values, Shape{values.size()}));
        plan_.constant_bytes += plan_.constants.back().bytes();
        return plan_.constants.back().data<float>();
    }

    // ------------------------------------------------------------------------------------------
    // activations
    size_t from(size_t node) const { return graph().edges[inputs_of(graph(), node).front()].from; }

    size_t list_of(Signal& s) {
        if (s.list != SIZE_MAX) return s.list;
        const size_t rows = bytes_of(plan_.chunk, s.h);
        const size_t slots = bytes_of(rows, s.w * s.c + 64);
        if (slots > std::numeric_limits<uint32_t>::max())
            refuse("an activation of " + std::to_string(s.elements()) + " values for " +
                   std::to_string(plan_.chunk) + " steps is more than events can number");
        const bool graded = s.bits == none || s.pool.has_value();
        const EventList list = {s.h,
                                s.w,
                                s.c,
                                make(bytes_of(bytes_of(rows, s.w + 1), sizeof(uint32_t))),
                                make(bytes_of(slots, sizeof(uint32_t))),
                                graded ? make(bytes_of(slots, sizeof(float))) : none};
        plan_.lists.push_back(list);
        s.list = plan_.lists.size() - 1;
        use(s.bits);
        use(s.x.buffer);
        add(MakeEvents{s.list, s.bits, s.pool, s.bits == none ? s.x : Floats{}}, true);
        return s.list;
    }
    void use_list(size_t list) {
        const EventList& l = plan_.lists[list];
        use(l.start);
        use(l.index);
        use(l.value);
    }

    Floats floats_of(Signal& s) {
        if (s.x.defined()) return s.x;
        const size_t list = list_of(s);
        s.x = {make_floats(s.elements(), true), true, false};
        use_list(list);
        add(Expand{list, s.x.buffer}, true);
        return s.x;
    }
    // In the arena, where rows may be read beyond their end.
    Floats padded_floats_of(Signal& s) {
        Floats x = floats_of(s);
        if (!x.callers) return x;
        const Buffer copy = make_floats(s.elements(), s.timed);
        add(Map{Add{}, x, copy, s.h, s.w, s.c, s.elements()}, s.timed);
        return s.x = {copy, s.timed, false};
    }

    // A signal of these floats alone, of the same shape.
    static Signal of_floats(const Signal& s, const Floats& x) {
        Signal out;
        out.h = s.h, out.w = s.w, out.c = s.c;
        out.timed = x.timed;
        out.x = x;
        return out;
    }
    // The sum of a node's edges, which are several or one.
    Signal input_of(size_t node) {
        const auto edges = inputs_of(graph(), node);
        if (edges.size() == 1) return signals_[graph().edges[edges[0]].from];
        Signal out = signals_[graph().edges[edges[0]].from];
        Sum sum = {{}, none, out.elements(), false};
        for (const size_t e : edges) {
            Signal& term = signals_[graph().edges[e].from];
            sum.terms.push_back(floats_of(term));
            sum.timed = sum.timed || term.timed;
        }
        for (const Floats& x : sum.terms) use(x.buffer);
        sum.out = make_floats(out.elements(), sum.timed);
        const Floats x = {sum.out, sum.timed, false};
        add(std::move(sum), x.timed);
        return of_floats(out, x);
    }
    // Where a signal is kept, so that what is made of it is made once: the node's own, or a sum.
    Signal& taken_by(size_t node) {
        if (inputs_of(graph(), node).size() == 1) return signals_[from(node)];
        return sum_ = input_of(node);
    }

    // ------------------------------------------------------------------------------------------
    // nodes
    void lower(const Input& op, size_t node) {
        const Shape& s = op.shape;
        plan_.sample = s;
        plan_.elements = s.elements();
        Signal out;
        if (s.rank() == 3) out.h = s[0], out.w = s[1];
        out.c = s.back();
        out.timed = plan_.temporal = options_.temporal;
        out.x = {none, out.timed, true};
        signals_[node] = out;
        if (op.scale > 0) signals_[node] = mapped(op, out, out.elements());
    }

    void lower(const Output&, size_t node) {
        Signal& x = taken_by(node);
        const Floats values = floats_of(x);
        plan_.outputs = x.elements();
        use(values.buffer);
        add(Result{values, x.elements()}, true);
    }

    Signal mapped(const Operation& op, Signal in, size_t elements) {
        const Floats x = floats_of(in);
        const bool timed = in.timed || std::holds_alternative<StepBias>(op);
        use(x.buffer);
        const Floats y = {make_floats(elements, timed), timed, false};
        add(Map{op, x, y.buffer, in.h, in.w, in.c, elements}, timed);
        return of_floats(in, y);
    }
    void map(const Operation& op, size_t node) {
        Signal& in = taken_by(node);
        floats_of(in);
        signals_[node] = mapped(op, in, shapes_[node].elements());
    }
    void lower(const Activation& op, size_t node) { map(op, node); }
    void lower(const PRelu& op, size_t node) { map(op, node); }
    void lower(const Qcfs& op, size_t node) { map(op, node); }
    void lower(const StepBias& op, size_t node) { map(op, node); }
    void lower(const Scale& op, size_t node) {
        if (!gates_neuron(node)) map(op, node);
    }
    void lower(const BatchNorm&, size_t node) {  // fold_batch_norm leaves none
        refuse("batch norm '" + name(node) + "' is not folded");
    }
    void lower(const Membrane&, size_t node) { refuse("'" + name(node) + "' is a membrane"); }
    void lower(const Threshold&, size_t node) { refuse("'" + name(node) + "' is a threshold"); }
    void lower(const Add&, size_t node) { signals_[node] = input_of(node); }
    void lower(const Flatten&, size_t node) { signals_[node] = taken_by(node); }

    void pool(const kernels::PoolShape& s, const Operation& op, size_t node, bool average) {
        Signal& in = taken_by(node);
        if (average && in.bits != none && !in.pool) {
            Signal out = in;
            out.h = s.out_h();
            out.w = s.out_w();
            out.pool = s;
            out.binary = false;
            out.x = {};
            out.list = SIZE_MAX;
            signals_[node] = out;
            return;
        }
        floats_of(in);
        Signal out = mapped(op, in, shapes_[node].elements());
        out.binary = !average && in.binary;
        out.h = s.out_h();
        out.w = s.out_w();
        signals_[node] = out;
    }
    kernels::PoolShape pool_of(size_t node, const ops::PoolOptions& options) {
        return ops::pool_shape(shapes_[from(node)].with_leading(1), options);
    }
    void lower(const AveragePool& op, size_t node) {
        pool(pool_of(node, op.options), op, node, true);
    }
    void lower(const MaxPool& op, size_t node) { pool(pool_of(node, op.options), op, node, false); }
    void lower(const GlobalAveragePool& op, size_t node) {
        const Shape& s = shapes_[from(node)];
        pool(pool_of(node, {.kh = s[0], .kw = s[1], .stride_h = 1, .stride_w = 1}), op, node, true);
    }

    void lower(const Conv& op, size_t node) {
        if (!sums_for_neuron(node)) signals_[node] = layer(op, node, nullptr);
    }
    void lower(const Linear& op, size_t node) {
        if (!sums_for_neuron(node)) signals_[node] = layer(op, node, nullptr);
    }

    // ------------------------------------------------------------------------------------------
    // weight layers
    kernels::ConvShape conv_shape(const Conv& op, const Signal& in) {
        return ops::conv_shape({1, in.h, in.w, in.c}, op.weight.shape(), op.options);
    }
    kernels::ConvShape conv_shape(const Linear& op, const Signal& in) {
        return {.n = 1,
                .h = in.h,
                .w = in.w,
                .cin = in.c,
                .kh = in.h,
                .kw = in.w,
                .cout = op.weight.shape()[1]};
    }

    void pack(Layer& layer) {
        const size_t inputs = layer.shape.kh * layer.shape.kw * layer.shape.cin;
        const size_t cout = layer.shape.cout;
        for (size_t first = 0; first < cout; first += plan_.kernels->panel) {
            const size_t n = std::min(plan_.kernels->panel, cout - first);
            const size_t width = padded_to_16(n);
            std::vector<float> w(inputs * width), bias(width);
            for (size_t i = 0; i < inputs; ++i)
                std::copy_n(layer.w + i * cout + first, n, w.data() + i * width);
            if (layer.bias != nullptr) std::copy_n(layer.bias + first, n, bias.data());
            const float* packed = constant(w);
            layer.panels.push_back({first, width, packed, constant(bias)});
        }
    }

    // neuron: the node whose neurons take the sums at once; null: they are the layer's signal.
    template <class Op>
    Signal layer(const Op& op, size_t node, Fire* fire) {
        Signal& in = taken_by(node);
        Layer layer;
        layer.name = name(node);
        layer.number = plan_.layers++;
        layer.shape = conv_shape(op, in);
        layer.w = op.weight.template data<float>();
        layer.bias = op.bias.defined() ? op.bias.template data<float>() : nullptr;
        layer.binary = in.binary;
        const auto own = options_.layers.find(layer.name);
        layer.path = own != options_.layers.end() ? own->second : options_.path;
        layer.rate = dense_rate(layer.shape.cout);
        Signal out;
        out.h = layer.shape.out_h();
        out.w = layer.shape.out_w();
        out.c = layer.shape.cout;
        out.timed = in.timed;
        const bool floats_only = !in.timed || layer.shape.groups > 1;
        const bool has_floats = in.x.defined() && layer.path == RuntimePath::dense;
        if (floats_only || has_floats) {
            layer.path = RuntimePath::dense;
            layer.x = floats_of(in);
            use(layer.x.buffer);
        } else {
            layer.list = list_of(in);
            use_list(layer.list);
            if (layer.path != RuntimePath::dense) pack(layer);
            if (layer.path != RuntimePath::event) layer.expanded = make_floats(in.elements(), true);
        }
        if (fire != nullptr) {
            if (layer.path != RuntimePath::event) layer.sums = make_floats(out.elements(), true);
            use(fire->bits);
            use(fire->term.buffer);
            use(fire->gate);
            layer.fire = std::move(*fire);
        } else {
            layer.out = make_floats(out.elements(), in.timed);
            out.x = {layer.out, in.timed, false};
        }
        if (!layer.panels.empty())
            layer.tiles = make(bytes_of(plan_.threads, tile_room(layer, plan_.chunk)));
        add(std::move(layer), in.timed);
        return out;
    }

    // The neuron that alone reads this node and adds at most one other edge.
    std::optional<size_t> only_neuron(size_t node) const {
        const auto out = outputs_of(graph(), node);
        if (out.size() != 1) return std::nullopt;
        const size_t to = graph().edges[out[0]].to;
        if (!std::holds_alternative<Neuron>(graph().nodes[to].op)) return std::nullopt;
        if (inputs_of(graph(), to).size() > 2) return std::nullopt;
        return to;
    }
    // Of two weight layers before a neuron, the last is added up with it.
    bool sums_for_neuron(size_t node) {
        const auto neuron = only_neuron(node);
        if (!neuron || !timed_[node]) return false;
        for (const size_t e : inputs_of(graph(), *neuron)) {
            const size_t other = graph().edges[e].from;
            if (is_weight_layer(graph().nodes[other].op) && only_neuron(other) == neuron &&
                timed_[other] && place_[other] > place_[node])
                return false;
        }
        return true;
    }
    // A Scale of spikes that a neuron adds to one other edge is added bit by bit; of two of them,
    // the first.
    bool gates_neuron(size_t node) const {
        const auto neuron = only_neuron(node);
        if (!neuron || inputs_of(graph(), *neuron).size() != 2) return false;
        if (inputs_of(graph(), node).size() != 1) return false;
        const Signal& in = signals_[from(node)];
        if (std::get<Scale>(graph().nodes[node].op).scale.elements() > in.c) return false;
        if (in.bits == none || in.pool || in.c != shapes_[*neuron].back()) return false;
        if (std::get<Scale>(graph().nodes[node].op).scale.elements() > in.c) return false;
        for (const size_t e : inputs_of(graph(), *neuron)) {
            const size_t other = graph().edges[e].from;
            if (other != node && std::holds_alternative<Scale>(graph().nodes[other].op) &&
                place_[other] < place_[node])
                return false;
        }
        return true;
    }

    // ------------------------------------------------------------------------------------------
    // neurons
    // A parameter of one value, one a channel or one a neuron, in rows padded to 16 channels.
    const float* rows_of(const std::vector<float>& values, const Fire& f, float rest,
                         size_t* stride) {
        const bool single = values.size() <= f.channels;
        const size_t rows = single ? 1 : f.pixels;
        *stride = single ? 0 : f.padded;
        std::vector<float> out(rows * f.padded, rest);
        for (size_t p = 0; p < rows; ++p)
            for (size_t c = 0; c < f.channels; ++c)
                out[p * f.padded + c] = values[(p * f.channels + c) % values.size()];
        return constant(out);
    }

    void lower(const Neuron& op, size_t node) {
        const Shape& s = shapes_[node];
        Signal out;
        if (s.rank() == 3) out.h = s[0], out.w = s[1];
        out.c = s.back();
        out.timed = out.binary = true;
        Fire fire;
        fire.name = name(node);
        fire.number = plan_.neurons++;
        fire.rule.beta = float(op.rule.beta);
        fire.rule.compare = op.rule.compare;
        fire.rule.reset = op.rule.reset;
        fire.rule.reset_value = float(op.rule.reset_value);
        fire.pixels = out.h * out.w;
        fire.channels = out.c;
        fire.padded = padded_to_16(out.c);
        const std::vector<float> theta = op.theta.to_vector<float>();
        std::vector<float> v0 = theta;
        for (float& v : v0) v = v * float(op.v0_fraction);
        if (op.v0.defined()) v0 = op.v0.to_vector<float>();
        fire.theta = rows_of(theta, fire, 1, &fire.theta_pixel);
        fire.v0 = rows_of(v0, fire, 0, &fire.v0_pixel);
        fire.v = arena_.keep(bytes_of(bytes_of(fire.pixels, fire.padded), sizeof(float)));

        std::vector<size_t> terms;
        for (const size_t e : inputs_of(graph(), node)) terms.push_back(graph().edges[e].from);
        std::optional<size_t> layer_node, gate;
        for (const size_t term : terms) {
            if (is_weight_layer(graph().nodes[term].op) && sums_for_neuron(term)) layer_node = term;
            if (std::holds_alternative<Scale>(graph().nodes[term].op) && gates_neuron(term))
                gate = term;
        }
        if (gate) {
            const Tensor& scale = std::get<Scale>(graph().nodes[*gate].op).scale;
            fire.gate = signals_[from(*gate)].bits;
            size_t ignored = 0;
            fire.gate_scale = rows_of(scale.to_vector<float>(), fire, 0, &ignored);
        }
        if (terms.size() > 2) {
            Signal sum = input_of(node);
            fire.x = padded_floats_of(sum);
        } else {
            for (const size_t term : terms) {
                if (term == layer_node || term == gate) continue;
                Floats& place = layer_node || fire.x.defined() ? fire.term : fire.x;
                place = padded_floats_of(signals_[term]);
            }
        }
        const size_t words = (fire.channels + 63) / 64;
        const size_t bit_bytes =
            bytes_of(bytes_of(plan_.chunk, fire.pixels), words * sizeof(uint64_t));
        out.bits = fire.bits = options_.record ? arena_.keep(bit_bytes) : none;
        if (!layer_node) {
            if (fire.bits == none) out.bits = fire.bits = make(bit_bytes);
            use(fire.x.buffer);
            use(fire.term.buffer);
            use(fire.gate);
            add(Neurons{std::move(fire)}, true);
        } else {
            if (fire.bits == none) out.bits = fire.bits = make(bit_bytes);
            const Operation& weights = graph().nodes[*layer_node].op;
            if (const auto* conv = std::get_if<Conv>(&weights))
                layer(*conv, *layer_node, &fire);
            else
                layer(std::get<Linear>(weights), *layer_node, &fire);
        }
        signals_[node] = out;
    }

    const RuntimeOptions& options_;
    Plan plan_;
    std::vector<Shape> shapes_;
    std::vector<size_t> order_, place_;
    std::vector<Signal> signals_;
    std::vector<bool> timed_;  // nodes that change with the steps
    Signal sum_;
    Arena arena_;
};

}  // namespace

Plan compile(const Graph& graph, const RuntimeOptions& options) {
    return Compiler(graph, options).compile();
}

}  // namespace nc::plan
