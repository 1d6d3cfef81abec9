// Differentiable QCFS and spiking neurons; each backward stands beneath its forward.
#include <algorithm>

#include "autograd/functions.h"
#include "autograd/neuron_scan.h"
#include "engine/dispatch.h"

namespace nc::fn {
namespace {

template <class F>
kernels::NeuronRule<F> rule_in(const kernels::NeuronRule<double>& r) {
    return {.beta = F(r.beta),
            .compare = r.compare,
            .reset = r.reset,
            .reset_value = F(r.reset_value),
            .spiking = r.spiking,
            .surrogate = r.surrogate,
            .surrogate_width = F(r.surrogate_width),
            .scale_width = r.scale_width,
            .detach_reset = r.detach_reset};
}

void check_parameter(const char* field, const Tensor& t, const Shape& sample) {
    const size_t n = t.elements();
    if (n == 0 || (n != 1 && n != sample.back() && n != sample.elements()))
        fail("neuron", std::string(field) + " " + shape_text(t) + " for samples " + sample.str());
}

Shape folded_sample(const Tensor& x, size_t steps) {
    if (!x.defined() || x.shape().rank() < 2 || steps == 0 || x.shape()[0] % steps != 0)
        fail("neuron",
             "input " + shape_text(x) + " is not [T * N, ..] with T " + std::to_string(steps));
    return x.shape().without_leading();
}

}  // namespace

Tensor cycled(Compute& compute, const Tensor& values, size_t n) {
    if (values.elements() == n) return values.reshape(Shape{n});
    Tensor out = compute.empty({n}, values.dtype());
    // What is there already is copied on: twice as much each time.
    out.slice(0, values.elements()).assign(values.reshape(Shape{values.elements()}));
    for (size_t done = values.elements(), size; done < n; done += size) {
        size = std::min(done, n - done);
        out.slice(done, done + size).assign(out.slice(0, size));
    }
    return out;
}

Var qcfs(Compute& compute, Tape* tape, const Var& x, const Var& lambda, int levels) {
    if (levels < 1) fail("qcfs", "levels: " + std::to_string(levels));
    const size_t params = lambda.value.elements(), size = x.value.elements();
    if (params != 1) check_row("qcfs", x.value, lambda.value);
    Tensor y = compute.empty(x.shape(), x.value.dtype());
    on_floats(compute, "qcfs", x.value.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().neuron.qcfs(compute.queue, x.value.data<F>(), lambda.value.data<F>(),
                                         levels, y.data<F>(), size, params);
    });
    if (!recording(tape, {&x, &lambda})) return y;
    return tape->record(std::move(y), [x, lambda, levels, size, params](Tape& t, const Tensor& dy) {
        Compute& c = t.compute();
        Tensor dx = c.empty(x.shape(), dy.dtype()), dlambda = c.empty(lambda.shape(), dy.dtype());
        on_floats(c, "qcfs", dy.dtype(), [&](auto zero) {
            using F = decltype(zero);
            const auto& neuron = c.kernels<F>().neuron;
            c.reserve(neuron.qcfs_backward_scratch(size, params));
            neuron.qcfs_backward(c.queue, x.value.data<F>(), lambda.value.data<F>(), levels,
                                 dy.data<F>(), dx.data<F>(),
                                 lambda.tracked() ? dlambda.data<F>() : nullptr, size, params);
        });
        t.accumulate(x, std::move(dx));
        t.accumulate(lambda, std::move(dlambda));
    });
}

NeuronScan::NeuronScan(Compute& compute, const Neuron& node, const Tensor& node_theta,
                       const Shape& sample, bool trained)
    : rule(node.rule),
      theta_shape(node_theta.shape()),
      amplitude_is_theta(node.amplitude == Neuron::Amplitude::theta),
      v0_is_half_theta(!node.v0.defined() && node.v0_fraction == 0.5) {
    check_parameter("theta", node_theta, sample);
    if (node.v0.defined()) check_parameter("v0", node.v0, sample);
    if (trained && !node.v0.defined() && node.v0_fraction != 0 && node.v0_fraction != 0.5)
        fail("neuron", "a trained threshold with v(0) = " + std::to_string(node.v0_fraction) +
                           " theta has no gradient, only 0 and 0.5 have");
    const size_t params =
        std::max(node_theta.elements(), node.v0.defined() ? node.v0.elements() : size_t(1));
    theta = cycled(compute, node_theta, params);
    v0 = node.v0.defined() ? cycled(compute, node.v0, params)
                           : ops::scale(compute, theta, node.v0_fraction);
    amplitude = theta;
    if (amplitude_is_theta) return;
    amplitude = ops::full(compute, {params}, theta.dtype(), 1);
}

