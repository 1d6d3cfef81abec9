// Learning-rate schedules and the optimisers' step over named parameters.
#include "autograd/optim.h"

#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "engine/dispatch.h"
#include "engine/ops.h"

namespace nc {

double scheduled(Schedule schedule, double lr, int64_t step, int64_t steps, int64_t warmup) {
    if (step < warmup) return lr * double(step + 1) / double(warmup);
    const double done =
        steps > warmup ? std::min(1.0, double(step - warmup) / double(steps - warmup)) : 0.0;
    switch (schedule) {
        case Schedule::constant:
            return lr;
        case Schedule::cosine:
            return lr * 0.5 * (1 + std::cos(std::numbers::pi * done));
        case Schedule::linear:
            return lr * (1 - done);
        case Schedule::step:
            return lr * (done < 0.5 ? 1.0 : done < 0.75 ? 0.1 : 0.01);
    }
    return lr;
}

namespace {

Tensor& moment(Compute& compute, Moments& moments, const std::string& name, const Tensor& like) {
    Tensor& m = moments.tensors[name];
    if (!m.defined()) m = compute.zeros(like.shape(), like.dtype());
    check_same("optimise", m, like);
    return m;
}

// Steps every parameter of this type, all in one call of the kernel.
template <class F>
void step_all(Compute& compute, const OptimOptions& o, double factor, double grad_scale,
              std::vector<Parameter>& parameters, Moments& moments) {
    const bool adamw = o.kind == OptimOptions::Kind::adamw;
    std::vector<kernels::OptimSlice<F>> slices;
    for (Parameter& p : parameters) {
        if (p.role == TensorRole::statistic || !p.gradient.defined()) continue;
        if (p.gradient.dtype() != dtype_of<F>()) continue;
        const bool threshold = p.role == TensorRole::threshold;
        const bool decays = o.decay_all || p.role == TensorRole::weight;
        Tensor& m = moment(compute, moments, p.name + ".m", *p.value);
        F* v = adamw ? moment(compute, moments, p.name + ".v", *p.value).data<F>() : nullptr;
        slices.push_back(
            {.g = p.gradient.data<F>(),
             .w = p.value->template data<F>(),
             .m = m.data<F>(),
             .v = v,
             .n = p.value->elements(),
             .lr = F(factor * (threshold ? o.threshold_lr : o.lr)),
             .weight_decay = F(decays ? o.weight_decay : 0.0),
             .lowest = threshold ? F(min_threshold) : -std::numeric_limits<F>::infinity()});
    }
    if (slices.empty()) return;
    const auto& optim = compute.kernels<F>().optim;
    if (adamw)
        optim.adamw(compute.queue, slices.data(), slices.size(), F(grad_scale), F(o.beta1),
                    F(o.beta2), F(o.eps), moments.step);
    else
        optim.sgd(compute.queue, slices.data(), slices.size(), F(grad_scale), F(o.momentum),
                  o.nesterov);
    compute.check("optimise");
}

}  // namespace

double optimise(Compute& compute, const OptimOptions& o, double factor,
                std::vector<Parameter>& parameters, Moments& moments) {
    // A device is waited for once, and only when the norm is needed.
    const bool measured = compute.on_host() || o.clip_norm > 0;
    const Tensor squares = compute.empty({parameters.size()}, DType::f64);
    size_t count = 0;
    for (const Parameter& p : parameters) {
        if (p.role == TensorRole::statistic || !p.gradient.defined()) continue;
        check_same("optimise", *p.value, p.gradient);
        if (!measured) continue;
        ops::sum_squares_into(compute, p.gradient, squares.slice(count, count + 1));
        ++count;
    }
    double norm = std::numeric_limits<double>::quiet_NaN();
    if (measured) {
        const std::vector<double> each = squares.slice(0, count).to_vector<double>();
        norm = std::sqrt(std::accumulate(each.begin(), each.end(), 0.0));
    }
    const double grad_scale = o.clip_norm > 0 && norm > o.clip_norm ? o.clip_norm / norm : 1.0;
    ++moments.step;
    step_all<float>(compute, o, factor, grad_scale, parameters, moments);
    step_all<double>(compute, o, factor, grad_scale, parameters, moments);
    return norm;
}

}  // namespace nc
