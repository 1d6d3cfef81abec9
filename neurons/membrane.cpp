// A Membrane's steps, each a handful of elementwise kernels.
#include "neurons/membrane.h"

#include "autograd/functions.h"
#include "autograd/neuron_scan.h"

namespace nc {
namespace {

// A parameter for every element of a sample: [size].
Tensor each(Compute& compute, const char* field, const Tensor& t, const Shape& sample) {
    const size_t n = t.elements(), size = sample.elements();
    if (n != 1 && n != sample.back() && n != size)
        throw Error("[membrane] " + std::string(field) + " " + t.shape().str() + " for samples " +
                    sample.str());
    return fn::cycled(compute, t, size);
}

// dt / tau, rounded once.
Tensor rate(Compute& compute, double dt, const Tensor& tau) {
    std::vector<float> values = tau.to_vector<float>();
    for (float& value : values) value = float(dt / double(value));
    return Tensor::from(values, Shape{values.size()}).to(*compute.allocator);
}

// A membrane's parameters, one a neuron, and its step; v, i and x are [N, size].
class Stepper {
 public:
    Stepper(Compute& compute, const Membrane& m, const Shape& sample) : compute_(compute) {
        const auto bring = [&](const char* field, const Tensor& t) {
            return t.defined() ? each(compute, field, t, sample) : Tensor();
        };
        r_ = bring("r", m.r);
        v_leak_ = bring("v_leak", m.v_leak);
        w_in_ = bring("w_in", m.w_in);
        threshold_ = bring("threshold", m.threshold);
        v_reset_ = bring("v_reset", m.v_reset);
        if (m.tau.defined()) rate_ = bring("tau", rate(compute, m.dt, m.tau));
        if (m.tau_syn.defined()) syn_rate_ = bring("tau_syn", rate(compute, m.dt, m.tau_syn));
        if (m.threshold.defined()) compare_ = comparison(threshold_);
    }

    // Changes v and i; returns what is emitted.
    Tensor step(const Tensor& x, Tensor& v, Tensor& i) {
        Tensor current = x;
        if (syn_rate_.defined()) {
            const Tensor towards = ops::sub(compute_, ops::mul_row(compute_, x, w_in_), i);
            i = ops::add(compute_, i, ops::mul_row(compute_, towards, syn_rate_));
            current = i;
        }
        Tensor drive = ops::mul_row(compute_, current, r_);
        if (rate_.defined()) {
            const Tensor leak = ops::add_row(compute_, ops::scale(compute_, v, -1), v_leak_);
            drive = ops::mul_row(compute_, ops::add(compute_, leak, drive), rate_);
        }
        v = ops::add(compute_, v, drive);
        if (!threshold_.defined()) return v;
        fn::Scan scan;
        const Tensor s = fn::neuron(compute_, nullptr, compare_, threshold_, v, scan).y.value;
        // v where there was no spike, the reset value where there was: s is 0 or 1.
        v = ops::add(compute_, ops::sub(compute_, v, ops::mul(compute_, v, s)),
                     ops::mul_row(compute_, s, v_reset_));
        return s;
    }

 private:
    Compute& compute_;
    Tensor r_, v_leak_, w_in_, threshold_, v_reset_, rate_, syn_rate_;  // [size]
    Neuron compare_;
};

}  // namespace

Neuron comparison(const Tensor& threshold) {
    Neuron out;
    out.theta = threshold;
    out.v0_fraction = 0;
    out.amplitude = Neuron::Amplitude::one;
    out.rule.beta = 0;
    out.rule.compare = kernels::Compare::greater;
    return out;
}

Tensor run_membrane(Compute& compute, const Membrane& membrane, const Tensor& x, size_t T,
                    bool constant_input, Tensor* kept) {
    const size_t rows = x.shape()[0];
    if (T == 0 || x.shape().rank() < 2 || (!constant_input && rows % T != 0))
        throw Error("[membrane] input " + x.shape().str() + " is not [T * N, ..] with T " +
                    std::to_string(T));
    const size_t N = constant_input ? rows : rows / T;
    const Shape sample = x.shape().without_leading();
    const size_t size = sample.elements();
    Tensor state = kept != nullptr ? *kept : Tensor();
    if (!state.defined())
        state = compute.zeros({2, N, size});
    else if (!(state.shape() == Shape{2, N, size}))
        throw Error("[membrane] state " + state.shape().str() + " for " + Shape{2, N, size}.str());
    Stepper stepper(compute, membrane, sample);
    Tensor v = state.slice(0, 1).reshape({N, size}), i = state.slice(1, 2).reshape({N, size});
    const Tensor flat = x.reshape({rows, size});
    Tensor y = compute.empty({T * N, size});
    for (size_t t = 0; t < T; ++t) {
        const Tensor now = constant_input ? flat : flat.slice(t * N, (t + 1) * N);
        y.slice(t * N, (t + 1) * N).assign(stepper.step(now, v, i));
    }
    if (kept != nullptr) {
        *kept = compute.empty({2, N, size});
        kept->slice(0, 1).assign(v.reshape({1, N, size}));
        kept->slice(1, 2).assign(i.reshape({1, N, size}));
    }
    return y.reshape(sample.with_leading(T * N));
}

}  // namespace nc
