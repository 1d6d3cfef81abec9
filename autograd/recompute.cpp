// The block of recompute.h: forward in two passes over groups (statistics, then spikes), backward
// in two (sums of batch norm, then everything else), currents computed again in each.
#include "autograd/recompute.h"

#include <algorithm>
#include <utility>

#include "autograd/neuron_scan.h"
#include "engine/dispatch.h"

namespace nc::fn {
namespace {

// Which samples of how many steps: frame (t, n) of N samples is row t * N + n.
struct Group {
    size_t steps, samples, begin, end;
    size_t size() const { return end - begin; }
};

// The group's frames of all: [steps * size, ..].
Tensor gather(Compute& compute, const Tensor& all, const Group& g) {
    if (g.size() == g.samples) return all;
    const Shape sample = all.shape().without_leading();
    Tensor out = compute.empty(sample.with_leading(g.steps * g.size()), all.dtype());
    for (size_t t = 0; t < g.steps; ++t) {
        const Tensor from = all.slice(t * g.samples + g.begin, t * g.samples + g.end);
        out.slice(t * g.size(), (t + 1) * g.size()).assign(from);
    }
    return out;
}

void scatter(const Tensor& part, Tensor& all, const Group& g) {
    for (size_t t = 0; t < g.steps; ++t) {
        const Tensor from = part.slice(t * g.size(), (t + 1) * g.size());
        all.slice(t * g.samples + g.begin, t * g.samples + g.end).assign(from);
    }
}

// The floats of one group of packed spikes.
Tensor expand_group(Compute& compute, const PackedSpikes& p, size_t index, size_t size) {
    Tensor x = compute.empty(p.neurons.with_leading(p.T * size), p.amplitude.dtype());
    on_floats(compute, "expand", x.dtype(), [&](auto zero) {
        using F = decltype(zero);
        const auto& table = compute.kernels<F>();
        const size_t params = p.amplitude.elements();
        // One amplitude that is here needs no pass of its own.
        const bool one = params == 1 && compute.on_host();
        const F value = one ? *p.amplitude.data<F>() : F(1);
        table.spike.unpack(compute.queue, p.bits[index].data<uint64_t>(), value, x.data<F>(), p.T,
                           size * p.neurons.elements());
        if (!one && !p.unit)
            table.elementwise.mul_row(compute.queue, x.data<F>(), p.amplitude.data<F>(),
                                      x.data<F>(), x.elements() / params, params);
    });
    return p.pool ? ops::average_pool(compute, x, *p.pool) : x;
}

void add_to(Compute& compute, Tensor& sum, Tensor part) {
    if (sum.defined())
        ops::add_into(compute, sum, part);
    else
        sum = std::move(part);
}

// Mean and variance over the groups' rows from those of each group (Chan, Golub & LeVeque, 1983),
// in double.
class GroupedStatistics {
 public:
    void add(const ops::NormStatistics& part, size_t rows) {
        on_floats("batch_norm", part.mean.dtype(), [&](auto zero) {
            using F = decltype(zero);
            const auto mean = part.mean.to_vector<F>(), variance = part.variance.to_vector<F>();
            const size_t cols = mean.size();
            mean_.resize(cols);
            squares_.resize(cols);
            const double before = double(rows_), n = double(rows), total = before + n;
            for (size_t c = 0; c < cols; ++c) {
                const double delta = double(mean[c]) - mean_[c];
                mean_[c] += delta * n / total;
                squares_[c] += double(variance[c]) * n + delta * delta * before * n / total;
            }
        });
        rows_ += rows;
    }

    size_t rows() const { return rows_; }
    ops::NormStatistics total(Compute& compute, DType dtype) const {
        const Shape shape = {mean_.size()};
        ops::NormStatistics out;
        on_floats("batch_norm", dtype, [&](auto zero) {
            using F = decltype(zero);
            std::vector<F> mean(mean_.size()), variance(mean_.size());
            for (size_t c = 0; c < mean_.size(); ++c) {
                mean[c] = F(mean_[c]);
                variance[c] = F(squares_[c] / double(rows_));
            }
            out = {compute.from(mean, shape), compute.from(variance, shape)};
        });
        return out;
    }

 private:
    std::vector<double> mean_, squares_;
    size_t rows_ = 0;
};

// Everything a block needs to compute its currents again.
struct Replay {
    Block block;
    Var x;                // place of the input's gradient
    Tensor frames;        // analog input, or
    PackedSpikes spikes;  // the block before
    size_t T, N, samples;
    bool constant;
    NeuronScan scan;
    ops::NormStatistics used;  // by batch norm, if any
    std::vector<Tensor> bits;
    size_t total_rows = 0;  // that the statistics of the batch were taken over

