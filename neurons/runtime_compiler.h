// How a network is compiled: what each node gives, and the stages that make it. Of runtime_plan.cpp
// and runtime_layers.cpp alone.
#pragma once

#include <algorithm>
#include <limits>

#include "neurons/runtime_integers.h"
#include "neurons/runtime_plan.h"

namespace nc::plan {

[[noreturn]] inline void refuse(const std::string& what, const std::string& hint = "") {
    throw Error("[runtime] " + what, ErrorKind::model, hint);
}

// What a node gives. Pooled spikes stay spikes until someone needs their averages.
struct Signal {
    size_t h = 1, w = 1, c = 1;
    bool timed = false, binary = false;
    Floats x;
    Buffer bits = none;
    std::optional<kernels::PoolShape> pool;
    bool counted = false;  // pooled spikes are counts, not averages
    Floats whole;          // in integers
    size_t list = SIZE_MAX;
    size_t counts = SIZE_MAX;  // the list in integers
    size_t elements() const { return h * w * c; }
};

class Compiler {
 public:
    Compiler(const Graph&, const RuntimeOptions&);
    Plan compile();

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

    template <class S>
    void add(S stage, bool timed) {
        plan_.stages.emplace_back(std::in_place_type<S>, std::move(stage));
        plan_.once.push_back(!timed);
    }

    template <class V>
    const V* constant(const std::vector<V>& values) {
        plan_.constants.push_back(Tensor::from(values, Shape{values.size()}));
        plan_.constant_bytes += plan_.constants.back().bytes();
        return plan_.constants.back().data<V>();
    }

    // ------------------------------------------------------------------------------------------
    // activations
    size_t from(size_t node) const { return graph().edges[inputs_of(graph(), node).front()].from; }

    // repeats: how often an input is listed at most, in integers; 0: a list of floats.
    size_t new_list(const Signal& s, size_t repeats, bool values) {
        const size_t rows = bytes_of(plan_.chunk, s.h);
        const size_t slots = bytes_of(rows, bytes_of(s.w * s.c, std::max<size_t>(repeats, 1)) + 64);
        if (slots > std::numeric_limits<uint32_t>::max())
            refuse("an activation of " + std::to_string(s.elements()) + " values for " +
                   std::to_string(plan_.chunk) + " steps is more than events can number");
        plan_.lists.push_back({s.h, s.w, s.c,
                               make(bytes_of(bytes_of(rows, s.w + 1), sizeof(uint32_t))),
                               make(bytes_of(slots, sizeof(uint32_t))),
                               values ? make(bytes_of(slots, sizeof(float))) : none, repeats});
        return plan_.lists.size() - 1;
    }
    size_t list_of(Signal& s) {
        if (s.list != SIZE_MAX) return s.list;
        s.list = new_list(s, 0, s.bits == none || s.pool.has_value());
        use(s.bits);
        use(s.x.buffer);
        add(MakeEvents{s.list, s.bits, s.pool, s.bits == none ? s.x : Floats{}}, true);
        return s.list;
    }
    // In integers: of spikes, or of pooled ones.
    size_t counts_of(Signal& s) {
        if (s.counts != SIZE_MAX) return s.counts;
        const kernels::PoolShape window = s.pool.value_or(kernels::PoolShape{
            .n = 1, .h = s.h, .w = s.w, .c = s.c, .kh = 1, .kw = 1, .stride_h = 1, .stride_w = 1});
        s.counts = new_list(s, window.kh * window.kw, false);
        use(s.bits);
        add(MakeEvents{s.counts, s.bits, window, {}}, true);
        return s.counts;
    }
    void use_list(size_t list) {
        const EventList& l = plan_.lists[list];
        use(l.start);
        use(l.index);
        use(l.value);
    }

    Floats floats_of(Signal& s) {
        if (s.x.defined()) return s.x;
        if (s.whole.defined()) {
            s.x = {make_floats(s.elements(), s.timed), s.timed, false};
            use(s.whole.buffer);
            add(Convert{s.whole, s.x.buffer, s.elements()}, s.timed);
            return s.x;
        }
        if (s.counted) {
            Signal averages = s;
            averages.counted = false;
            const float size = float(s.pool->kh * s.pool->kw);
            return s.x = mapped(Scale{Tensor::full<float>({1}, size)}, averages, s.elements()).x;
        }
        const size_t list = list_of(s);
        s.x = {make_floats(s.elements(), true), true, false};
        use_list(list);
        add(Expand{list, s.x.buffer}, true);
        return s.x;
    }
    Floats integers_of(Signal& s) {
        if (s.whole.defined()) return s.whole;
        const Floats x = floats_of(s);
        use(x.buffer);
        s.whole = {make_floats(s.elements(), s.timed), s.timed, false, true};
        add(Convert{x, s.whole.buffer, s.elements()}, s.timed);
        return s.whole;
    }
    // In the arena, where rows may be read beyond their end; in integers where the network is.
    Floats padded_floats_of(Signal& s) {
        if (whole_) return integers_of(s);
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
        if (whole_ && whole_->counts[node]) {
            Signal out = signals_[from(node)];
            out.counted = true;
            out.x = {};
            signals_[node] = out;
        } else if (!gates_neuron(node)) {
            map(op, node);
        }
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
            out.list = out.counts = SIZE_MAX;
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

    // In runtime_layers.cpp.
    void lower(const Conv&, size_t node);
    void lower(const Linear&, size_t node);
    void lower(const Neuron&, size_t node);

    // ------------------------------------------------------------------------------------------
    // weight layers and neurons, in runtime_layers.cpp
    void pack(Layer&);
    void integer_layer(Layer&, Signal& in);  // of spikes or their counts, to integers
    void float_layer(Layer&, Signal& in);
    // fire: the neurons that take the sums at once; null: they are the layer's signal.
    template <class Op>
    Signal layer(const Op&, size_t node, Fire* fire);
    // The neuron that alone reads this node and adds at most one other edge.
    std::optional<size_t> only_neuron(size_t node) const;
    // Of two weight layers before a neuron, the last is added up with it.
    bool sums_for_neuron(size_t node) const;
    // A Scale of spikes that a neuron adds to one other edge is added bit by bit; of two of them,
    // the first.
    bool gates_neuron(size_t node) const;
    // A parameter of one value, one a channel or one a neuron, in rows padded to 16 channels.
    template <class V>
    const V* rows_of(const std::vector<float>& values, const Fire&, V rest, size_t* stride,
                     V unit = 1);
    template <class V>
    void parameters(Parameters<V>&, const Neuron&, const Tensor* gate_scale, Fire&, V unit);

    const RuntimeOptions& options_;
    std::optional<WholeNetwork> whole_;  // computed in integers
    Plan plan_;
    std::vector<Shape> shapes_;
    std::vector<size_t> order_, place_;
    std::vector<Signal> signals_;
    std::vector<bool> timed_;  // nodes that change with the steps
    Signal sum_;
    Arena arena_;
};

}  // namespace nc::plan
