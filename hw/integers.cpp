// From a quantised Graph to populations and synapses, and how far their sums can reach.
#include "hw/integers.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace nc {
namespace {

constexpr int32_t most_weight = 127;

[[noreturn]] void refuse(const Graph& g, size_t node, const std::string& what) {
    throw Error("[integers] node '" + g.nodes[node].name + "' (" +
                    std::string(operation_name(g.nodes[node].op)) + "): " + what,
                ErrorKind::model);
}

// The tensor's values, all whole and within [low, high].
std::vector<int32_t> whole(const Graph& g, size_t node, const char* field, const Tensor& t,
                           int64_t low, int64_t high) {
    std::vector<int32_t> out;
    for (const float x : t.to_vector<float>()) {
        if (!(x == std::floor(x)) || double(x) < double(low) || double(x) > double(high))
            refuse(g, node,
                   std::string(field) + " holds " + std::to_string(x) +
                       ", which is no whole number from " + std::to_string(low) + " to " +
                       std::to_string(high));
        out.push_back(int32_t(x));
    }
    return out;
}

std::vector<int8_t> weights(const Graph& g, size_t node, const char* field, const Tensor& t) {
    const auto values = whole(g, node, field, t, -most_weight, most_weight);
    return std::vector<int8_t>(values.begin(), values.end());
}

// From one population back to those it hears.
class Lowering {
 public:
    explicit Lowering(const Graph& g) : g_(g), shapes_(infer_shapes(g)) {}

    IntegerNetwork run() {
        IntegerNetwork net;
        for (const size_t node : topological_order(g_)) {
            const Operation& op = g_.nodes[node].op;
            Population p;
            if (const auto* input = std::get_if<Input>(&op)) {
                if (!(input->scale > 0))
                    throw Error("[integers] the network is not quantised", ErrorKind::model,
                                "`nc_convert quantize` makes whole numbers of it");
                net.input_scale = input->scale;
                p.spiking = false;
            } else if (const auto* neuron = std::get_if<Neuron>(&op)) {
                spiking(node, *neuron, p);
            } else if (std::holds_alternative<Output>(op)) {
                p.spiking = false;
            } else {
                continue;
            }
            p.name = g_.nodes[node].name;
            p.shape = shapes_[node];
            p.bias.assign(p.channels(), 0);
            hear(node, 0, p);
            for (const Synapses& s : p.synapses)
                p.depth = std::max(p.depth, net.populations[s.from].depth + 1);
            place_[node] = net.populations.size();
            net.populations.push_back(std::move(p));
        }
        return net;
    }

 private:
    void spiking(size_t node, const Neuron& n, Population& p) const {
        const auto& r = n.rule;
        if (n.amplitude != Neuron::Amplitude::one)
            refuse(g_, node, "its amplitude is not folded into the weights after it");
        p.reset_to_zero = r.reset == kernels::Reset::to_value;
        if (r.spiking != kernels::Spiking::plain || (p.reset_to_zero && r.reset_value != 0) ||
            r.compare != kernels::Compare::greater_equal)
            refuse(g_, node,
                   "integer targets have plain neurons: >= and reset by subtraction or to zero");
        p.threshold = whole(g_, node, "theta", n.theta, 1, most_threshold);
        const double decay = (1 - r.beta) * 4096;
        if (!(decay == std::floor(decay)) || decay < 0 || decay > 4095)
            refuse(g_, node, "beta " + std::to_string(r.beta) + " is not (4096 - dv) / 4096");
        p.decay = int32_t(decay);
        const auto v0 = n.v0.defined() ? whole(g_, node, "v0", n.v0, 0, most_threshold)
                                       : std::vector<int32_t>();
        if (!n.v0.defined() && n.v0_fraction != 0)
            refuse(g_, node, "v(0) is no whole number: quantisation writes it down");
        p.half_start =
            !v0.empty() && std::any_of(v0.begin(), v0.end(), [](int32_t v) { return v > 0; });
        for (size_t i = 0; p.half_start && i < v0.size(); ++i)
            if (v0.size() != p.threshold.size() || v0[i] != p.threshold[i] >> 1)
                refuse(g_, node, "v(0) is neither 0 nor half the threshold");
    }

