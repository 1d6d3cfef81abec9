// Lava's fixed-point models of one connection, and a network on the chip, in chip time.
#include "hw/loihi.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>

namespace nc {
namespace {

[[noreturn]] void fail_loihi(const std::string& what) {
    throw Error("[loihi] " + what, ErrorKind::model);
}

int64_t shifted(int64_t x, int by) {
    return by >= 0 ? x * (int64_t(1) << by) : x >> -by;
}

}  // namespace

std::vector<int32_t> stored_weights(const LavaDense& dense) {
    using Signs = LavaDense::Signs;
    Signs signs = dense.signs;
    if (signs == Signs::automatic) {
        const auto all = [&](auto good) {
            return std::all_of(dense.weight.begin(), dense.weight.end(), good);
        };
        signs = all([](int32_t w) { return w >= 0; })   ? Signs::excitatory
                : all([](int32_t w) { return w <= 0; }) ? Signs::inhibitory
                                                        : Signs::mixed;
    }
    const bool mixed = signs == Signs::mixed;
    const int32_t low = mixed ? -256 : signs == Signs::inhibitory ? -255 : 0;
    const int32_t high = signs == Signs::inhibitory ? 0 : 255;
    const int missing = 8 - dense.weight_bits + (mixed ? 1 : 0);
    std::vector<int32_t> out;
    for (const int32_t w : dense.weight) {
        const int32_t clipped = std::clamp(w, low, high);
        const int32_t magnitude = mixed ? clipped : std::abs(clipped);
        const int32_t kept = (magnitude >> missing) * (1 << missing);  // floor
        out.push_back(!mixed && clipped < 0 ? -kept : kept);
    }
    return out;
}

LavaTrace run_lava(Compute& compute, const LavaDense& dense, const LavaLif& lif,
                   const std::vector<int32_t>& spikes, size_t neurons, size_t inputs,
                   size_t steps) {
    if (dense.weight.size() != neurons * inputs || spikes.size() != steps * inputs)
        fail_loihi(std::to_string(dense.weight.size()) + " weights and " +
                   std::to_string(spikes.size()) + " inputs for " + std::to_string(neurons) +
                   " neurons, " + std::to_string(inputs) + " inputs and " + std::to_string(steps) +
                   " steps");
    if (dense.weight_bits < 1 || dense.weight_bits > 8)
        fail_loihi("a weight has 1 to 8 bits, not " + std::to_string(dense.weight_bits));
    for (const auto* state : {&lif.u, &lif.v})
        if (!state->empty() && state->size() != neurons)
            fail_loihi(std::to_string(state->size()) + " initial values for " +
                       std::to_string(neurons) + " neurons");
    const std::vector<int32_t> weight = stored_weights(dense);
    std::vector<int32_t> a(steps * neurons, 0);
    for (size_t t = 1; t < steps; ++t)  // a step of latency
        for (size_t n = 0; n < neurons; ++n) {
            int64_t sum = 0;
            for (size_t i = 0; i < inputs; ++i) {
                const int32_t payload = spikes[(t - 1) * inputs + i];
                const int32_t value = dense.message_bits > 0 ? payload : payload != 0;
                sum += int64_t(weight[n * inputs + i]) * value;
            }
            sum = shifted(sum, dense.weight_exp);
            if (std::abs(sum) >= int64_t(1) << 24)
                fail_loihi("a weighted sum of " + std::to_string(sum) + " does not fit 24 bits");
            a[t * neurons + n] = int32_t(sum);
        }
    const kernels::IntegerRule rule = {
        .du = lif.du, .dv = lif.dv, .compare = kernels::Compare::greater, .reset_to_zero = true};
    const std::vector<int32_t> threshold = {int32_t(shifted(lif.vth, 6))};
    const std::vector<int32_t> bias = {int32_t(shifted(lif.bias_mant, lif.bias_exp))};
    std::vector<int32_t> u = lif.u, v = lif.v;
    u.resize(neurons, 0);
    v.resize(neurons, 0);
    const size_t words = (neurons + 63) / 64;
    std::vector<uint64_t> bits(steps * words);
    uint64_t events[2] = {0, 0};
    LavaTrace out;
    out.u.resize(steps * neurons);
    out.v.resize(steps * neurons);
    compute.table->integer.scan(compute.queue, rule, threshold.data(), bias.data(), a.data(),
                                u.data(), v.data(), bits.data(), out.u.data(), out.v.data(), events,
                                {steps, neurons, 1});
    for (size_t t = 0; t < steps; ++t)
        for (size_t n = 0; n < neurons; ++n)
            out.s.push_back(uint8_t(bits[t * words + n / 64] >> n % 64 & 1));
    out.wraps = events[0];
    out.clips = events[1];
    return out;
}

namespace {

class Simulation {
 public:
    Simulation(Compute& compute, const IntegerNetwork& net, const std::vector<int16_t>& input,
               size_t N, int T, bool temporal, const ObserveIntegers& observe)
        : compute_(compute),
          net_(net),
          input_(input),
          N_(N),
          T_(T),
          temporal_(temporal),
          observe_(observe),
          states_(net.populations.size()) {
        check_run("loihi", net, input.size(), N, T, temporal);
        const std::vector<Reach> reaches = reach(net, 1);
        for (size_t i = 1; i < states_.size(); ++i)
            if (reaches[i].current > INT32_MAX)
                fail_loihi(net.populations[i].name + ": its weights can sum up to " +
                           std::to_string(reaches[i].current) + ", which leaves 32 bits");
        for (size_t i = 1; i < states_.size(); ++i) start(i);
    }

