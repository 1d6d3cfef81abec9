// Recognising networks that are whole, and how far their sums reach.
#include "neurons/runtime_integers.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nc::plan {
namespace {

constexpr double most_current = 1 << 24, most_threshold = 131071, most_weight = 127;
constexpr double most_input = 128, register_limit = 2147483647.0;

class Examination {
 public:
    explicit Examination(const Graph& g) : g_(g), shapes_(infer_shapes(g)) {}

    std::optional<WholeNetwork> run() {
        out_.counts.resize(g_.nodes.size());
        out_.native.resize(g_.nodes.size());
        out_.most_steps = std::numeric_limits<size_t>::max();
        reach_.resize(g_.nodes.size());
        for (size_t i = 0; i < g_.nodes.size(); ++i) out_.counts[i] = makes_counts(i);
        for (const size_t node : topological_order(g_))
            if (!std::visit([&](const auto& op) { return whole(op, node); }, g_.nodes[node].op) ||
                !(reach_[node] < most_current))
                return std::nullopt;
        return out_;
    }

 private:
    size_t only_source(size_t node) const {
        const auto in = inputs_of(g_, node);
        return in.size() == 1 ? g_.edges[in.front()].from : SIZE_MAX;
    }
    // The largest magnitude that the sum of a node's edges takes.
    double given(size_t node) const {
        double sum = 0;
        for (const size_t e : inputs_of(g_, node)) sum += reach_[g_.edges[e].from];
        return sum;
    }
    static bool all_whole(const Tensor& t, double low, double high) {
        for (const float x : t.to_vector<float>())
            if (!(x == std::floor(x)) || double(x) < low || double(x) > high) return false;
        return true;
    }

    // Values under a pool's window, 0 for another node.
    size_t window(size_t node) const {
        if (const auto* pool = std::get_if<AveragePool>(&g_.nodes[node].op))
            return pool->options.kh * pool->options.kw;
        if (!std::holds_alternative<GlobalAveragePool>(g_.nodes[node].op)) return 0;
        const Shape& s = shapes_[only_source(node)];
        return s[0] * s[1];
    }
    bool makes_counts(size_t node) const {
        const auto* scale = std::get_if<Scale>(&g_.nodes[node].op);
        const size_t pool = scale != nullptr ? only_source(node) : SIZE_MAX;
        const size_t size = pool != SIZE_MAX ? window(pool) : 0;
        if (size == 0) return false;
        const auto values = scale->scale.to_vector<float>();
        return std::all_of(values.begin(), values.end(), [&](float x) { return x == float(size); });
    }

    // A pool of spikes, of which only counts are made, exactly.
    bool pool(size_t node) {
        const size_t source = only_source(node), size = window(node);
        if (source == SIZE_MAX || !std::holds_alternative<Neuron>(g_.nodes[source].op))
            return false;
        for (const size_t e : outputs_of(g_, node))
            if (!out_.counts[g_.edges[e].to]) return false;
        const float share = 1.0f / float(size);
        for (size_t n = 0; n <= size; ++n)
            if (float(n) * share * float(size) != float(n)) return false;
        reach_[node] = 1;
        return true;
    }

    template <class Op>
    bool weights(const Op& op, size_t node) {
        if (!all_whole(op.weight, -most_weight, most_weight)) return false;
        if (op.bias.defined() && !all_whole(op.bias, -most_current, most_current)) return false;
        const size_t channels = op.weight.shape().back();
        const auto w = op.weight.template to_vector<float>();
        std::vector<double> sums(channels);
        for (size_t i = 0; i < w.size(); ++i)
            sums[i % channels] += std::abs(double(w[i])) * given(node);
        if (op.bias.defined()) {
            const auto bias = op.bias.template to_vector<float>();
            for (size_t c = 0; c < channels; ++c) sums[c] += std::abs(double(bias[c]));
        }
        reach_[node] = *std::max_element(sums.begin(), sums.end());
        out_.native[node] = meets_spikes(node);
        return true;
    }
    bool meets_spikes(size_t node) const {
        if (const auto* conv = std::get_if<Conv>(&g_.nodes[node].op);
            conv != nullptr && conv->options.groups > 1)
            return false;
        for (size_t at = only_source(node); at != SIZE_MAX; at = only_source(at)) {
            const Operation& op = g_.nodes[at].op;
            if (std::holds_alternative<Neuron>(op)) return true;
            if (!std::holds_alternative<Flatten>(op) && !out_.counts[at] && window(at) == 0)
                return false;
        }
        return false;
    }

    bool whole(const Input& op, size_t node) {
        reach_[node] = most_input;
        return op.scale > 0;
    }
    bool whole(const Output&, size_t node) { return pass(node); }
    bool whole(const Flatten&, size_t node) { return pass(node); }
    bool whole(const Add&, size_t node) { return pass(node); }
    bool pass(size_t node) {
        reach_[node] = given(node);
        return true;
    }
    bool whole(const Linear& op, size_t node) { return weights(op, node); }
    bool whole(const Conv& op, size_t node) { return weights(op, node); }
    bool whole(const Scale& op, size_t node) {
        const size_t source = out_.counts[node] ? only_source(node) : SIZE_MAX;
        reach_[node] = source != SIZE_MAX ? double(window(source)) : most_weight * given(node);
        return source != SIZE_MAX || all_whole(op.scale, -most_weight, most_weight);
    }
    bool whole(const AveragePool&, size_t node) { return pool(node); }
    bool whole(const GlobalAveragePool&, size_t node) { return pool(node); }

    bool whole(const Neuron& n, size_t node) {
        const auto& r = n.rule;
        const double decay = (1 - r.beta) * 4096;
        const bool to_zero = r.reset == kernels::Reset::to_value && r.reset_value == 0;
        if (n.amplitude != Neuron::Amplitude::one || r.spiking != kernels::Spiking::plain ||
            r.compare != kernels::Compare::greater_equal ||
            (r.reset != kernels::Reset::subtract && !to_zero) || decay != std::floor(decay) ||
            decay < 0 || decay > 4095)
            return false;
        if (!all_whole(n.theta, 1, most_threshold)) return false;
        if (n.v0.defined() ? !all_whole(n.v0, 0, most_threshold) : n.v0_fraction != 0) return false;
        // A step adds at most this; what leaks has a limit, what does not has a last step.
        const double current = std::max(given(node), 1.0), start = most_threshold;
        if (decay > 0) {
            const double limit = 64 * (start + current * 4096 / decay);
            if (limit > register_limit) return false;
        } else {
            out_.most_steps = std::min(out_.most_steps, size_t((register_limit - start) / current));
        }
        reach_[node] = 1;
        return current < most_current;
    }

    // What hardware has no place for.
    bool whole(const BatchNorm&, size_t) { return false; }
    bool whole(const Activation&, size_t) { return false; }
    bool whole(const PRelu&, size_t) { return false; }
    bool whole(const Qcfs&, size_t) { return false; }
    bool whole(const MaxPool&, size_t) { return false; }
    bool whole(const StepBias&, size_t) { return false; }
    bool whole(const Membrane&, size_t) { return false; }
    bool whole(const Threshold&, size_t) { return false; }

    const Graph& g_;
    std::vector<Shape> shapes_;
    WholeNetwork out_;
    std::vector<double> reach_;  // by node: the largest magnitude of what it gives
};

}  // namespace

std::optional<WholeNetwork> whole_network(const Graph& g) {
    return Examination(g).run();
}

int32_t decay_of(const Neuron& n) {
    return int32_t((1 - n.rule.beta) * 4096);
}

}  // namespace nc::plan