    // Adds to p what enters `node`, directly or through sums.
    void hear(size_t node, int delay, Population& p) {
        for (const size_t e : inputs_of(g_, node)) {
            const Edge& edge = g_.edges[e];
            const size_t from = edge.from;
            const int later = delay + edge.delay;
            const Operation& op = g_.nodes[from].op;
            if (std::holds_alternative<Add>(op)) {
                hear(from, later, p);
            } else if (const auto* linear = std::get_if<Linear>(&op)) {
                Synapses s;
                s.weight = weights(g_, from, "weight", linear->weight);
                add_bias(from, linear->bias, p);
                connect(from, later, s, p);
            } else if (const auto* conv = std::get_if<Conv>(&op)) {
                Synapses s;
                s.kind = Synapses::Kind::conv;
                s.weight = weights(g_, from, "weight", conv->weight);
                s.conv = ops::conv_shape(input_shape(from).with_leading(1), conv->weight.shape(),
                                         conv->options);
                add_bias(from, conv->bias, p);
                connect(from, later, s, p);
            } else if (const auto* scale = std::get_if<Scale>(&op); scale && !counts(from)) {
                Synapses s;
                s.kind = Synapses::Kind::diagonal;
                s.weight = weights(g_, from, "scale", scale->scale);
                if (s.weight.size() > p.channels())
                    refuse(g_, from, "it scales each element, not each channel");
                s.weight.resize(p.channels(), s.weight.front());
                connect(from, later, s, p);
            } else {  // no weights: the source's own spikes, or counts of them
                Synapses s;
                s.kind = Synapses::Kind::diagonal;
                s.weight.assign(p.channels(), 1);
                source(from, later, s, p);
            }
        }
    }

    void add_bias(size_t node, const Tensor& bias, Population& p) const {
        if (!bias.defined()) return;
        constexpr int64_t most = int64_t(1) << 24;
        const auto values = whole(g_, node, "bias", bias, -most, most);
        for (size_t c = 0; c < values.size(); ++c) p.bias[c] += values[c];
    }

    Shape input_shape(size_t node) const {
        return shapes_[g_.edges[inputs_of(g_, node).front()].from];
    }

    // Whether the node is the Scale that makes counts of an average.
    bool counts(size_t node) const {
        const auto* scale = std::get_if<Scale>(&g_.nodes[node].op);
        const auto in = inputs_of(g_, node);
        if (!scale || in.size() != 1) return false;
        const size_t pool = g_.edges[in.front()].from;
        const auto window = window_of(pool);
        if (window.kh == 0) return false;
        for (const float x : scale->scale.to_vector<float>())
            if (x != float(window.kh * window.kw)) return false;
        return true;
    }

    // The pool a node is, kh = 0 for another.
    kernels::PoolShape window_of(size_t node) const {
        if (const auto* pool = std::get_if<AveragePool>(&g_.nodes[node].op))
            return ops::pool_shape(input_shape(node).with_leading(1), pool->options);
        if (std::holds_alternative<GlobalAveragePool>(g_.nodes[node].op)) {
            const Shape x = input_shape(node);
            return {.n = 1,
                    .h = x[0],
                    .w = x[1],
                    .c = x[2],
                    .kh = x[0],
                    .kw = x[1],
                    .stride_h = x[0],
                    .stride_w = x[1]};
        }
        return {};
    }

    // All that enters a node with weights, each with those weights.
    void connect(size_t node, int delay, const Synapses& s, Population& p) {
        for (const size_t e : inputs_of(g_, node))
            source(g_.edges[e].from, delay + g_.edges[e].delay, s, p);
    }

