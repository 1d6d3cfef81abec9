// How a layer's weights lie for the kernels of the runtime.
#pragma once

#include <vector>

#include "neurons/runtime_plan.h"

namespace nc::plan {

constexpr size_t most_count = 128;  // of an input of kernels::IntegerStages::dense

constexpr size_t padded_to_16(size_t n) {
    return (n + 15) / 16 * 16;
}

// Outputs [first, first + n): [inputs, n rounded up to 16], and their biases. V: float, or integers
// that hold them.
template <class V>
std::vector<V> panel_weights(const Layer& layer, size_t first, size_t n) {
    const size_t inputs = layer.shape.kh * layer.shape.kw * layer.shape.cin;
    const size_t width = padded_to_16(n);
    std::vector<V> out(inputs * width);
    for (size_t i = 0; i < inputs; ++i)
        for (size_t o = 0; o < n; ++o)
            out[i * width + o] = V(layer.w[i * layer.shape.cout + first + o]);
    return out;
}
template <class V>
std::vector<V> panel_bias(const Layer& layer, size_t first, size_t n) {
    std::vector<V> out(padded_to_16(n));
    for (size_t o = 0; layer.bias != nullptr && o < n; ++o) out[o] = V(layer.bias[first + o]);
    return out;
}

// [kh * kw, cin / 4 rounded up, width, 4].
inline std::vector<int8_t> weights_in_fours(const Layer& layer) {
    const auto& s = layer.shape;
    const size_t fours = (s.cin + 3) / 4, width = layer.width();
    std::vector<int8_t> out(s.kh * s.kw * fours * width * 4);
    for (size_t k = 0; k < s.kh * s.kw; ++k)
        for (size_t c = 0; c < s.cin; ++c)
            for (size_t o = 0; o < s.cout; ++o)
                out[((k * fours + c / 4) * width + o) * 4 + c % 4] =
                    int8_t(layer.w[(k * s.cin + c) * s.cout + o]);
    return out;
}

}  // namespace nc::plan
