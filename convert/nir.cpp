// Passes that bring a network into NIR's form.
#include "convert/nir.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "convert/passes.h"
#include "engine/graph_edit.h"
#include "engine/graph_fold.h"

namespace nc {
namespace {

[[noreturn]] void refuse(const Graph& g, size_t node, const std::string& what) {
    throw Error("[nir] node '" + g.nodes[node].name + "' (" +
                    std::string(operation_name(g.nodes[node].op)) + "): " + what,
                ErrorKind::model);
}

template <class Op>
bool is(const Graph& g, size_t node) {
    return std::holds_alternative<Op>(g.nodes[node].op);
}

void check_expressible(const Graph& g) {
    check(g);
    std::string refused, hint;
    for (const Node& node : g.nodes) {
        std::string why;
        if (is_activation(node.op)) {
            why = "is no spiking neuron";
            hint = "`nc_convert MODEL --dataset ...` makes a spiking network first";
        }
        if (std::holds_alternative<MaxPool>(node.op)) why = "is max pooling, which NIR has not";
        if (const auto* input = std::get_if<Input>(&node.op); input && input->scale > 0)
            why = "rounds what it takes: export the network before it was quantised";
        if (const auto* neuron = std::get_if<Neuron>(&node.op);
            neuron && neuron->rule.spiking != kernels::Spiking::plain)
            why = "is signed or exact, NIR's neurons are neither";
        if (std::holds_alternative<StepBias>(node.op)) why = "changes from step to step";
        if (!why.empty()) refused += (refused.empty() ? "'" : "; '") + node.name + "' " + why;
    }
    if (!refused.empty())
        throw Error("[nir] cannot be written as NIR: " + refused, ErrorKind::model, hint);
}

// [H, W, C] -> [1, 1, C] -> [C].
Graph pool_by_windows(Graph g) {
    const std::vector<Shape> shapes = infer_shapes(g);
    for (size_t i = 0; i < shapes.size(); ++i) {
        if (!is<GlobalAveragePool>(g, i)) continue;
        const Shape& x = shapes[g.edges[inputs_of(g, i).front()].from];
        g = replace(std::move(g), i, AveragePool{{x[0], x[1], x[0], x[1], 0, 0}});
        const std::string name = unique_name(g, g.nodes[i].name + "_flat");
        g = insert_after(std::move(g), i, name, Flatten{});
    }
    return g;
}

// The Linear or Conv whose outputs, and nobody else's, come along this edge, perhaps through
// pooling that leaves the channels alone.
std::optional<size_t> weights_behind(const Graph& g, size_t edge) {
    while (true) {
        const size_t from = g.edges[edge].from;
        if (outputs_of(g, from).size() != 1 || g.edges[edge].delay != 0) return std::nullopt;
        if (is<Linear>(g, from) || is<Conv>(g, from)) return from;
        const auto* pool = std::get_if<AveragePool>(&g.nodes[from].op);
        const auto in = inputs_of(g, from);
        if (!pool || pool->options.pad_h + pool->options.pad_w > 0 || in.size() != 1)
            return std::nullopt;
        edge = in.front();
    }
}

// Weights and bias of every output divided, rounded once.
template <class Layer>
Layer divided(Layer layer, const std::vector<float>& by) {
    for (Tensor* t : {&layer.weight, &layer.bias}) {
        if (!t->defined()) continue;
        std::vector<float> values = t->template to_vector<float>();
        for (size_t i = 0; i < values.size(); ++i)
            values[i] = float(double(values[i]) / double(by[i % by.size()]));
        *t = Tensor::from(values, t->shape());
    }
    return layer;
}

// What comes along an edge, divided: in the weights behind it, in all that a sum adds, else by a
// Scale.
Graph divide_edge(Graph g, size_t edge, const std::vector<float>& by, const std::string& name) {
    const size_t from = g.edges[edge].from;
    const Shape shape = infer_shapes(g)[from];
    if (is<Add>(g, from) && outputs_of(g, from).size() == 1) {
        for (const size_t e : inputs_of(g, from)) g = divide_edge(std::move(g), e, by, name);
        return g;
    }
    const auto layer = weights_behind(g, edge);
    if (layer && (by.size() == 1 || by.size() == shape.back())) {
        Operation op = g.nodes[*layer].op;
        if (const auto* conv = std::get_if<Conv>(&op))
            op = divided(*conv, by);
        else
            op = divided(std::get<Linear>(op), by);
        return replace(std::move(g), *layer, std::move(op));
    }
    const auto* given = std::get_if<Scale>(&g.nodes[from].op);
    const bool own = given != nullptr && outputs_of(g, from).size() == 1;
    const std::vector<float> old = own ? given->scale.to_vector<float>() : std::vector<float>{1};
    std::vector<float> values(std::max(old.size(), by.size()));
    for (size_t i = 0; i < values.size(); ++i)
        values[i] = float(double(old[i % old.size()]) / double(by[i % by.size()]));
    const Scale scale{Tensor::from(values, Shape{values.size()})};
    if (own) return replace(std::move(g), from, scale);
    const std::string unique = unique_name(g, name + "_unit");
    return insert_on_edge(std::move(g), edge, unique, scale);
}

// Thresholds of 1: what a neuron takes, and where it starts, is divided by them.
Graph normalise_thresholds(Graph g) {
    const size_t given = g.nodes.size();
    for (size_t i = 0; i < given; ++i) {
        const auto* old = std::get_if<Neuron>(&g.nodes[i].op);
        if (!old || old->rule.reset != kernels::Reset::subtract) continue;
        const std::vector<float> theta = old->theta.to_vector<float>();
        Neuron unit = *old;
        unit.theta = Tensor::full<float>({1}, 1);
        if (old->v0.defined()) {
            std::vector<float> v0 = old->v0.to_vector<float>();
            const size_t own = v0.size();
            v0.resize(std::max(own, theta.size()));
            for (size_t k = v0.size(); k-- > 0;)
                v0[k] = float(double(v0[k % own]) / double(theta[k % theta.size()]));
            unit.v0 = Tensor::from(v0, Shape{v0.size()});
        }
        const std::string name = g.nodes[i].name;
        g = replace(std::move(g), i, unit);
        if (std::all_of(theta.begin(), theta.end(), [](float t) { return t == 1; })) continue;
        for (const size_t e : inputs_of(g, i)) g = divide_edge(std::move(g), e, theta, name);
    }
    return g;
}

// v(0) spread over T steps, in a bias.
Graph start_by_bias(Graph g, int T) {
    if (T < 1) throw Error("[nir] v(0) cannot become a bias: the model has no T", ErrorKind::usage);
    for (size_t i = 0; i < g.nodes.size(); ++i) {
        const auto* neuron = std::get_if<Neuron>(&g.nodes[i].op);
        if (!neuron) continue;
        Neuron still = *neuron;
        std::vector<float> v0 =
            neuron->v0.defined() ? neuron->v0.to_vector<float>() : neuron->theta.to_vector<float>();
        if (!neuron->v0.defined())
            for (float& v : v0) v *= float(neuron->v0_fraction);
        still.v0 = {};
        still.v0_fraction = 0;
        g = replace(std::move(g), i, still);
        if (std::all_of(v0.begin(), v0.end(), [](float v) { return v == 0; })) continue;
        if (still.rule.beta != 1) refuse(g, i, "a leaking v(0) is no bias");
        std::optional<size_t> layer;
        for (const size_t e : inputs_of(g, i))
            if (!layer) layer = weights_behind(g, e);
        const size_t channels = layer ? infer_shapes(g)[*layer].back() : 0;
        if (!layer || (v0.size() != 1 && v0.size() != channels))
            refuse(g, i, "v(0) cannot become a bias: no weights of its own before it take one");
        Operation op = g.nodes[*layer].op;
        const auto add = [&](Tensor& bias) {
            std::vector<float> b =
                bias.defined() ? bias.to_vector<float>() : std::vector<float>(channels, 0.0f);
            for (size_t c = 0; c < channels; ++c)
                b[c] = float(double(b[c]) + double(v0[c % v0.size()]) / T);
            bias = Tensor::from(b, Shape{channels});
        };
        if (auto* conv = std::get_if<Conv>(&op))
            add(conv->bias);
        else
            add(std::get<Linear>(op).bias);
        g = replace(std::move(g), *layer, std::move(op));
    }
    return g;
}

// NIR adds what several edges bring: a place for the sum is not needed, or is a scale of 1.
Graph without_sums(Graph g) {
    for (size_t i = 0; i < g.nodes.size();) {
        if (!is<Add>(g, i)) {
            ++i;
            continue;
        }
        try {
            g = remove(g, i);
        } catch (const Error&) {  // would change the order of another sum
            g = replace(std::move(g), i, Scale{Tensor::full<float>({1}, 1)});
        }
    }
    return g;
}

Graph pool_by_sums(Graph g) {
    const std::vector<Shape> shapes = infer_shapes(g);
    for (size_t i = 0; i < shapes.size(); ++i) {
        const auto* pool = std::get_if<AveragePool>(&g.nodes[i].op);
        if (!pool) continue;
        const ops::PoolOptions o = pool->options;
        g = replace(std::move(g), i, sum_pool(o, shapes[i].back()));
        g = fold_into_consumers(std::move(g), i, {float(1.0 / double(o.kh * o.kw))});
    }
    return g;
}

// The same sums with zeros where a group ends, and around what is not square.
Conv plain(const Graph& g, size_t node, const Conv& conv, bool lines) {
    const ops::ConvOptions& o = conv.options;
    const Shape& s = conv.weight.shape();  // [kh, kw, cin / groups, cout]
    const size_t cin = s[2] * o.groups, per_group = s[3] / o.groups;
    const size_t high = lines ? 1 : std::max(s[0], s[1]), wide = lines ? s[1] : high;
    const size_t more_h = high - s[0], more_w = wide - s[1];
    if (more_h % 2 + more_w % 2 > 0)
        refuse(g, node,
               "a kernel of " + std::to_string(s[0]) + " x " + std::to_string(s[1]) +
                   " cannot be made square; --nir-compat full writes it as it is");
    Conv out = conv;
    out.options.groups = 1;
    out.options.pad_h += more_h / 2 * o.dilation_h;
    out.options.pad_w += more_w / 2 * o.dilation_w;
    out.weight = Tensor::full<float>({high, wide, cin, s[3]}, 0);
    const float* from = conv.weight.data<float>();
    float* to = out.weight.data<float>();
    for (size_t y = 0; y < s[0]; ++y)
        for (size_t x = 0; x < s[1]; ++x)
            for (size_t c = 0; c < s[2]; ++c)
                for (size_t k = 0; k < s[3]; ++k) {
                    const size_t row = (y + more_h / 2) * wide + x + more_w / 2;
                    to[(row * cin + k / per_group * s[2] + c) * s[3] + k] = *from++;
                }
    return out;
}

Graph plain_convolutions(Graph g) {
    const bool lines = is_of_lines(g);  // their kernels have one side only
    for (size_t i = 0; i < g.nodes.size(); ++i) {
        const auto* conv = std::get_if<Conv>(&g.nodes[i].op);
        if (!conv || is_sum_pool(*conv)) continue;
        const Shape& s = conv->weight.shape();
        if (conv->options.groups == 1 && (lines || s[0] == s[1])) continue;
        Operation op = plain(g, i, *conv, lines);
        g = replace(std::move(g), i, std::move(op));
    }
    return g;
}

}  // namespace

NirOptions parse_nir_options(const std::string& start, const std::string& pool,
                             const std::string& compat) {
    const auto choose = [](const char* option, const std::string& word,
                           const std::vector<std::string>& known) {
        const auto at = std::find(known.begin(), known.end(), word);
        if (at == known.end())
            throw Error("[nir] --" + std::string(option) + " '" + word + "' is unknown",
                        ErrorKind::usage, suggestion(word, known));
        return at != known.begin();
    };
    NirOptions out;
    if (choose("nir-vinit", start, {"metadata", "bias"})) out.start = NirOptions::Start::bias;
    if (choose("nir-pool", pool, {"avg", "sum"})) out.pool = NirOptions::Pool::sum;
    if (choose("nir-compat", compat, {"strict", "full"})) out.compat = NirOptions::Compat::full;
    return out;
}

Graph nir_form(Graph g, const NirOptions& options, int T) {
    check_expressible(g);
    g = pool_by_windows(fold_amplitudes(fold_batch_norm(std::move(g))));
    g = without_sums(normalise_thresholds(std::move(g)));
    if (options.start == NirOptions::Start::bias) g = start_by_bias(std::move(g), T);
    if (options.pool == NirOptions::Pool::sum) g = pool_by_sums(std::move(g));
    if (options.compat == NirOptions::Compat::strict) g = plain_convolutions(std::move(g));
    g = sorted(g);
    check(g);
    return g;
}

void to_nir(const std::string& path, const Model& model, const NirOptions& options) {
    Model out;
    out.graph = nir_form(model.graph, options, model.info.T);
    out.info = model.info;
    save_nir(path, out);
}

Model from_nir(const std::string& path, double dt, const std::string& output) {
    return load_nir(path, dt, output);
}

}  // namespace nc
