// The definition of the optim family: every operation rounded on its own, in the order written.
#include <cmath>

#include "kernels/families.h"

namespace nc::kernels {
namespace {

template <class F>
void sgd(Queue&, const F* g, F grad_scale, F lr, F momentum, bool nesterov, F weight_decay, F* w,
         F* m, size_t n) {
    for (size_t i = 0; i < n; ++i) {
        const F scaled = g[i] * grad_scale;
        const F decay = weight_decay * w[i];
        const F slope = scaled + decay;
        const F kept = momentum * m[i];
        m[i] = kept + slope;
        const F ahead = momentum * m[i];
        const F direction = nesterov ? slope + ahead : m[i];
        const F step = lr * direction;
        w[i] -= step;
    }
}

// Bias corrections 1 - beta^step are taken in double; denominator sqrt(v) / sqrt(1 - beta2^step) +
// eps as a product with the rounded reciprocal.
template <class F>
void adamw(Queue&, const F* g, F grad_scale, F lr, F beta1, F beta2, F eps, F weight_decay,
           int64_t step, F* w, F* m, F* v, size_t n) {
    const F decay = lr * weight_decay;
    const F rest1 = F(1) - beta1, rest2 = F(1) - beta2;
    const F rate = F(double(lr) / (1 - std::pow(double(beta1), double(step))));
    const F root = F(1 / std::sqrt(1 - std::pow(double(beta2), double(step))));
    for (size_t i = 0; i < n; ++i) {
        const F slope = g[i] * grad_scale;
        const F m_old = beta1 * m[i], m_new = rest1 * slope;
        m[i] = m_old + m_new;
        const F square = slope * slope;
        const F v_old = beta2 * v[i], v_new = rest2 * square;
        v[i] = v_old + v_new;
        const F deviation = std::sqrt(v[i]) * root;
        const F ratio = m[i] / (deviation + eps);
        const F lost = decay * w[i];
        const F decayed = w[i] - lost;
        const F moved = rate * ratio;
        w[i] = decayed - moved;
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
