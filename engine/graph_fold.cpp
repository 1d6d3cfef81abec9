// Folding batch norms and spike amplitudes into weights.
#include "engine/graph_fold.h"

#include <cmath>
#include <deque>

#include "engine/graph_edit.h"

namespace nc {

bool is_weight_layer(const Operation& op) {
    return std::holds_alternative<Linear>(op) || std::holds_alternative<Conv>(op);
}

bool passes_rates(const Operation& op) {
    return std::holds_alternative<AveragePool>(op) || std::holds_alternative<MaxPool>(op) ||
           std::holds_alternative<GlobalAveragePool>(op) || std::holds_alternative<Flatten>(op) ||
           std::holds_alternative<Scale>(op) || std::holds_alternative<Add>(op);
}

namespace {

// y = x * a + b per channel, in double.
struct Affine {
    std::vector<double> a, b;
};

Affine affine_of(const BatchNorm& bn) {
    const auto mean = bn.mean.to_vector<float>(), variance = bn.variance.to_vector<float>();
    Affine out{std::vector<double>(mean.size()), std::vector<double>(mean.size())};
    for (size_t c = 0; c < mean.size(); ++c) {
        const double gamma = bn.gamma.defined() ? bn.gamma.data<float>()[c] : 1;
        const double beta = bn.beta.defined() ? bn.beta.data<float>()[c] : 0;
        out.a[c] = gamma / std::sqrt(double(variance[c]) + bn.eps);
        out.b[c] = beta - double(mean[c]) * out.a[c];
    }
    return out;
}

// Output channels are the last axis of both kinds of weights.
template <class Layer>
Layer with_affine(Layer layer, const Affine& f) {
    const size_t out = f.a.size();
    layer.weight = layer.weight.clone();
    float* w = layer.weight.template data<float>();
    for (size_t i = 0; i < layer.weight.elements(); ++i) w[i] = float(w[i] * f.a[i % out]);
    std::vector<float> bias(out);
    for (size_t c = 0; c < out; ++c) {
        const double b = layer.bias.defined() ? layer.bias.template data<float>()[c] : 0;
        bias[c] = float(b * f.a[c] + f.b[c]);
    }
    layer.bias = Tensor::from(bias, Shape{out});
    return layer;
}

bool commutes(const Operation& op) {
    const auto* pool = std::get_if<AveragePool>(&op);
    return std::holds_alternative<GlobalAveragePool>(op) ||
           (pool && pool->options.pad_h == 0 && pool->options.pad_w == 0);
}

// The weight layer a BatchNorm folds into, or why there is none.
size_t foldable_layer(const Graph& g, size_t bn, std::string& why) {
    size_t at = bn;
    while (true) {
        const auto in = inputs_of(g, at);
        if (in.size() != 1) {
            why = "comes after a sum";
            return bn;
        }
        const Edge& edge = g.edges[in[0]];
        at = edge.from;
        const std::string name = "'" + g.nodes[at].name + "'";
        if (edge.delay != 0) {
            why = "comes after a delayed edge from " + name;
            return bn;
        }
        if (outputs_of(g, at).size() != 1) {
            why = "shares " + name + " with other consumers";
            return bn;
        }
        if (is_weight_layer(g.nodes[at].op)) return at;
        if (!commutes(g.nodes[at].op)) {
            why = "comes after " + name + " (" + std::string(operation_name(g.nodes[at].op)) + ")";
            return bn;
        }
    }
}

}  // namespace

Graph fold_batch_norm(Graph g) {
    std::string refused;
    for (size_t i = 0; i < g.nodes.size();) {
        const auto* bn = std::get_if<BatchNorm>(&g.nodes[i].op);
        if (!bn) {
            ++i;
            continue;
        }
        std::string why;
        const size_t layer = foldable_layer(g, i, why);
        if (!why.empty()) {
            refused += (refused.empty() ? "'" : "; '") + g.nodes[i].name + "' " + why;
            ++i;
            continue;
        }
        const Affine f = affine_of(*bn);
        // Made before g is moved: arguments are evaluated in any order.
        Operation folded = g.nodes[layer].op;
        if (const auto* conv = std::get_if<Conv>(&folded))
            folded = with_affine(*conv, f);
        else
            folded = with_affine(std::get<Linear>(folded), f);
        g = replace(std::move(g), layer, std::move(folded));
        g = remove(std::move(g), i);
        i = 0;
    }
    if (!refused.empty())
        throw Error("[fold] BatchNorm cannot be folded: " + refused, ErrorKind::model,
                    "a BatchNorm has to follow a convolution or linear layer that feeds only it");
    return g;
}

namespace {

using Amplitude = std::vector<float>;  // [1] or [C]; element i of an activation has i % size

std::vector<float> scaled_rows(const Tensor& weight, size_t rows, size_t cols,
                               const std::function<float(size_t row, size_t col)>& factor) {
    std::vector<float> w = weight.to_vector<float>();
    for (size_t i = 0; i < w.size(); ++i) w[i] *= factor(i / cols % rows, i % cols);
    return w;
}

Linear with_amplitude(const Linear& layer, const Amplitude& a) {
    const Shape& s = layer.weight.shape();
    const auto w =
        scaled_rows(layer.weight, s[0], s[1], [&](size_t in, size_t) { return a[in % a.size()]; });
    return {Tensor::from(w, s), layer.bias};
}

Conv with_amplitude(const Conv& layer, const Amplitude& a) {
    const Shape& s = layer.weight.shape();  // [kh, kw, cin / groups, cout]
    const size_t out_per_group = s[3] / layer.options.groups;
    const auto w = scaled_rows(layer.weight, s[2], s[3], [&](size_t in, size_t out) {
        return a[(out / out_per_group * s[2] + in) % a.size()];
    });
    return {Tensor::from(w, s), layer.bias, layer.options};
}

Scale with_amplitude(const Scale& node, const Amplitude& a) {
    const auto s = node.scale.to_vector<float>();
    std::vector<float> product(std::max(s.size(), a.size()));
    for (size_t i = 0; i < product.size(); ++i) product[i] = s[i % s.size()] * a[i % a.size()];
    return {Tensor::from(product, Shape{product.size()})};
}

// One number for each of the last axis' elements (channels repeat after a Flatten), or just one.
Amplitude spread(const Amplitude& a, size_t size) {
    Amplitude out(a.size() == 1 ? 1 : size);
    for (size_t i = 0; i < out.size(); ++i) out[i] = a[i % a.size()];
    return out;
}

}  // namespace

// Nodes of one neuron's pooling are walked through a list: a pool with several consumers is met
// once.
Graph fold_into_consumers(Graph g, size_t neuron, const Amplitude& amplitude) {
    const std::vector<Shape> shapes = infer_shapes(g);  // Scale nodes are added behind these
    std::deque<size_t> sources{neuron};
    const auto unfoldable = [&](const Node& at) -> Error {
        return Error("[fold] '" + g.nodes[neuron].name + "' has a threshold per neuron, '" +
                         at.name + "' (" + std::string(operation_name(at.op)) +
                         ") cannot take that amplitude",
                     ErrorKind::model, "use thresholds per channel or per layer");
    };
    while (!sources.empty()) {
        const size_t from = sources.front();
        sources.pop_front();
        const Amplitude here = spread(amplitude, shapes[from].back());
        for (const size_t e : outputs_of(g, from)) {
            const size_t to = g.edges[e].to;
            const Node node = g.nodes[to];
            const bool alone = inputs_of(g, to).size() == 1;
            const bool linear = std::holds_alternative<Linear>(node.op);
            if (amplitude.size() > shapes[neuron].back() && !(alone && linear) &&
                !std::holds_alternative<Flatten>(node.op))
                throw unfoldable(node);
            if (alone && linear)
                g = replace(std::move(g), to, with_amplitude(std::get<Linear>(node.op), amplitude));
            else if (alone && std::holds_alternative<Conv>(node.op))
                g = replace(std::move(g), to, with_amplitude(std::get<Conv>(node.op), amplitude));
            else if (alone && std::holds_alternative<Scale>(node.op))
                g = replace(std::move(g), to, with_amplitude(std::get<Scale>(node.op), here));
            else if (alone && passes_rates(node.op) && !std::holds_alternative<Add>(node.op))
                sources.push_back(to);
            else {
                const std::string name = unique_name(g, g.nodes[neuron].name + "_amplitude");
                g = insert_on_edge(std::move(g), e, name,
                                   Scale{Tensor::from(here, Shape{here.size()})});
            }
        }
    }
    return g;
}

Graph fold_amplitudes(Graph g) {
    const size_t given = g.nodes.size();  // Scale nodes are added behind these
    for (size_t i = 0; i < given; ++i) {
        const auto* old = std::get_if<Neuron>(&g.nodes[i].op);
        if (!old || old->amplitude == Neuron::Amplitude::one) continue;
        const Amplitude amplitude = old->theta.to_vector<float>();
        Neuron bits = *old;
        bits.amplitude = Neuron::Amplitude::one;
        g = replace(std::move(g), i, bits);
        g = fold_into_consumers(std::move(g), i, amplitude);
    }
    return sorted(g);
}

}  // namespace nc
