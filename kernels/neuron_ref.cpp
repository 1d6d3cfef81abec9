// The definition of the neuron kernels: plain loops over one element at a time, time innermost.
#include <cmath>

#include "kernels/families.h"

namespace nc::kernels {
namespace {

template <class F>
F slope(const NeuronRule<F>& rule, F a, F theta) {
    const F pi = F(3.14159265358979323846);
    const F width = rule.surrogate_width;
    F u = a - theta;
    if (rule.scale_width) u = u / theta;
    F sigma = 0;
    switch (rule.surrogate) {
        case Surrogate::atan: {
            const F z = (pi / 2 * width) * u;
            sigma = width / (2 * (1 + z * z));
            break;
        }
        case Surrogate::triangle: {
            const F rise = 1 - std::abs(u) / width;
            sigma = (rise > 0 ? rise : F(0)) / width;
            break;
        }
        case Surrogate::rectangle:
            sigma = std::abs(u) < width / 2 ? 1 / width : F(0);
            break;
        case Surrogate::sigmoid: {
            // s(z) (1 - s(z)) with z = width u, in the form that does not cancel.
            const F z = width * u;
            const double e = std::exp(-std::abs(double(z)));
            sigma = F(width * e / ((1 + e) * (1 + e)));
            break;
        }
    }
    return rule.scale_width ? sigma / theta : sigma;
}

bool bit(const uint64_t* row, size_t i) {
    return row[i / 64] >> i % 64 & 1;
}

template <class F>
void scan_exact(F theta, F amplitude, const F* x, F* y, const ScanShape& shape, size_t i) {
    F sum = 0;
    for (size_t t = 0; t < shape.steps; ++t)
        sum = sum + x[(shape.constant_input ? 0 : t * shape.size) + i];
    const F wanted = std::floor(sum / theta + F(0.5));
    for (size_t t = 0; t < shape.steps; ++t)
        if (y != nullptr) y[t * shape.size + i] = F(t) < wanted ? amplitude : F(0);
}

template <class F>
void forward(Queue&, const NeuronRule<F>& rule, const F* theta, const F* v0, const F* amplitude,
             const F* x, F* v, F* y, uint64_t* bits, const ScanShape& shape) {
    const size_t words = (shape.size + 63) / 64;
    if (bits != nullptr)
        for (size_t i = 0; i < shape.steps * words; ++i) bits[i] = 0;
    for (size_t i = 0; i < shape.size; ++i) {
        const size_t p = i % shape.params;
        if (rule.spiking == Spiking::exact) {
            scan_exact(theta[p], amplitude[p], x, y, shape, i);
            continue;
        }
        F m = v != nullptr ? v[i] : v0[p];
        size_t sent = 0;  // positive minus negative spikes
        for (size_t t = 0; t < shape.steps; ++t) {
            m = rule.beta * m + x[(shape.constant_input ? 0 : t * shape.size) + i];
            const bool up = rule.compare == Compare::greater ? m > theta[p] : m >= theta[p];
            const bool down = rule.spiking == Spiking::negative && !up && m < 0 && sent > 0;
            if (up) m = rule.reset == Reset::subtract ? m - theta[p] : rule.reset_value;
            if (down) m = m + theta[p];
            if (up) ++sent;
            if (down) --sent;
            if (y != nullptr)
                y[t * shape.size + i] = up ? amplitude[p] : down ? -amplitude[p] : F(0);
            if (bits != nullptr && up) bits[t * words + i / 64] |= uint64_t(1) << i % 64;
        }
        if (v != nullptr) v[i] = m;
    }
}

// One element: a_t = membrane before the reset, dv = dL / d(membrane after it). Rounded term by
// term as written. Returns this element's part of dtheta.
template <class F>
double element_backward(const NeuronRule<F>& rule, F theta, F v0, F amplitude,
                        bool amplitude_is_theta, bool v0_is_half_theta, const F* x,
                        const uint64_t* bits, const F* dy, F* dx, const ScanShape& shape, size_t i,
                        F* membrane) {
    const size_t words = (shape.size + 63) / 64;
    F m = v0;
    for (size_t t = 0; t < shape.steps; ++t) {
        m = rule.beta * m + x[(shape.constant_input ? 0 : t * shape.size) + i];
        membrane[t] = m;
        if (bit(bits + t * words, i))
            m = rule.reset == Reset::subtract ? m - theta : rule.reset_value;
    }
    F dv = 0, dx_sum = 0;
    double dtheta = 0;
    for (size_t t = shape.steps; t-- > 0;) {
        const F a = membrane[t];
        const F g = dy[t * shape.size + i];
        const F s = bit(bits + t * words, i) ? F(1) : F(0);
        const F sigma = slope(rule, a, theta);
        // d(v_t) / d(s_t), times what of it the gradient sees.
        const F jump = rule.detach_reset               ? F(0)
                       : rule.reset == Reset::subtract ? -theta
                                                       : rule.reset_value - a;
        const F keep = rule.reset == Reset::subtract ? F(1) : 1 - s;
        const F da = (g * amplitude) * sigma + dv * (keep + jump * sigma);
        if (amplitude_is_theta) dtheta += double(g) * s;
        dtheta -= double(sigma) * (double(g) * amplitude + double(jump) * dv);
        if (rule.reset == Reset::subtract) dtheta -= double(dv) * s;
        if (shape.constant_input)
            dx_sum = dx_sum + da;
        else
            dx[t * shape.size + i] = da;
        dv = rule.beta * da;
    }
    if (shape.constant_input) dx[i] = dx_sum;
    return v0_is_half_theta ? dtheta + double(dv) / 2 : dtheta;
}

template <class F>
size_t backward_scratch(const ScanShape& shape, bool dtheta, int) {
    return shape.steps * sizeof(F) + (dtheta ? shape.params : 0) * sizeof(double) + 8;
}

template <class F>
void backward(Queue& q, const NeuronRule<F>& rule, const F* theta, const F* v0, const F* amplitude,
              bool amplitude_is_theta, bool v0_is_half_theta, const F* x, const uint64_t* bits,
              const F* dy, F* dx, F* dtheta, const ScanShape& shape) {
    double* const sums = reinterpret_cast<double*>(q.scratch);
    F* const membrane =
        reinterpret_cast<F*>(q.scratch + (dtheta != nullptr ? shape.params : 0) * sizeof(double));
    if (dtheta != nullptr)
        for (size_t p = 0; p < shape.params; ++p) sums[p] = 0;
    for (size_t i = 0; i < shape.size; ++i) {
        const size_t p = i % shape.params;
        const double part =
            element_backward(rule, theta[p], v0[p], amplitude[p], amplitude_is_theta,
                             v0_is_half_theta, x, bits, dy, dx, shape, i, membrane);
        if (dtheta != nullptr) sums[p] += part;
    }
    if (dtheta != nullptr)
        for (size_t p = 0; p < shape.params; ++p) dtheta[p] = F(sums[p]);
}

template <class F>
F level(F x, F lambda, int levels) {
    const F q = x / lambda;
    const F clipped = q < 0 ? F(0) : q > 1 ? F(1) : q;
    return lambda * std::floor(F(levels) * clipped + F(0.5)) / F(levels);
}

template <class F>
void qcfs(Queue&, const F* x, const F* lambda, int levels, F* y, size_t size, size_t params) {
    for (size_t i = 0; i < size; ++i) y[i] = level(x[i], lambda[i % params], levels);
}

size_t qcfs_backward_scratch(size_t, size_t params) {
    return params * sizeof(double);
}

template <class F>
void qcfs_backward(Queue& queue, const F* x, const F* lambda, int levels, const F* dy, F* dx,
                   F* dlambda, size_t size, size_t params) {
    double* const sums = reinterpret_cast<double*>(queue.scratch);
    if (dlambda != nullptr)
        for (size_t p = 0; p < params; ++p) sums[p] = 0;
    for (size_t i = 0; i < size; ++i) {
        const size_t p = i % params;
        const F q = x[i] / lambda[p];
        const bool inside = q >= 0 && q <= 1;
        dx[i] = inside ? dy[i] : F(0);
        const F y = level(x[i], lambda[p], levels);
        if (dlambda != nullptr)
            sums[p] += double(dy[i]) * (double(y) / lambda[p] - (inside ? double(q) : 0.0));
    }
    if (dlambda != nullptr)
        for (size_t p = 0; p < params; ++p) dlambda[p] = F(sums[p]);
}

}  // namespace

template <class F>
Neuron<F> reference_neuron() {
    return {.forward = forward<F>,
            .backward = backward<F>,
            .backward_scratch = backward_scratch<F>,
            .qcfs = qcfs<F>,
            .qcfs_backward = qcfs_backward<F>,
            .qcfs_backward_scratch = qcfs_backward_scratch};
}
template Neuron<float> reference_neuron<float>();
template Neuron<double> reference_neuron<double>();

}  // namespace nc::kernels