void NeuronScan::forward(Compute& compute, const Tensor& x, size_t steps, bool constant_input,
                         Tensor* v, Tensor* y, Tensor* bits) const {
    const size_t size = constant_input ? x.elements() : x.elements() / steps;
    const kernels::ScanShape shape = {steps, size, theta.elements(), constant_input};
    on_floats(compute, "neuron", x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        compute.kernels<F>().neuron.forward(
            compute.queue, rule_in<F>(rule), theta.data<F>(), v0.data<F>(), amplitude.data<F>(),
            x.data<F>(), v != nullptr ? v->data<F>() : nullptr,
            y != nullptr ? y->data<F>() : nullptr,
            bits != nullptr ? bits->data<uint64_t>() : nullptr, shape);
    });
}

Tensor NeuronScan::backward(Compute& compute, const Tensor& x, const Tensor& bits, const Tensor& dy,
                            size_t steps, bool constant_input, Tensor* dtheta) const {
    const size_t size = constant_input ? x.elements() : x.elements() / steps;
    const size_t params = theta.elements();
    const kernels::ScanShape shape = {steps, size, params, constant_input};
    Tensor dx = compute.empty(x.shape(), x.dtype());
    Tensor sums = dtheta != nullptr ? compute.empty({params}, x.dtype()) : Tensor();
    on_floats(compute, "neuron", x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& neuron = compute.kernels<F>().neuron;
        compute.reserve(neuron.backward_scratch(shape, dtheta != nullptr, compute.queue.threads));
        neuron.backward(compute.queue, rule_in<F>(rule), theta.data<F>(), v0.data<F>(),
                        amplitude.data<F>(), amplitude_is_theta, v0_is_half_theta, x.data<F>(),
                        bits.data<uint64_t>(), dy.data<F>(), dx.data<F>(),
                        dtheta != nullptr ? sums.data<F>() : nullptr, shape);
    });
    if (dtheta != nullptr) {
        const size_t own = theta_shape.elements();  // v0 may have had more
        *dtheta = (own == params ? sums : ops::sum_rows(compute, sums.reshape({params / own, own})))
                      .reshape(theta_shape);
    }
    return dx;
}

Spikes neuron(Compute& compute, Tape* tape, const Neuron& node, const Var& theta, const Var& x,
              const Scan& scan) {
    const size_t T = scan.T;
    const Shape sample = folded_sample(x.value, scan.constant_input ? 1 : T);
    if (T == 0) fail("neuron", "no time steps");
    const bool record = recording(tape, {&x, &theta});
    const bool plain = node.rule.spiking == kernels::Spiking::plain;
    if (record && !plain) fail("neuron", "signed and exact neurons have no gradient");
    if (record && (scan.membrane != nullptr || !scan.values))
        fail("neuron", "a scan without values or with a membrane of the caller's has no gradient");
    if (scan.membrane != nullptr && node.rule.spiking == kernels::Spiking::exact)
        fail("neuron", "an exact neuron sees all steps at once: it has no membrane to keep");
    const NeuronScan kernel(compute, node, theta.value, sample, record && theta.tracked());

    const size_t N = scan.constant_input ? x.shape()[0] : x.shape()[0] / T;
    const size_t size = N * sample.elements();
    if (scan.membrane != nullptr) {
        Tensor& v = *scan.membrane;
        const Shape shape = sample.with_leading(N);
        if (!v.defined())
            v = cycled(compute, kernel.v0, size).clone().reshape(shape);
        else if (!(v.shape() == shape))
            fail("neuron", "membrane " + v.shape().str() + " for " + shape.str());
        else if (!v.exclusive())
            v = v.clone();
    }
    Tensor y = scan.values ? compute.empty(sample.with_leading(T * N), x.value.dtype()) : Tensor();
    Tensor bits = plain ? compute.empty(NeuronScan::packed_shape(T, size), DType::u64) : Tensor();
    kernel.forward(compute, x.value, T, scan.constant_input, scan.membrane,
                   scan.values ? &y : nullptr, plain ? &bits : nullptr);
    if (!record) return {std::move(y), std::move(bits)};
    Var out =
        tape->record(std::move(y), [kernel, x, theta = theta.place(), bits, T,
                                    constant = scan.constant_input](Tape& t, const Tensor& dy) {
            Tensor dtheta;
            Tensor dx = kernel.backward(t.compute(), x.value, bits, dy, T, constant,
                                        theta.tracked() ? &dtheta : nullptr);
            t.accumulate(x, std::move(dx));
            if (theta.tracked()) t.accumulate(theta, std::move(dtheta));
        });
    return {std::move(out), std::move(bits)};
}

}  // namespace nc::fn