    LoihiRun run() {
        const int depth = net_.populations.back().depth;
        LoihiRun out;
        out.steps = T_ + depth;
        for (int k = 0; k < out.steps; ++k)
            // Deepest first: a layer hears what the one before it sent at the step before.
            for (size_t i = net_.populations.size(); i-- > 1;) {
                const int t = k - net_.populations[i].depth;
                if (t >= 0 && t < T_) step(i, t, out);
            }
        const State& readout = states_.back();
        out.logits = readout.sums;
        return out;
    }

 private:
    struct State {
        std::vector<int32_t> u, v, threshold, bias;
        std::vector<int32_t> a, part;             // this step's current
        std::vector<std::vector<int32_t>> input;  // by synapse: static input's, computed once
        std::vector<uint64_t> bits;               // this step's spikes, flat
        std::deque<std::vector<uint64_t>>
            sent;                   // the latest steps', [N * pixels, words of channels]
        int first_kept = 0;         // the step of sent.front()
        size_t keep = 1;            // how many steps someone may still ask for
        std::vector<int64_t> sums;  // readout
    };

    void start(size_t i) {
        const Population& p = net_.populations[i];
        State& s = states_[i];
        const size_t n = N_ * p.size();
        s.u.assign(n, 0);
        s.v.assign(n, 0);
        s.a.assign(n, 0);
        s.input.resize(p.synapses.size());
        for (const int32_t b : p.bias) {
            if (std::abs(int64_t(b)) >= int64_t(1) << 25)
                fail_loihi(p.name + ": a bias of " + std::to_string(b));
            s.bias.push_back(b * 64);
        }
        if (!p.spiking) {
            s.sums.assign(n, 0);
        } else {
            for (const int32_t theta : p.threshold) s.threshold.push_back(theta * 64);
            spread(p, s);
            s.bits.resize((n + 63) / 64);
            if (p.half_start)
                for (size_t j = 0; j < n; ++j)
                    s.v[j] = (p.threshold[j % p.size() % p.threshold.size()] >> 1) * 64;
        }
        for (const Synapses& syn : p.synapses) {
            // Its own step t hears the source's own step t - delay, whatever the depths.
            if (syn.from == 0) continue;
            State& source = states_[syn.from];
            const int ahead = p.depth - net_.populations[syn.from].depth + syn.delay;
            source.keep = std::max(source.keep, size_t(ahead) + 1);
        }
    }

