// Back-propagation through time for one neuron, written down by hand in double.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/kernels.h"

namespace nc::test {

inline const double pi = 3.14159265358979323846;

inline double sigma(const kernels::NeuronRule<double>& rule, double u, double theta) {
    const double w = rule.surrogate_width;
    if (rule.scale_width) u /= theta;
    double out = 0;
    if (rule.surrogate == kernels::Surrogate::atan)
        out = w / (2 * (1 + std::pow(pi / 2 * w * u, 2)));
    if (rule.surrogate == kernels::Surrogate::triangle)
        out = std::max(0.0, 1 - std::fabs(u) / w) / w;
    if (rule.surrogate == kernels::Surrogate::rectangle) out = std::fabs(u) < w / 2 ? 1 / w : 0;
    if (rule.surrogate == kernels::Surrogate::sigmoid) {
        const double s = 1 / (1 + std::exp(-w * u));
        out = w * s * (1 - s);
    }
    return rule.scale_width ? out / theta : out;
}

struct Gradients {
    std::vector<double> s, dx;  // [steps]
    double dtheta = 0;
    double magnitude = 0;  // of the terms in dtheta
};

// The recurrences for one neuron over time; amplitude theta and v(0) = theta / 2 where learnt
// says so.
inline Gradients recurrences(const kernels::NeuronRule<double>& rule, double theta, double v0,
                             double amplitude, bool learnt, const std::vector<double>& x,
                             const std::vector<double>& g) {
    const int steps = int(x.size());
    std::vector<double> a(x.size()), s(x.size());
    double v = v0;
    for (int t = 0; t < steps; ++t) {
        a[t] = (rule.beta == 1 ? v : rule.beta * v) + x[t];
        s[t] = a[t] > theta || (a[t] == theta && rule.compare != kernels::Compare::greater);
        v = rule.reset == kernels::Reset::subtract ? a[t] - theta * s[t]
                                                   : a[t] * (1 - s[t]) + rule.reset_value * s[t];
    }
    Gradients out = {s, std::vector<double>(x.size()), 0, 0};
    double dv = 0;
    for (int t = steps - 1; t >= 0; --t) {
        const double sg = sigma(rule, a[t] - theta, theta);
        double bracket;
        if (rule.reset == kernels::Reset::subtract)
            bracket = rule.detach_reset ? 1 : 1 - theta * sg;
        else
            bracket = (1 - s[t]) + (rule.detach_reset ? 0 : (rule.reset_value - a[t]) * sg);
        const double da = g[t] * amplitude * sg + dv * bracket;
        // theta moves the spike by -sigma, and with it the output and the reset; and the reset's
        // own theta.
        double by_spike = g[t] * amplitude;
        if (!rule.detach_reset)
            by_spike +=
                dv * (rule.reset == kernels::Reset::subtract ? -theta : rule.reset_value - a[t]);
        out.dtheta += (learnt ? g[t] * s[t] : 0) - sg * by_spike -
                      (rule.reset == kernels::Reset::subtract ? dv * s[t] : 0);
        out.magnitude += std::fabs(g[t]) * s[t] + std::fabs(sg * g[t] * amplitude) +
                         std::fabs(sg * (by_spike - g[t] * amplitude)) + std::fabs(dv) * s[t];
        out.dx[t] = da;
        dv = rule.beta * da;
    }
    if (learnt) out.dtheta += dv / 2;
    out.magnitude += std::fabs(dv);
    return out;
}

}  // namespace nc::test
