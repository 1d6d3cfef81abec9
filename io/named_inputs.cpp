// Selections of an input's channels, recognised.
#include "io/named_inputs.h"

#include <algorithm>
#include <optional>

namespace nc {
namespace {

// The first of the consecutive channels that a 1 x 1 Conv or a Linear passes on as they are.
std::optional<size_t> first_selected(const Operation& op) {
    const auto* conv = std::get_if<Conv>(&op);
    const auto* linear = std::get_if<Linear>(&op);
    if (conv == nullptr && linear == nullptr) return std::nullopt;
    const Tensor& weight = conv ? conv->weight : linear->weight;
    const Tensor& bias = conv ? conv->bias : linear->bias;
    const Shape& s = weight.shape();
    if (bias.defined() || weight.dtype() != DType::f32) return std::nullopt;
    if (conv) {
        const ops::ConvOptions& o = conv->options;
        if (s[0] * s[1] * o.groups * o.stride_h * o.stride_w != 1 || o.pad_h + o.pad_w != 0)
            return std::nullopt;
    }
    const size_t own = s.back(), all = s[s.rank() - 2];
    const float* w = weight.data<float>();
    size_t first = 0;
    while (first < all && w[first * own] != 1) ++first;
    if (first + own > all) return std::nullopt;
    for (size_t row = 0; row < all; ++row)
        for (size_t k = 0; k < own; ++k)
            if (w[row * own + k] != (row == first + k ? 1.0f : 0.0f)) return std::nullopt;
    return first;
}

}  // namespace

std::vector<NamedInput> named_inputs(const Graph& g) {
    const auto is_input = [](const Node& n) { return std::holds_alternative<Input>(n.op); };
    const size_t input =
        size_t(std::find_if(g.nodes.begin(), g.nodes.end(), is_input) - g.nodes.begin());
    const size_t channels = std::get<Input>(g.nodes.at(input).op).shape.back();
    const std::vector<NamedInput> one = {{g.nodes[input].name, input, 0, channels}};
    std::vector<NamedInput> several;
    for (const size_t e : outputs_of(g, input)) {
        const size_t node = g.edges[e].to;
        const auto first = first_selected(g.nodes[node].op);
        if (!first || g.edges[e].delay != 0 || inputs_of(g, node).size() != 1) return one;
        const Operation& op = g.nodes[node].op;
        const auto* conv = std::get_if<Conv>(&op);
        const Tensor& weight = conv ? conv->weight : std::get<Linear>(op).weight;
        several.push_back({g.nodes[node].name, node, *first, weight.shape().back()});
    }
    std::sort(several.begin(), several.end(),
              [](const NamedInput& a, const NamedInput& b) { return a.first < b.first; });
    size_t end = 0;
    for (const NamedInput& part : several) {
        if (part.first != end) return one;
        end += part.channels;
    }
    return several.size() > 1 && end == channels ? several : one;
}

}  // namespace nc
