// Compiling a network: weight layers, packed for their kernels, and the neurons after them.
#include "engine/graph_fold.h"
#include "neurons/runtime_compiler.h"
#include "neurons/runtime_pack.h"

namespace nc::plan {
namespace {

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

}  // namespace

void Compiler::pack(Layer& layer) {
    const size_t most = plan_.kernels->panel;
    for (size_t first = 0; first < layer.shape.cout; first += most) {
        const size_t n = std::min(most, layer.shape.cout - first);
        Panel panel = {.first = first, .width = padded_to_16(n)};
        if (layer.integers) {
            panel.integer_w = constant(panel_weights<int16_t>(layer, first, n));
            panel.integer_bias = constant(panel_bias<int32_t>(layer, first, n));
        } else {
            panel.w = constant(panel_weights<float>(layer, first, n));
            panel.bias = constant(panel_bias<float>(layer, first, n));
        }
        layer.panels.push_back(panel);
    }
}

void Compiler::integer_layer(Layer& layer, Signal& in) {
    layer.integers = true;
    layer.adding = kernels::Adding::integers;
    layer.fours.most = in.pool ? in.pool->kh * in.pool->kw : 1;
    if (layer.fours.most > most_count) layer.path = RuntimePath::event;
    layer.list = counts_of(in);
    use_list(layer.list);
    if (layer.path != RuntimePath::dense) pack(layer);
    if (layer.path == RuntimePath::event) return;
    layer.fours.w = constant(weights_in_fours(layer));
    layer.fours.bias = constant(panel_bias<int32_t>(layer, 0, layer.shape.cout));
    const size_t pixels = bytes_of(plan_.chunk, in.h * in.w);
    layer.expanded = make(bytes_of(pixels, (in.c + 3) / 4 * 4) + 64);
    layer.sums = make_floats(bytes_of(layer.pixels(), layer.width()), true);
}

void Compiler::float_layer(Layer& layer, Signal& in) {
    layer.adding = in.binary ? kernels::Adding::spikes : kernels::Adding::values;
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
}

template <class Op>
Signal Compiler::layer(const Op& op, size_t node, Fire* fire) {
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
    Signal out;
    out.h = layer.shape.out_h();
    out.w = layer.shape.out_w();
    out.c = layer.shape.cout;
    out.timed = in.timed;
    const bool integers = whole_ && whole_->native[node];
    integers ? integer_layer(layer, in) : float_layer(layer, in);
    const kernels::StageCosts& costs = *kernels::stage_costs(plan_.table->name);
    layer.dense_above = dense_above(costs, layer.shape, layer.adding);
    if (fire != nullptr) {
        if (!integers && layer.path != RuntimePath::event)
            layer.sums = make_floats(out.elements(), true);
        use(fire->bits);
        use(fire->term.buffer);
        use(fire->gate);
        layer.fire = std::move(*fire);
    } else {
        layer.out = make_floats(out.elements(), in.timed);
        (integers ? out.whole : out.x) = {layer.out, in.timed, false, integers};
    }
    if (!layer.panels.empty())
        layer.tiles = make(bytes_of(plan_.threads, tile_room(layer, plan_.chunk)));
    add(std::move(layer), in.timed);
    return out;
}

std::optional<size_t> Compiler::only_neuron(size_t node) const {
    const auto out = outputs_of(graph(), node);
    if (out.size() != 1) return std::nullopt;
    const size_t to = graph().edges[out[0]].to;
    if (!std::holds_alternative<Neuron>(graph().nodes[to].op)) return std::nullopt;
    if (inputs_of(graph(), to).size() > 2) return std::nullopt;
    return to;
}
bool Compiler::sums_for_neuron(size_t node) const {
    const auto neuron = only_neuron(node);
    if (!neuron || !timed_[node] || (whole_ && !whole_->native[node])) return false;
    for (const size_t e : inputs_of(graph(), *neuron)) {
        const size_t other = graph().edges[e].from;
        if (is_weight_layer(graph().nodes[other].op) && only_neuron(other) == neuron &&
            timed_[other] && (!whole_ || whole_->native[other]) && place_[other] > place_[node])
            return false;
    }
    return true;
}
bool Compiler::gates_neuron(size_t node) const {
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

void Compiler::lower(const Conv& op, size_t node) {
    if (!sums_for_neuron(node)) signals_[node] = layer(op, node, nullptr);
}
void Compiler::lower(const Linear& op, size_t node) {
    if (!sums_for_neuron(node)) signals_[node] = layer(op, node, nullptr);
}

template <class V>
const V* Compiler::rows_of(const std::vector<float>& values, const Fire& f, V rest, size_t* stride,
                           V unit) {
    const bool single = values.size() <= f.channels;
    const size_t rows = single ? 1 : f.pixels;
    *stride = single ? 0 : f.padded;
    std::vector<V> out(rows * f.padded, rest);
    for (size_t p = 0; p < rows; ++p)
        for (size_t c = 0; c < f.channels; ++c)
            out[p * f.padded + c] = V(values[(p * f.channels + c) % values.size()]) * unit;
    return constant(out);
}
template <class V>
void Compiler::parameters(Parameters<V>& p, const Neuron& op, const Tensor* gate_scale, Fire& f,
                          V unit) {
    const std::vector<float> theta = op.theta.to_vector<float>();
    std::vector<float> v0 = theta;
    for (float& v : v0) v = v * float(op.v0_fraction);
    if (op.v0.defined()) v0 = op.v0.to_vector<float>();
    p.theta = rows_of<V>(theta, f, 1, &f.theta_pixel, unit);
    p.v0 = rows_of<V>(v0, f, 0, &f.v0_pixel, unit);
    size_t ignored = 0;
    if (gate_scale != nullptr)
        p.gate_scale = rows_of<V>(gate_scale->to_vector<float>(), f, 0, &ignored);
}

void Compiler::lower(const Neuron& op, size_t node) {
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
    fire.integers = whole_.has_value();
    fire.v = arena_.keep(bytes_of(bytes_of(fire.pixels, fire.padded), sizeof(float)));

    std::vector<size_t> terms;
    for (const size_t e : inputs_of(graph(), node)) terms.push_back(graph().edges[e].from);
    std::optional<size_t> layer_node, gate;
    for (const size_t term : terms) {
        if (is_weight_layer(graph().nodes[term].op) && sums_for_neuron(term)) layer_node = term;
        if (std::holds_alternative<Scale>(graph().nodes[term].op) && gates_neuron(term))
            gate = term;
    }
    if (gate) fire.gate = signals_[from(*gate)].bits;
    const Tensor* scale = gate ? &std::get<Scale>(graph().nodes[*gate].op).scale : nullptr;
    if (whole_) {
        fire.integer_rule.dv = decay_of(op);
        fire.integer_rule.reset_to_zero = op.rule.reset == kernels::Reset::to_value;
        parameters<int32_t>(fire.whole, op, scale, fire, fire.integer_rule.dv != 0 ? 64 : 1);
    } else {
        parameters<float>(fire.floats, op, scale, fire, 1);
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
    const size_t bit_bytes = bytes_of(bytes_of(plan_.chunk, fire.pixels), words * sizeof(uint64_t));
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

}  // namespace nc::plan
