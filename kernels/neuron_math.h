// One step of a neuron and the slope of its surrogate, for one element or a vector of them: what
// the vector and the CUDA kernels share. V is float, or a vector whose select, abs and exp are
// found beside its type.
#pragma once

#include <math.h>

#include "kernels/kernels.h"

namespace nc::kernels {

static constexpr float select(bool m, float a, float b) {
    return m ? a : b;
}

// The membrane before the reset. Without leak beta is 1 and the product would change nothing.
template <bool leaky, class V>
static constexpr V update(V v, V x, V beta) {
    if constexpr (leaky)
        return beta * v + x;
    else
        return v + x;
}

template <Compare compare, class V>
static constexpr auto threshold(V a, V theta) {
    if constexpr (compare == Compare::greater)
        return a > theta;
    else
        return a >= theta;
}

template <Reset reset, class V, class M>
static constexpr V after_reset(V a, M spike, V theta, V value) {
    if constexpr (reset == Reset::subtract)
        return select(spike, a - theta, a);
    else
        return select(spike, value, a);
}

// What a surrogate's slope needs, the same for every element.
template <class V>
struct SlopeConstants {
    V width, half_width, inverse_width, atan_scale;  // atan_scale = pi / 2 * width
    bool scale;
};

// d(spike) / d(membrane) at membrane a.
template <Surrogate surrogate, class V>
static constexpr V slope(const SlopeConstants<V>& k, V a, V theta) {
    const V zero(0.f), one(1.f), two(2.f);
    V u = a - theta;
    if (k.scale) u = u / theta;
    V sigma = zero;
    if constexpr (surrogate == Surrogate::atan) {
        const V z = k.atan_scale * u;
        sigma = k.width / (two * (one + z * z));
    } else if constexpr (surrogate == Surrogate::triangle) {
        const V rise = one - abs(u) / k.width;
        sigma = select(rise > zero, rise, zero) / k.width;
    } else if constexpr (surrogate == Surrogate::rectangle) {
        sigma = select(abs(u) < k.half_width, k.inverse_width, zero);
    } else {
        const V e = exp(zero - abs(k.width * u));
        sigma = k.width * e / ((one + e) * (one + e));
    }
    return k.scale ? sigma / theta : sigma;
}

}  // namespace nc::kernels
