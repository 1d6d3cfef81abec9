// Learning-rate schedules and the optimisers' step over named parameters.
#include "autograd/optim.h"

#include <cmath>
#include <limits>
#include <numbers>

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

}  // namespace

double optimise(Compute& compute, const OptimOptions& o, double factor,
                std::vector<Parameter>& parameters, Moments& moments) {
    double squares = 0;
    for (const Parameter& p : parameters) {
        if (p.role == TensorRole::statistic || !p.gradient.defined()) continue;
        check_same("optimise", *p.value, p.gradient);
        squares += ops::sum_squares(compute, p.gradient);
    }
    const double norm = std::sqrt(squares);
    const double grad_scale = o.clip_norm > 0 && norm > o.clip_norm ? o.clip_norm / norm : 1.0;
    ++moments.step;
    for (Parameter& p : parameters) {
        if (p.role == TensorRole::statistic || !p.gradient.defined()) continue;
        const bool threshold = p.role == TensorRole::threshold;
        const double lr = factor * (threshold ? o.threshold_lr : o.lr);
        const double decay = o.decay_all || p.role == TensorRole::weight ? o.weight_decay : 0.0;
        Tensor& m = moment(compute, moments, p.name + ".m", *p.value);
        on_floats("optimise", p.value->dtype(), [&](auto zero) {
            using F = decltype(zero);
            const auto& table = compute.kernels<F>();
            F* w = p.value->template data<F>();
            const size_t n = p.value->elements();
            if (o.kind == OptimOptions::Kind::sgd) {
                table.optim.sgd(compute.queue, p.gradient.data<F>(), F(grad_scale), F(lr),
                                F(o.momentum), o.nesterov, F(decay), w, m.data<F>(), n);
            } else {
                Tensor& v = moment(compute, moments, p.name + ".v", *p.value);
                table.optim.adamw(compute.queue, p.gradient.data<F>(), F(grad_scale), F(lr),
                                  F(o.beta1), F(o.beta2), F(o.eps), F(decay), moments.step, w,
                                  m.data<F>(), v.data<F>(), n);
            }
            if (threshold)
                table.elementwise.clamp(compute.queue, w, F(min_threshold),
                                        std::numeric_limits<F>::max(), w, n);
        });
    }
    return norm;
}

}  // namespace nc