    size_t groups() const { return (N + samples - 1) / samples; }
    Group group(size_t index) const {
        return {T, N, index * samples, std::min(N, (index + 1) * samples)};
    }
    // The layer's input, [T * size, ..] or, when constant, [size, ..].
    Tensor input(Compute& compute, size_t index) const {
        const Group g = group(index);
        if (!frames.defined()) return expand_group(compute, spikes, index, g.size());
        return constant ? frames.slice(g.begin, g.end) : gather(compute, frames, g);
    }
    Tensor currents(Compute& compute, const Tensor& x) const {
        if (block.conv)
            return ops::conv(compute, x, block.weight.value, block.bias.value, *block.conv);
        return ops::matmul(compute, flat(x), block.weight.value, false, false, block.bias.value);
    }
    static Tensor flat(const Tensor& x) {
        return x.reshape({x.shape()[0], x.shape().without_leading().elements()});
    }
    Tensor normalised(Compute& compute, const Tensor& z) const {
        if (!block.norm) return z;
        return ops::normalise(compute, z, used, block.norm->gamma.value, block.norm->beta.value,
                              block.norm->eps);
    }
    bool batch_statistics() const { return block.norm && block.norm->training; }

    // dL/d(what the neuron takes), from the block's whole dy. u is given up as soon as it was used.
    Tensor neuron_gradient(Compute& compute, Tensor u, size_t index, const Tensor& dy,
                           Tensor* dtheta) const {
        const Group g = group(index);
        Tensor ds = gather(compute, dy, g);
        if (block.pool) {
            const Shape sample = u.shape().without_leading();
            ds = ops::average_pool_backward(compute, sample.with_leading(T * g.size()), ds,
                                            *block.pool);
        }
        return scan.backward(compute, u, bits[index], ds, T, constant, dtheta);
    }

    void forward(Compute& compute);
    void backward(Tape& tape, const Tensor& dy) const;