    void step(size_t i, int t, LoihiRun& out) {
        const Population& p = net_.populations[i];
        State& s = states_[i];
        const size_t n = N_ * p.size();
        std::fill(s.a.begin(), s.a.end(), 0);
        for (size_t k = 0; k < p.synapses.size(); ++k) {
            const Synapses& syn = p.synapses[k];
            if (t < syn.delay) continue;
            if (syn.from == 0)
                from_input(p, s, s.input[k], syn, t - syn.delay);
            else
                from_spikes(p, s, syn, t - syn.delay);
        }
        uint32_t magnitudes = 0;
        for (const int32_t a : s.a) magnitudes |= uint32_t(a < 0 ? ~a : a);
        if (magnitudes >> 24 != 0) fail_loihi(p.name + ": a weighted sum does not fit 24 bits");
        out.neuron_steps += p.spiking ? n : 0;
        if (!p.spiking) {
            for (size_t j = 0; j < n; ++j) {
                s.sums[j] += s.a[j] + p.bias[j % p.channels()];
                s.v[j] = int32_t(s.sums[j]);
                if (observe_ && s.v[j] != s.sums[j])
                    fail_loihi(p.name + ": a sum of " + std::to_string(s.sums[j]) +
                               " leaves 32 bits");
                s.u[j] = s.a[j] * 64;
            }
        } else {
            const kernels::IntegerRule rule = {
                .du = 4095, .dv = p.decay, .reset_to_zero = p.reset_to_zero};
            uint64_t events[2] = {0, 0};
            compute_.table->integer.scan(compute_.queue, rule, s.threshold.data(), s.bias.data(),
                                         s.a.data(), s.u.data(), s.v.data(), s.bits.data(), nullptr,
                                         nullptr, events, {1, n, s.threshold.size()});
            out.wraps += events[0];
            out.clips += events[1];
            for (const uint64_t word : s.bits) out.spikes += uint64_t(std::popcount(word));
            send(p, s, t);
        }
        if (observe_)
            observe_({i, t, s.u.data(), s.v.data(), p.spiking ? s.bits.data() : nullptr, n});
    }

    // threshold and bias to the same length: parameters differ by channel, or by neuron.
    void spread(const Population& p, State& s) const {
        const size_t params = std::max(s.threshold.size(), s.bias.size());
        for (auto* v : {&s.threshold, &s.bias}) {
            const size_t own = v->size();
            if (own == params) continue;
            if (own == 0 || params % own != 0 || p.size() % params != 0)
                fail_loihi(p.name + ": " + std::to_string(own) + " parameters for " +
                           std::to_string(params));
            v->resize(params);
            for (size_t j = own; j < params; ++j) (*v)[j] = (*v)[j - own];
        }
    }

    // Flat bits to rows of channels, and what nobody can ask for any more goes.
    void send(const Population& p, State& s, int t) {
        const size_t channels = p.channels(), words = (channels + 63) / 64;
        std::vector<uint64_t> sent;
        const size_t pixels = N_ * p.size() / channels;
        if (channels % 64 == 0) {
            sent = s.bits;
        } else {
            sent.assign(pixels * words, 0);
            for (size_t w = 0; w < s.bits.size(); ++w)
                for (uint64_t left = s.bits[w]; left != 0; left &= left - 1) {
                    const size_t j = w * 64 + size_t(std::countr_zero(left));
                    const size_t c = j % channels;
                    sent[j / channels * words + c / 64] |= uint64_t(1) << c % 64;
                }
        }
        s.sent.push_back(std::move(sent));
        if (s.sent.size() > s.keep) {
            s.sent.pop_front();
            s.first_kept = t + 1 - int(s.keep);
        }
    }

    // The input current: of a static sample computed once and kept, the only multiplications there
    // are.
    void from_input(const Population& p, State& s, std::vector<int32_t>& current,
                    const Synapses& syn, int t) {
        const size_t frame = N_ * net_.populations[0].size();
        if (temporal_ || current.empty()) {
            const int16_t* x = input_.data() + (temporal_ ? size_t(t) * frame : 0);
            current.assign(N_ * p.size(), 0);
            std::vector<int16_t> pooled;
            if (syn.pooled) {
                pooled = sums(syn.pool, [&](size_t j) { return x[j]; });
                x = pooled.data();
            }
            graded(p, syn, x, current.data());
        }
        for (size_t j = 0; j < s.a.size(); ++j) s.a[j] += current[j];
    }

