// The definition of the optim family: every operation rounded on its own, in the order written.
#include <cmath>

#include "kernels/families.h"

namespace nc::kernels {
namespace {

template <class F>
void sgd(Queue&, const OptimSlice<F>* slices, size_t count, F grad_scale, F momentum,
         bool nesterov) {
    for (size_t k = 0; k < count; ++k) {
        const OptimSlice<F>& s = slices[k];
        for (size_t i = 0; i < s.n; ++i) {
            const F scaled = s.g[i] * grad_scale;
            const F decay = s.weight_decay * s.w[i];
            const F slope = scaled + decay;
            const F kept = momentum * s.m[i];
            s.m[i] = kept + slope;
            const F ahead = momentum * s.m[i];
            const F direction = nesterov ? slope + ahead : s.m[i];
            const F step = s.lr * direction;
            s.w[i] -= step;
            if (s.w[i] < s.lowest) s.w[i] = s.lowest;
        }
    }
}

// Bias corrections 1 - beta^step are taken in double; denominator sqrt(v) / sqrt(1 - beta2^step) +
// eps as a product with the rounded reciprocal.
template <class F>
void adamw(Queue&, const OptimSlice<F>* slices, size_t count, F grad_scale, F beta1, F beta2, F eps,
           int64_t step) {
    const F rest1 = F(1) - beta1, rest2 = F(1) - beta2;
    const F root = F(1 / std::sqrt(1 - std::pow(double(beta2), double(step))));
    for (size_t k = 0; k < count; ++k) {
        const OptimSlice<F>& s = slices[k];
        const F decay = s.lr * s.weight_decay;
        const F rate = F(double(s.lr) / (1 - std::pow(double(beta1), double(step))));
        for (size_t i = 0; i < s.n; ++i) {
            const F slope = s.g[i] * grad_scale;
            const F m_old = beta1 * s.m[i], m_new = rest1 * slope;
            s.m[i] = m_old + m_new;
            const F square = slope * slope;
            const F v_old = beta2 * s.v[i], v_new = rest2 * square;
            s.v[i] = v_old + v_new;
            const F deviation = std::sqrt(s.v[i]) * root;
            const F ratio = s.m[i] / (deviation + eps);
            const F lost = decay * s.w[i];
            const F decayed = s.w[i] - lost;
            const F moved = rate * ratio;
            s.w[i] = decayed - moved;
            if (s.w[i] < s.lowest) s.w[i] = s.lowest;
        }
    }
}

}  // namespace

template <class F>
Optim<F> reference_optim() {
    return {.sgd = sgd<F>, .adamw = adamw<F>};
}

template Optim<float> reference_optim<float>();
template Optim<double> reference_optim<double>();

}  // namespace nc::kernels