    // Walks from weights back to the population they hear.
    void source(size_t node, int delay, Synapses s, Population& p) {
        if (const auto place = place_.find(node); place != place_.end()) {
            s.from = place->second;
            s.delay = delay;
            p.synapses.push_back(std::move(s));
            return;
        }
        const auto further = [&](size_t at, const Synapses& with) {
            for (const size_t e : inputs_of(g_, at))
                source(g_.edges[e].from, delay + g_.edges[e].delay, with, p);
        };
        const Operation& op = g_.nodes[node].op;
        if (std::holds_alternative<Flatten>(op) || std::holds_alternative<Add>(op)) {
            further(node, s);
        } else if (counts(node)) {
            if (s.pooled) refuse(g_, node, "pooling of a pool");
            const size_t pool = g_.edges[inputs_of(g_, node).front()].from;
            s.pooled = true;
            s.pool = window_of(pool);
            further(pool, s);
        } else if (std::holds_alternative<Neuron>(op)) {
            refuse(g_, node, "a layer before it hears it, and integer targets have no recurrence");
        } else {
            refuse(g_, node,
                   "it stands between a neuron and weights, where an integer target has "
                   "only pooling, flattening and sums");
        }
    }

    const Graph& g_;
    std::vector<Shape> shapes_;
    std::map<size_t, size_t> place_;  // population of a node
};

// By channel: the sums of the synapses' positive and of their negative weights, each times the
// largest value that may meet it. Over all pixels: padding only leaves terms out.
void add_reach(const Synapses& s, std::vector<int64_t>& up, std::vector<int64_t>& down) {
    const bool input = s.from == 0;
    const int64_t count = s.pooled ? int64_t(s.pool.kh * s.pool.kw) : 1;
    const int64_t high = input ? 127 * count : count, low = input ? -128 * count : 0;
    const size_t channels = up.size();
    for (size_t i = 0; i < s.weight.size(); ++i) {
        const int64_t w = s.weight[i];
        up[i % channels] += std::max(w * high, w * low);
        down[i % channels] += std::min(w * high, w * low);
    }
}

}  // namespace

IntegerNetwork integer_network(const Graph& g) {
    check(g);
    return Lowering(g).run();
}

std::vector<int16_t> input_events(const IntegerNetwork& net, const float* x, size_t n) {
    std::vector<int16_t> out(n);
    for (size_t i = 0; i < n; ++i) {
        // The float network computes the same: one product, clipped, rounded to even.
        const float scaled = x[i] * float(net.input_scale);
        out[i] = int16_t(std::nearbyint(std::clamp(scaled, -128.0f, 127.0f)));
    }
    return out;
}

void check_run(const char* target, const IntegerNetwork& net, size_t events, size_t N, int T,
               bool temporal) {
    const std::string op = std::string("[") + target + "] ";
    if (T < 1) throw Error(op + "T must be at least 1: " + std::to_string(T));
    if (events != N * net.populations[0].size() * size_t(temporal ? T : 1))
        throw Error(op + std::to_string(events) + " input events for " + std::to_string(N) +
                        " samples of " + net.populations[0].shape.str() +
                        (temporal ? " at " + std::to_string(T) + " steps" : ""),
                    ErrorKind::model);
}

std::vector<Reach> reach(const IntegerNetwork& net, int T) {
    std::vector<Reach> out(net.populations.size());
    for (size_t i = 0; i < net.populations.size(); ++i) {
        const Population& p = net.populations[i];
        if (p.synapses.empty()) continue;
        std::vector<int64_t> up(p.channels()), down(p.channels());
        for (size_t c = 0; c < p.channels(); ++c) (p.bias[c] > 0 ? up : down)[c] = p.bias[c];
        for (const Synapses& s : p.synapses) add_reach(s, up, down);
        int64_t start = 0;
        for (const int32_t theta : p.threshold) start = std::max<int64_t>(start, theta);
        for (size_t c = 0; c < p.channels(); ++c) {
            out[i].current = std::max({out[i].current, up[c], -down[c]});
            // Down: every step's most negative current. Up: currents that outrun one threshold a
            // step.
            out[i].membrane = std::max({out[i].membrane, -down[c] * T, start + up[c] * T});
        }
    }
    return out;
}

}  // namespace nc