    // Sums over windows; value(j): element j of [N, h, w, c].
    template <class Value>
    std::vector<int16_t> sums(const kernels::PoolShape& pool, Value value) const {
        std::vector<int16_t> out;
        out.reserve(N_ * pool.out_h() * pool.out_w() * pool.c);
        for (size_t n = 0; n < N_; ++n)
            for (size_t oy = 0; oy < pool.out_h(); ++oy)
                for (size_t ox = 0; ox < pool.out_w(); ++ox)
                    for (size_t c = 0; c < pool.c; ++c) {
                        int sum = 0;
                        for (size_t ky = 0; ky < pool.kh; ++ky)
                            for (size_t kx = 0; kx < pool.kw; ++kx) {
                                const size_t y = oy * pool.stride_h + ky - pool.pad_h;
                                const size_t x = ox * pool.stride_w + kx - pool.pad_w;
                                if (y < pool.h && x < pool.w)
                                    sum += value(((n * pool.h + y) * pool.w + x) * pool.c + c);
                            }
                        out.push_back(int16_t(sum));
                    }
        return out;
    }

    // y = sums of graded events.
    void graded(const Population& p, const Synapses& syn, const int16_t* x, int32_t* y) {
        const auto& integer = compute_.table->integer;
        if (syn.kind == Synapses::Kind::conv) {
            kernels::ConvShape shape = syn.conv;
            shape.n = N_;
            integer.conv_graded(compute_.queue, x, syn.weight.data(), y, shape);
        } else if (syn.kind == Synapses::Kind::linear) {
            const size_t in = syn.weight.size() / p.channels();
            integer.linear_graded(compute_.queue, x, syn.weight.data(), y, N_, in, p.channels());
        } else {
            for (size_t j = 0; j < N_ * p.size(); ++j)
                y[j] = int32_t(x[j]) * syn.weight[j % p.channels()];
        }
    }

    void from_spikes(const Population& p, State& s, const Synapses& syn, int t) {
        const Population& source = net_.populations[syn.from];
        const State& from = states_[syn.from];
        const size_t channels = source.channels(), words = (channels + 63) / 64;
        const size_t at = size_t(t - from.first_kept);
        if (t < from.first_kept || at >= from.sent.size())
            fail_loihi(p.name + " asks for a step of " + source.name + " that is not there");
        const std::vector<uint64_t>& bits = from.sent[at];
        const auto bit = [&](size_t j) {
            return int(bits[j / channels * words + j % channels / 64] >> j % channels % 64 & 1);
        };
        const auto& integer = compute_.table->integer;
        s.part.resize(N_ * p.size());
        if (syn.pooled) {
            const std::vector<int16_t> x = sums(syn.pool, bit);
            graded(p, syn, x.data(), s.part.data());
        } else if (syn.kind == Synapses::Kind::conv && syn.conv.groups == 1) {
            kernels::ConvShape shape = syn.conv;
            shape.n = N_;
            integer.conv_event(compute_.queue, bits.data(), syn.weight.data(), s.part.data(),
                               shape);
        } else if (syn.kind == Synapses::Kind::linear) {
            integer.linear_event(compute_.queue, bits.data(), syn.weight.data(), s.part.data(), N_,
                                 source.size() / channels, channels, p.channels());
        } else {
            std::vector<int16_t> x(N_ * source.size());
            for (size_t j = 0; j < x.size(); ++j) x[j] = int16_t(bit(j));
            graded(p, syn, x.data(), s.part.data());
        }
        for (size_t j = 0; j < s.a.size(); ++j) s.a[j] += s.part[j];
    }

    Compute& compute_;
    const IntegerNetwork& net_;
    const std::vector<int16_t>& input_;
    const size_t N_;
    const int T_;
    const bool temporal_;
    const ObserveIntegers& observe_;
    std::vector<State> states_;
};

}  // namespace

LoihiRun run_loihi(Compute& compute, const IntegerNetwork& net, const std::vector<int16_t>& input,
                   size_t N, int T, bool temporal, const ObserveIntegers& observe) {
    if (!compute.on_host())
        fail_loihi("the simulator works on the cpu, not on " + compute.device.str());
    return Simulation(compute, net, input, N, T, temporal, observe).run();
}

}  // namespace nc
