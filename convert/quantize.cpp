// Quantisation: the graph brought into the integer targets' form, one scale a channel, everything
// rounded.
#include "convert/quantize.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "convert/integer_form.h"
#include "engine/graph_edit.h"
#include "hw/integers.h"
#include "neurons/train.h"

namespace nc {
namespace {

constexpr double most_bias = 4090, whole_register = 131072;
constexpr double register_share =
    0.75;  // of it for what calibration sees: other samples may go further

// ----------------------------------------------------------------------------------------------
// groups that share scales

struct Feeding {
    size_t population = 0;
    std::vector<size_t> weights;   // nodes that feed it
    std::vector<bool> from_input;  // per node of weights: it reads the input, not spikes
};

bool reads_input(const Graph& g, size_t node) {
    for (const size_t e : inputs_of(g, node)) {
        const size_t from = g.edges[e].from;
        if (is<Input>(g, from)) return true;
        if (!is<Neuron>(g, from) && reads_input(g, from)) return true;
    }
    return false;
}

std::vector<Feeding> groups_of(const Graph& g) {
    std::vector<Feeding> out;
    std::vector<bool> taken(g.nodes.size());
    const auto gather = [&](auto self, size_t node, Feeding& group) -> void {
        for (const size_t e : inputs_of(g, node)) {
            const size_t from = g.edges[e].from;
            if (is<Add>(g, from)) {
                self(self, from, group);
            } else if (has_weights(g.nodes[from].op)) {
                if (taken[from]) refuse_to_quantize(g, from, "two populations share it");
                taken[from] = true;
                group.weights.push_back(from);
                group.from_input.push_back(reads_input(g, from));
            } else {
                refuse_to_quantize(g, from,
                                   "no weights between it and '" + g.nodes[node].name + "'");
            }
        }
    };
    for (const size_t node : topological_order(g)) {
        if (!is<Neuron>(g, node) && !is<Output>(g, node)) continue;
        Feeding group;
        group.population = node;
        gather(gather, node, group);
        out.push_back(std::move(group));
    }
    return out;
}

const Tensor& weight_of(const Operation& op) {
    if (const auto* linear = std::get_if<Linear>(&op)) return linear->weight;
    if (const auto* conv = std::get_if<Conv>(&op)) return conv->weight;
    return std::get<Scale>(op).scale;
}

Tensor bias_of(const Operation& op) {
    if (const auto* linear = std::get_if<Linear>(&op)) return linear->bias;
    if (const auto* conv = std::get_if<Conv>(&op)) return conv->bias;
    return {};
}

// The scale of one channel's weights: whole numbers up to `most`. Scales beyond the largest
// weight's clip a few weights and round all others finer; the least squared error wins.
double channel_scale(const std::vector<float>& w, size_t channel, size_t channels, double most,
                     bool search) {
    double largest = 0;
    for (size_t i = channel; i < w.size(); i += channels)
        largest = std::max(largest, std::abs(double(w[i])));
    if (largest == 0) return std::numeric_limits<double>::infinity();
    double best = most / largest, least = std::numeric_limits<double>::infinity();
    for (int step = 0; step < (search ? 13 : 1); ++step) {
        const double scale = most / (largest * (1 - 0.05 * step));
        double error = 0;
        for (size_t i = channel; i < w.size(); i += channels) {
            const double rounded = std::clamp(std::nearbyint(w[i] * scale), -most, most) / scale;
            error += (rounded - w[i]) * (rounded - w[i]);
        }
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    return best;
}

double most_of(int bits) {
    if (bits < 2 || bits > 8)
        throw Error("[quantize] weights have 2 to 8 bits, not " + std::to_string(bits),
                    ErrorKind::usage);
    return double((1 << (bits - 1)) - 1);
}

// ----------------------------------------------------------------------------------------------
// what calibration sees

struct Reached {
    double input = 0;           // largest magnitude of a sample's value
    bool whole = true;          // all values are whole
    std::vector<float> sample;  // some of its values
    std::map<size_t, std::vector<double>>
        reach,  // population: per channel the largest current or membrane
        mean;   // and its current's mean over samples, steps and positions
};

void follow(const Neuron& n, const Observation& o, std::vector<double>& most) {
    const size_t channels = o.x.shape().back(), size = o.y.elements() / o.T;
    const auto theta = n.theta.to_vector<float>();
    const auto v0 = n.v0.defined() ? n.v0.to_vector<float>() : std::vector<float>();
    const Tensor given = o.x.to_host(), spiked = o.y.to_host();
    const float* x = given.data<float>();
    const float* y = spiked.data<float>();
    const size_t sample = size / o.N;
    const bool subtract = n.rule.reset == kernels::Reset::subtract;
    for (size_t i = 0; i < size; ++i) {
        const size_t p = i % sample;
        const double th = theta[p % theta.size()];
        double v = v0.empty() ? n.v0_fraction * th : double(v0[p % v0.size()]);
        double& top = most[i % channels];
        for (size_t t = 0; t < o.T; ++t) {
            const double current = x[(o.x_time ? t * size : 0) + i];
            v = n.rule.beta * v + current;
            top = std::max({top, std::abs(v), std::abs(current)});
            if (y[t * size + i] != 0) v = subtract ? v - th : n.rule.reset_value;
        }
    }
}

void add_currents(const Observation& o, std::vector<double>& sums, double& rows) {
    const Tensor here = o.x.to_host();
    const float* x = here.data<float>();
    const size_t channels = o.x.shape().back();
    sums.resize(channels, 0);
    for (size_t i = 0; i < here.elements(); ++i) sums[i % channels] += double(x[i]);
    rows += double(here.elements() / channels);
}

Reached measure(Compute& compute, const Graph& g, const Dataset& calibration,
                const QuantizeOptions& options) {
    Reached range;
    std::map<size_t, double> rows;
    EvaluateOptions run;
    run.T = options.T;
    run.batch = 20;
    run.samples = std::min(options.calibration_samples, calibration.size());
    run.observe = [&](const Observation& o) {
        const Node& node = g.nodes[o.node];
        if (std::holds_alternative<Input>(node.op)) {
            const Tensor here = o.y.to_host();
            const float* x = here.data<float>();
            for (size_t i = 0; i < o.y.elements(); ++i) {
                range.input = std::max(range.input, std::abs(double(x[i])));
                range.whole = range.whole && x[i] == std::floor(x[i]);
                if (i % 7 == 0 && range.sample.size() < 100000) range.sample.push_back(x[i]);
            }
        } else if (const auto* neuron = std::get_if<Neuron>(&node.op)) {
            auto& most = range.reach[o.node];
            most.resize(o.x.shape().back(), 0);
            follow(*neuron, o, most);
            add_currents(o, range.mean[o.node], rows[o.node]);
        }
    };
    evaluate(compute, g, calibration, run);
    for (auto& [node, sums] : range.mean)
        for (double& sum : sums) sum /= rows[node];
    return range;
}

// ----------------------------------------------------------------------------------------------
// rounding

// t [.., channels] times each channel's scale, rounded, clipped to +-most.
Tensor rounded(const Tensor& t, const std::vector<double>& scale, double factor, double most) {
    std::vector<float> values = t.to_vector<float>();
    if (values.size() == 1 && scale.size() > 1) values.assign(scale.size(), values[0]);
    const Shape shape = t.elements() == values.size() ? t.shape() : Shape{values.size()};
    for (size_t i = 0; i < values.size(); ++i)
        values[i] = float(std::clamp(
            std::nearbyint(double(values[i]) * scale[i % scale.size()] * factor), -most, most));
    for (float& x : values) x += 0.0f;  // no -0
    return Tensor::from(values, shape);
}

// The largest scale of each channel of a population that everything respects.
std::vector<double> scales(const Graph& g, const Feeding& group, size_t channels,
                           const Reached& range, double input_scale, double most, bool search,
                           bool one_scale) {
    std::vector<double> scale(channels, std::numeric_limits<double>::infinity());
    const auto limit = [&](size_t c, double most_scale) {
        scale[c] = std::min(scale[c], most_scale);
    };
    // A register of 13 bits holds the sum of all branches' biases, each rounded.
    std::vector<double> biases(channels, 0);
    for (size_t k = 0; k < group.weights.size(); ++k) {
        const Operation& op = g.nodes[group.weights[k]].op;
        std::vector<float> w = weight_of(op).to_vector<float>();
        if (w.size() == 1) w.assign(channels, w[0]);
        const double unit = group.from_input[k] ? input_scale : 1;
        for (size_t c = 0; c < channels; ++c)
            limit(c, unit * channel_scale(w, c, channels, most, search));
        // The input's current takes its bias with it; others have a register.
        const Tensor bias = bias_of(op);
        if (!bias.defined() || group.from_input[k]) continue;
        const auto b = bias.to_vector<float>();
        for (size_t c = 0; c < channels; ++c) biases[c] += std::abs(double(b[c]));
    }
    for (size_t c = 0; c < channels; ++c)
        if (biases[c] != 0) limit(c, most_bias / biases[c]);
    const auto* neuron = std::get_if<Neuron>(&g.nodes[group.population].op);
    if (neuron) {
        const auto theta = neuron->theta.to_vector<float>();
        for (size_t i = 0; i < std::max(theta.size(), channels); ++i)
            limit(i % channels, most_threshold / double(theta[i % theta.size()]));
        const auto& seen = range.reach.at(group.population);
        for (size_t c = 0; c < channels; ++c)
            if (seen[c] > 0) limit(c, register_share * whole_register / seen[c]);
    }
    // Logits are compared with each other.
    if (!neuron || one_scale) scale.assign(channels, *std::min_element(scale.begin(), scale.end()));
    for (double& s : scale)
        if (!std::isfinite(s)) s = 1;  // nothing but zeros
    return scale;
}

// Events and weights of the first layer share the bits of its registers: the scale that errs least,
// both roundings taken together. Counts of events are whole already.
double choose_input_scale(const Graph& g, const std::vector<Feeding>& feedings,
                          const std::vector<Shape>& shapes, const Reached& range, double most,
                          const QuantizeOptions& options) {
    if (range.whole && range.input <= 127) return 1;
    double best = 127 / std::max(range.input, 1e-30),
           least = std::numeric_limits<double>::infinity();
    for (const double levels : {127.0, 90.0, 63.0, 45.0, 31.0, 22.0, 15.0}) {
        const double input_scale = levels / std::max(range.input, 1e-30);
        double error = 0, power = 0, rounding = 0, energy = 0;
        for (const float x : range.sample) {
            const double d = std::nearbyint(x * input_scale) / input_scale - x;
            rounding += d * d;
            energy += double(x) * x;
        }
        for (const Feeding& group : feedings)
            for (size_t k = 0; k < group.weights.size(); ++k) {
                if (!group.from_input[k]) continue;
                const size_t channels = shapes[group.population].back();
                const auto scale = scales(g, group, channels, range, input_scale, most,
                                          options.clip_search, options.one_threshold);
                const auto w = weight_of(g.nodes[group.weights[k]].op).to_vector<float>();
                for (size_t i = 0; i < w.size(); ++i) {
                    const double s = scale[i % channels] / input_scale;
                    const double d =
                        std::clamp(std::nearbyint(w[i] * s), -most, most) / s - double(w[i]);
                    error += d * d;
                    power += double(w[i]) * w[i];
                }
            }
        const double both = (power > 0 ? error / power : 0) + (energy > 0 ? rounding / energy : 0);
        if (both < least) {
            least = both;
            best = input_scale;
        }
    }
    return best;
}

// Where inputs are rounded, most of a background by the same amount, their errors do not cancel in
// a sum: the bias of what reads them takes back how far the mean current moved (Nagel et al.,
// 2019).
Graph with_mean_currents(Compute& compute, Graph g, const Reached& before,
                         const std::vector<Feeding>& feedings,
                         const std::map<size_t, std::vector<double>>& scale_of,
                         const Dataset& calibration, const QuantizeOptions& options) {
    const Reached after = measure(compute, g, calibration, options);
    for (const Feeding& group : feedings) {
        const auto scale = scale_of.find(group.population);
        if (scale == scale_of.end()) continue;
        for (size_t k = 0; k < group.weights.size(); ++k) {
            Operation op = g.nodes[group.weights[k]].op;
            auto* linear = std::get_if<Linear>(&op);
            auto* conv = std::get_if<Conv>(&op);
            if (!group.from_input[k] || (!linear && !conv)) continue;
            Tensor& bias = linear ? linear->bias : conv->bias;
            const auto& mean = before.mean.at(group.population);
            const auto& moved = after.mean.at(group.population);
            std::vector<float> b(mean.size(), 0);
            if (bias.defined()) b = bias.to_vector<float>();
            for (size_t c = 0; c < b.size(); ++c)
                b[c] += float(std::nearbyint(mean[c] * scale->second[c] - moved[c]));
            bias = Tensor::from(b, {b.size()});
            g = replace(std::move(g), group.weights[k], op);
            break;  // one branch takes it all
        }
    }
    return g;
}

}  // namespace

Quantized quantize(Compute& compute, const Graph& given, const Dataset& calibration,
                   const QuantizeOptions& options) {
    const double most = most_of(options.bits);
    for (size_t i = 0; i < given.nodes.size(); ++i) {
        if (const auto* input = std::get_if<Input>(&given.nodes[i].op); input && input->scale > 0)
            refuse_to_quantize(given, i, "the network is quantised already");
        if (is<BatchNorm>(given, i)) refuse_to_quantize(given, i, "fold BatchNorm first");
        if (is<Membrane>(given, i) || is<Threshold>(given, i))
            refuse_to_quantize(given, i, "it has no form in integers");
        if (const auto* neuron = std::get_if<Neuron>(&given.nodes[i].op);
            neuron && neuron->amplitude != Neuron::Amplitude::one)
            refuse_to_quantize(given, i, "fold the amplitudes first");
    }
    if (!is_spiking(given))
        throw Error("[quantize] the network has no neurons: convert it first", ErrorKind::model);
    Graph g = count_pools(give_weights(given));
    const std::vector<Shape> shapes = infer_shapes(g);
    const Reached range = measure(compute, g, calibration, options);
    const std::vector<Feeding> feedings = groups_of(g);
    const double input_scale = choose_input_scale(g, feedings, shapes, range, most, options);

    Quantized out;
    std::map<size_t, std::vector<double>> scale_of;  // populations of neurons
    for (const Feeding& group : feedings) {
        const Node population = g.nodes[group.population];  // g is replaced below
        const auto* neuron = std::get_if<Neuron>(&population.op);
        const size_t channels = shapes[group.population].back();
        const std::vector<double> scale = scales(g, group, channels, range, input_scale, most,
                                                 options.clip_search, options.one_threshold);
        if (neuron) scale_of[group.population] = scale;
        QuantizedLayer layer;
        layer.name = population.name;

        double error = 0, power = 0;
        for (size_t k = 0; k < group.weights.size(); ++k) {
            Operation op = g.nodes[group.weights[k]].op;
            const double factor = group.from_input[k] ? 1 / input_scale : 1;
            const auto round_weight = [&](Tensor& w) {
                const auto before = w.to_vector<float>();
                w = rounded(w, scale, factor, most);
                const auto after = w.to_vector<float>();
                for (size_t i = 0; i < after.size(); ++i) {
                    const double x = before[before.size() == 1 ? 0 : i];
                    const double d = double(after[i]) / (scale[i % channels] * factor) - x;
                    error += d * d;
                    power += x * x;
                }
            };
            const auto round_bias = [&](Tensor& b) {
                if (b.defined()) b = rounded(b, scale, 1, double(1 << 24));
            };
            if (auto* linear = std::get_if<Linear>(&op)) {
                round_weight(linear->weight);
                round_bias(linear->bias);
            } else if (auto* conv = std::get_if<Conv>(&op)) {
                round_weight(conv->weight);
                round_bias(conv->bias);
            } else {
                round_weight(std::get<Scale>(op).scale);
            }
            g = replace(std::move(g), group.weights[k], op);
        }
        layer.weight_error = power > 0 ? std::sqrt(error / power) : 0;
        layer.scale_min = *std::min_element(scale.begin(), scale.end());
        layer.scale_max = *std::max_element(scale.begin(), scale.end());
        if (neuron) {
            Neuron n = *neuron;
            const bool half = n.v0.defined() ? n.v0.to_vector<float>()[0] > 0 : n.v0_fraction > 0;
            n.theta = rounded(n.theta, scale, 1, most_threshold);
            std::vector<float> theta = n.theta.to_vector<float>(), v0;
            for (float& t : theta) {
                t = std::max(t, 1.0f);
                v0.push_back(half ? std::floor(t / 2) : 0);
            }
            n.theta = Tensor::from(theta, n.theta.shape());
            n.v0 = Tensor::from(v0, n.theta.shape());
            layer.threshold_min = int32_t(*std::min_element(theta.begin(), theta.end()));
            layer.threshold_max = int32_t(*std::max_element(theta.begin(), theta.end()));
            const auto& seen = range.reach.at(group.population);
            for (size_t c = 0; c < channels; ++c)
                layer.headroom = std::max(layer.headroom, seen[c] * scale[c] / whole_register);
            g = replace(std::move(g), group.population, n);
        }
        out.layers.push_back(layer);
    }
    for (size_t i = 0; i < g.nodes.size(); ++i)
        if (auto* input = std::get_if<Input>(&g.nodes[i].op)) input->scale = input_scale;
    if (!range.whole || input_scale != 1)
        g = with_mean_currents(compute, std::move(g), range, feedings, scale_of, calibration,
                               options);
    check(g);
    integer_network(g);  // refuses by name what no integer target takes
    out.graph = std::move(g);
    return out;
}

WeightRounding::WeightRounding(const Graph& g, int bits, bool clip_search)
    : bits_(bits), clip_search_(clip_search) {
    most_of(bits);
    for (const Feeding& group : groups_of(g)) {
        groups_.push_back({{}, std::holds_alternative<Output>(g.nodes[group.population].op)});
        for (const size_t node : group.weights)
            groups_.back().weights.push_back(
                g.nodes[node].name +
                (std::holds_alternative<Scale>(g.nodes[node].op) ? ".scale" : ".weight"));
    }
}

void WeightRounding::apply(std::map<std::string, Tensor>& tensors) const {
    const double most = most_of(bits_);
    for (const Group& group : groups_) {
        std::vector<double> scale;
        for (const std::string& name : group.weights) {
            const Tensor& w = tensors.at(name);
            const size_t channels = w.shape().back();
            scale.resize(std::max(scale.size(), channels), std::numeric_limits<double>::infinity());
            const auto values = w.to_vector<float>();
            for (size_t c = 0; c < channels; ++c)
                scale[c] =
                    std::min(scale[c], channel_scale(values, c, channels, most, clip_search_));
        }
        if (group.one_scale)
            scale.assign(scale.size(), *std::min_element(scale.begin(), scale.end()));
        for (double& s : scale)
            if (!std::isfinite(s)) s = 1;
        for (const std::string& name : group.weights) {
            Tensor& w = tensors.at(name);
            std::vector<float> values = rounded(w, scale, 1, most).to_vector<float>();
            for (size_t i = 0; i < values.size(); ++i)
                values[i] = float(double(values[i]) / scale[i % scale.size()]);
            w = Tensor::from(values,
                             values.size() == w.elements() ? w.shape() : Shape{values.size()});
        }
    }
}

Graph tune_rounded(Compute& compute, const Graph& given, const ModelInfo& info,
                   const Dataset& training, const QuantizeOptions& options, const TrainOptions& how,
                   TrainHooks hooks) {
    const Graph g = give_weights(given);
    const WeightRounding rounding(g, options.bits, options.clip_search);
    hooks.rounding = [&](std::map<std::string, Tensor>& tensors) { rounding.apply(tensors); };
    const Split split = validation_split(training.size(), how.seed);
    const auto fit = subset(training, split.train), held = subset(training, split.validation);
    return train(compute, g, info, *fit, held.get(), how, hooks).graph;
}

}  // namespace nc