    // One group again: its input, currents, the gradient at the neuron and at theta.
    struct Step {
        Tensor in, z, du, dtheta;
    };
    Step step(Compute& compute, size_t index, const Tensor& dy) const;
};

void Replay::forward(Compute& compute) {
    Tensor last;  // the last group's currents serve both passes
    if (batch_statistics()) {
        GroupedStatistics statistics;
        for (size_t i = 0; i < groups(); ++i) {
            Tensor z = currents(compute, input(compute, i));
            statistics.add(ops::norm_statistics(compute, z), rows_of(z));
            if (i + 1 == groups()) last = std::move(z);
        }
        used = statistics.total(compute, block.weight.value.dtype());
        total_rows = statistics.rows();
        if (block.norm->batch != nullptr)
            *block.norm->batch = {used.mean, used.variance, total_rows};
    }
    bits.resize(groups());
    for (size_t i = groups(); i-- > 0;) {
        Tensor z = std::exchange(last, Tensor());
        if (!z.defined()) z = currents(compute, input(compute, i));
        const Tensor u = normalised(compute, z);
        const size_t size = constant ? u.elements() : u.elements() / T;
        bits[i] = compute.empty(NeuronScan::packed_shape(T, size), DType::u64);
        scan.forward(compute, u, T, constant, nullptr, nullptr, &bits[i]);
    }
}

Replay::Step Replay::step(Compute& compute, size_t index, const Tensor& dy) const {
    Step out;
    out.in = input(compute, index);
    out.z = currents(compute, out.in);
    out.du = neuron_gradient(compute, normalised(compute, out.z), index, dy,
                             block.theta.tracked() ? &out.dtheta : nullptr);
    return out;
}

void Replay::backward(Tape& tape, const Tensor& dy) const {
    Compute& c = tape.compute();
    ops::NormSums sums;
    const auto add_sums = [&](const Step& s) {
        ops::NormSums part = ops::norm_backward_sums(c, s.z, s.du, used, block.norm->gamma.value,
                                                     block.norm->beta.value, block.norm->eps);
        add_to(c, sums.dgamma, std::move(part.dgamma));
        add_to(c, sums.dbeta, std::move(part.dbeta));
    };
    // Through batch statistics every row's gradient needs the sums over all rows first.
    Step last;
    if (batch_statistics())
        for (size_t i = 0; i < groups(); ++i) {
            Step s = step(c, i, dy);
            add_sums(s);
            if (i + 1 == groups()) last = std::move(s);
        }

    Tensor dx, dweight, dbias, dtheta;
    if (x.tracked()) dx = c.empty(frames.defined() ? frames.shape() : spikes.shape, dy.dtype());
    for (size_t i = groups(); i-- > 0;) {
        Step s = std::exchange(last, Step());
        if (!s.z.defined()) s = step(c, i, dy);
        if (s.dtheta.defined()) add_to(c, dtheta, std::move(s.dtheta));
        if (block.norm && !batch_statistics()) add_sums(s);
        Tensor dz = std::move(s.du);
        if (block.norm)
            dz =
                ops::norm_backward_input(c, s.z, dz, used, block.norm->gamma.value,
                                         block.norm->beta.value, block.norm->eps, sums, total_rows);
        s.z = Tensor();
        if (block.bias.tracked()) add_to(c, dbias, ops::sum_rows(c, dz));
        if (block.weight.tracked())
            add_to(c, dweight,
                   block.conv
                       ? ops::conv_backward_weight(c, s.in, block.weight.shape(), dz, *block.conv)
                       : ops::matmul(c, flat(s.in), dz, true, false));
        if (!x.tracked()) continue;
        Group g = group(i);
        if (constant) g.steps = 1;
        scatter(block.conv
                    ? ops::conv_backward_input(c, s.in.shape(), block.weight.value, dz, *block.conv)
                    : ops::matmul(c, dz, block.weight.value, false, true).reshape(s.in.shape()),
                dx, g);
    }
    if (x.tracked()) tape.accumulate(x, std::move(dx));
    if (block.weight.tracked()) tape.accumulate(block.weight, std::move(dweight));
    if (block.bias.tracked()) tape.accumulate(block.bias, std::move(dbias));
    if (block.theta.tracked()) tape.accumulate(block.theta, std::move(dtheta));
    if (!block.norm) return;
    tape.accumulate(block.norm->gamma, std::move(sums.dgamma));
    tape.accumulate(block.norm->beta, std::move(sums.dbeta));
}

// The shape of one sample of the layer's output, its sizes checked.
Shape layer_output(const Block& block, const Shape& in) {
    if (block.conv) {
        const kernels::ConvShape s =
            ops::conv_shape(in.with_leading(1), block.weight.shape(), *block.conv);
        return {s.out_h(), s.out_w(), s.cout};
    }
    check_rank("recompute_block", block.weight.value, 2);
    if (block.weight.shape()[0] != in.elements())
        fail("recompute_block",
             "sizes differ: samples " + in.str() + ", weight " + block.weight.shape().str());
    return {block.weight.shape()[1]};
}

PackedSpikes run(Compute& compute, Tape* tape, const Var& x, const PackedSpikes& spikes, size_t T,
                 size_t N, size_t samples, bool constant, const Shape& in, const Block& block) {
    if (block.neuron.rule.spiking != kernels::Spiking::plain)
        fail("recompute_block", "signed and exact neurons have no gradient");
    const Shape neurons = layer_output(block, in);
    const Block::Norm none;
    const Block::Norm& norm = block.norm ? *block.norm : none;
    const bool record =
        recording(tape, {&x, &block.weight, &block.bias, &block.theta, &norm.gamma, &norm.beta});
    Replay replay{.block = block,
                  .x = x.place(),
                  .frames = x.value,
                  .spikes = spikes,
                  .T = T,
                  .N = N,
                  .samples = samples,
                  .constant = constant,
                  .scan = NeuronScan(compute, block.neuron, block.theta.value, neurons,
                                     record && block.theta.tracked()),
                  .used = {norm.mean, norm.variance},
                  .bits = {},
                  .total_rows = 0};
    replay.forward(compute);

    PackedSpikes out{.y = {},
                     .shape = neurons.with_leading(T * N),
                     .T = T,
                     .bits = replay.bits,
                     .samples = samples,
                     .neurons = neurons,
                     .amplitude = replay.scan.amplitude,
                     .unit = !replay.scan.amplitude_is_theta,
                     .pool = block.pool};
    if (block.pool) {
        const kernels::PoolShape s = ops::pool_shape(out.shape, *block.pool);
        out.shape = {s.n, s.out_h(), s.out_w(), s.c};
    }
    if (record)
        out.y = tape->record(out.shape, [replay = std::move(replay)](Tape& t, const Tensor& dy) {
            replay.backward(t, dy);
        });
    return out;
}

}  // namespace

PackedSpikes recompute_block(Compute& compute, Tape* tape, const Var& x, size_t T,
                             bool constant_input, const Block& block) {
    if (!x.value.defined() || x.shape().rank() < 2 || T == 0 || x.shape().elements() == 0 ||
        (!constant_input && x.shape()[0] % T != 0))
        fail("recompute_block",
             "input " + shape_text(x.value) + " is not [T * N, ..] with T " + std::to_string(T));
    const size_t N = constant_input ? x.shape()[0] : x.shape()[0] / T;
    const size_t samples = std::clamp<size_t>(N * block.steps / T, 1, N);
    return run(compute, tape, x, {}, T, N, samples, constant_input, x.shape().without_leading(),
               block);
}

PackedSpikes recompute_block(Compute& compute, Tape* tape, const PackedSpikes& x,
                             const Block& block) {
    return run(compute, tape, x.y, x, x.T, x.shape[0] / x.T, x.samples, false,
               x.shape.without_leading(), block);
}

Var expand(Compute& compute, Tape* tape, const PackedSpikes& p) {
    const size_t N = p.shape[0] / p.T;
    Tensor y = compute.empty(p.shape, p.amplitude.dtype());
    for (size_t i = 0; i < p.bits.size(); ++i) {
        const Group g = {p.T, N, i * p.samples, std::min(N, (i + 1) * p.samples)};
        scatter(expand_group(compute, p, i, g.size()), y, g);
    }
    if (!recording(tape, {&p.y})) return y;
    return tape->record(std::move(y),
                        [y = p.y](Tape& t, const Tensor& dy) { t.accumulate(y, dy); });
}

}  // namespace nc::fn
