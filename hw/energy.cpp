// Counts synaptic operations on data and prices them.
#include "hw/energy.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

namespace nc {

namespace {

[[noreturn]] void fail_energy(const std::string& what) {
    throw Error("[energy] " + what);
}

// For one axis: which outputs position `at` of the input reaches, one flag a kernel position.
std::vector<bool> reached(size_t at, size_t kernel, size_t stride, size_t pad, size_t dilation,
                          size_t outputs) {
    std::vector<bool> out(kernel);
    for (size_t k = 0; k < kernel; ++k) {
        if (at + pad < k * dilation) continue;
        const size_t from = at + pad - k * dilation;
        out[k] = from % stride == 0 && from / stride < outputs;
    }
    return out;
}

kernels::ConvShape conv_shape(const Conv& conv, const Shape& input) {
    return ops::conv_shape(input.with_leading(1), conv.weight.shape(), conv.options);
}

// Calls visit(pixel, tap) for every kernel position an input pixel takes part in.
template <class Visit>
void for_each_reached_tap(const kernels::ConvShape& s, Visit visit) {
    std::vector<std::vector<bool>> columns;
    for (size_t x = 0; x < s.w; ++x)
        columns.push_back(reached(x, s.kw, s.stride_w, s.pad_w, s.dilation_w, s.out_w()));
    for (size_t y = 0; y < s.h; ++y) {
        const auto rows = reached(y, s.kh, s.stride_h, s.pad_h, s.dilation_h, s.out_h());
        for (size_t x = 0; x < s.w; ++x)
            for (size_t ky = 0; ky < s.kh; ++ky)
                for (size_t kx = 0; kx < s.kw; ++kx)
                    if (rows[ky] && columns[x][kx]) visit(y * s.w + x, ky * s.kw + kx);
    }
}

std::vector<uint64_t> conv_fan_out(const Conv& conv, const Shape& input) {
    const auto s = conv_shape(conv, input);
    const size_t cin = s.cin / s.groups, cout = s.cout / s.groups;
    const float* w = conv.weight.data<float>();
    // Non-zero weights that leave each channel at each kernel position.
    std::vector<uint64_t> leaving(s.kh * s.kw * s.cin);
    for (size_t tap = 0; tap < s.kh * s.kw; ++tap)
        for (size_t c = 0; c < s.cin; ++c)
            for (size_t o = c / cin * cout; o < (c / cin + 1) * cout; ++o)
                leaving[tap * s.cin + c] += w[(tap * cin + c % cin) * s.cout + o] != 0;
    std::vector<uint64_t> out(s.h * s.w * s.cin);
    for_each_reached_tap(s, [&](size_t pixel, size_t tap) {
        for (size_t c = 0; c < s.cin; ++c) out[pixel * s.cin + c] += leaving[tap * s.cin + c];
    });
    return out;
}

// Every spike of a window counts for itself.
std::vector<uint64_t> pooled(const std::vector<uint64_t>& in, const Shape& input,
                             const ops::PoolOptions& options) {
    const auto s = ops::pool_shape(input.with_leading(1), options);
    std::vector<uint64_t> out(s.out_h() * s.out_w() * s.c);
    for (size_t oy = 0; oy < s.out_h(); ++oy)
        for (size_t ox = 0; ox < s.out_w(); ++ox)
            for (size_t ky = 0; ky < s.kh; ++ky)
                for (size_t kx = 0; kx < s.kw; ++kx) {
                    const size_t y = oy * s.stride_h + ky, x = ox * s.stride_w + kx;
                    if (y < s.pad_h || x < s.pad_w || y - s.pad_h >= s.h || x - s.pad_w >= s.w)
                        continue;
                    for (size_t c = 0; c < s.c; ++c)
                        out[(oy * s.out_w() + ox) * s.c + c] +=
                            in[((y - s.pad_h) * s.w + x - s.pad_w) * s.c + c];
                }
    return out;
}

std::vector<uint64_t> pooled_globally(const std::vector<uint64_t>& in, size_t channels) {
    std::vector<uint64_t> out(channels);
    for (size_t i = 0; i < in.size(); ++i) out[i % channels] += in[i];
    return out;
}

// What an edge carries: spikes, counted for each element, or analog values, or the sum of both.
struct Signal {
    std::optional<std::vector<uint64_t>> spikes;
    bool analog = false;
};

void add(Signal& sum, const Signal& other) {
    sum.analog = sum.analog || other.analog;
    if (!sum.spikes) {
        sum.spikes = other.spikes;
    } else if (other.spikes) {
        for (size_t i = 0; i < sum.spikes->size(); ++i) (*sum.spikes)[i] += (*other.spikes)[i];
    }
}

// The Scale by which a quantised network makes counts of averages: right after a pool, its window.
bool counts_of_pool(const Graph& g, const std::vector<Shape>& shapes, size_t node) {
    const auto* scale = std::get_if<Scale>(&g.nodes[node].op);
    const auto in = inputs_of(g, node);
    if (!scale || scale->scale.elements() != 1 || in.size() != 1) return false;
    const size_t before = g.edges[in.front()].from;
    size_t window = 0;
    if (const auto* pool = std::get_if<AveragePool>(&g.nodes[before].op)) {
        window = pool->options.kh * pool->options.kw;
    } else if (std::holds_alternative<GlobalAveragePool>(g.nodes[before].op)) {
        const Shape& x = shapes[g.edges[inputs_of(g, before).front()].from];
        window = x[0] * x[1];
    }
    return scale->scale.data<float>()[0] == float(window);
}

Json constant(const EnergyConstant& c) {
    return {{"picojoules", c.picojoules}, {"source", c.source}};
}

}  // namespace

uint64_t Operations::macs() const {
    uint64_t sum = 0;
    for (const auto& layer : layers) sum += layer.macs;
    return sum;
}

uint64_t Operations::acs() const {
    uint64_t sum = 0;
    for (const auto& layer : layers) sum += layer.acs;
    return sum;
}

uint64_t Operations::dense_macs() const {
    uint64_t sum = 0;
    for (const auto& layer : layers) sum += layer.dense_macs;
    return sum;
}

uint64_t dense_macs(const Node& node, const Shape& input) {
    if (const auto* linear = std::get_if<Linear>(&node.op)) return linear->weight.elements();
    const auto* conv = std::get_if<Conv>(&node.op);
    if (conv == nullptr) return 0;
    const auto s = conv_shape(*conv, input);
    uint64_t meetings = 0;
    for_each_reached_tap(s, [&](size_t, size_t) { ++meetings; });
    return meetings * s.cin * (s.cout / s.groups);
}

std::vector<uint64_t> fan_out(const Node& node, const Shape& input) {
    std::vector<uint64_t> out(input.elements());
    if (const auto* linear = std::get_if<Linear>(&node.op)) {
        const size_t outputs = linear->weight.shape().back();
        const float* w = linear->weight.data<float>();
        for (size_t i = 0; i < linear->weight.elements(); ++i) out.at(i / outputs) += w[i] != 0;
    } else if (const auto* conv = std::get_if<Conv>(&node.op)) {
        out = conv_fan_out(*conv, input);
    } else if (const auto* scale = std::get_if<Scale>(&node.op)) {
        const float* s = scale->scale.data<float>();
        for (size_t i = 0; i < out.size(); ++i) out[i] = s[i % scale->scale.elements()] != 0;
    } else if (emits_spikes(node.op)) {
        out.assign(out.size(), 1);
    }
    return out;
}

uint64_t accumulations(const Node& node, const Shape& input, const std::vector<uint64_t>& spikes) {
    const std::vector<uint64_t> fan = fan_out(node, input);
    if (fan.size() != spikes.size())
        fail_energy("node '" + node.name + "' takes " + std::to_string(fan.size()) +
                    " inputs, counted were " + std::to_string(spikes.size()));
    uint64_t sum = 0;
    for (size_t i = 0; i < fan.size(); ++i) sum += fan[i] * spikes[i];
    return sum;
}

OperationCounter::OperationCounter(const Graph& graph, size_t steps,
                                   const std::vector<size_t>& marks)
    : graph_(graph), shapes_(infer_shapes(graph)), limit_(steps), marks_(marks) {}

void OperationCounter::observe(const Observation& o) {
    const Operation& op = graph_.nodes.at(o.node).op;
    const size_t steps = limit_ == 0 ? o.T : std::min(limit_, o.T);
    timed_[o.node] = o.x_time;
    const bool input = std::holds_alternative<Input>(op);
    if (input) {
        samples_ += o.N;
        steps_ = steps;
        binary_input_ = binary_input_ && o.time;
        timed_[o.node] = o.time;
    }
    if (!input && !emits_spikes(op) && !std::holds_alternative<MaxPool>(op)) return;
    auto& counts = spikes_[o.node];
    const size_t size = shapes_[o.node].elements();
    counts.resize((marks_.size() + 1) * size);
    const Tensor here = o.y.to_host();
    const float* y = here.data<float>();
    for (size_t t = 0; t < (o.time ? steps : 1); ++t) {
        const auto part = std::upper_bound(marks_.begin(), marks_.end(), t) - marks_.begin();
        uint64_t* sums = counts.data() + size_t(part) * size;
        for (size_t n = 0; n < o.N; ++n)
            for (size_t i = 0; i < size; ++i, ++y) {
                sums[i] += *y != 0;
                if (input) binary_input_ = binary_input_ && (*y == 0 || std::abs(*y) == 1);
            }
    }
}

Operations OperationCounter::result(size_t steps) const {
    if (samples_ == 0) fail_energy("no samples were counted");
    const auto mark = std::find(marks_.begin(), marks_.end(), steps);
    if (steps != 0 && (mark == marks_.end() || steps > steps_))
        fail_energy("the first " + std::to_string(steps) +
                    " steps were not counted for themselves");
    const size_t parts = size_t(mark - marks_.begin()) + 1;
    Operations out;
    out.samples = samples_;
    out.steps = steps > 0 ? steps : steps_;
    const auto counted = [&](size_t node) {
        const auto found = spikes_.find(node);
        if (found == spikes_.end())
            fail_energy("node '" + graph_.nodes[node].name + "' was not observed");
        const size_t size = shapes_[node].elements();
        std::vector<uint64_t> sums(size);
        for (size_t i = 0; i < parts * size; ++i) sums[i % size] += found->second[i];
        return sums;
    };
    std::vector<Signal> given(graph_.nodes.size());
    for (const size_t n : topological_order(graph_)) {
        const Node& node = graph_.nodes[n];
        Signal x;
        Shape shape;
        for (const size_t e : inputs_of(graph_, n)) {
            const Edge& edge = graph_.edges[e];
            if (edge.delay > 0)
                fail_energy("node '" + node.name +
                            "' has a delayed edge: its spikes are not counted");
            shape = shapes_[edge.from];
            add(x, given[edge.from]);
        }
        const bool weights =
            std::holds_alternative<Linear>(node.op) || std::holds_alternative<Conv>(node.op);
        const bool neuron = emits_spikes(node.op);
        const bool counts = counts_of_pool(graph_, shapes_, n) && !x.analog;
        const bool diagonal = neuron || (std::holds_alternative<Scale>(node.op) && !counts);
        if (weights || (diagonal && x.spikes)) {
            LayerOperations layer;
            layer.name = node.name;
            layer.dense_macs = dense_macs(node, shape);
            layer.analog = weights && x.analog;
            layer.cached = layer.analog && !timed_.at(n);
            if (layer.analog)
                layer.macs = layer.dense_macs * samples_ * (timed_.at(n) ? out.steps : 1);
            else
                layer.acs = accumulations(node, shape, *x.spikes);
            out.layers.push_back(layer);
        }

        Signal& y = given[n];
        if (neuron || (std::holds_alternative<Input>(node.op) && binary_input_)) {
            y.spikes = counted(n);
        } else if (std::holds_alternative<MaxPool>(node.op) && !x.analog) {
            y.spikes = counted(n);
        } else if (std::holds_alternative<Flatten>(node.op) ||
                   std::holds_alternative<Add>(node.op) || counts) {
            y = x;
        } else if (const auto* pool = std::get_if<AveragePool>(&node.op)) {
            y.analog = x.analog;
            if (x.spikes) y.spikes = pooled(*x.spikes, shape, pool->options);
        } else if (std::holds_alternative<GlobalAveragePool>(node.op)) {
            y.analog = x.analog;
            if (x.spikes) y.spikes = pooled_globally(*x.spikes, shape.back());
        } else {
            y.analog = true;
        }
    }
    return out;
}

Energy energy(const Operations& operations, const Target& target, size_t frames) {
    if (operations.samples == 0) fail_energy("no samples were counted");
    Energy out;
    out.target = target;
    out.samples = operations.samples;
    out.steps = operations.steps;
    out.frames = double(frames);
    out.layers = operations.layers;
    const double samples = double(operations.samples);
    out.ann_macs = double(operations.dense_macs()) * double(frames);
    out.macs = double(operations.macs()) / samples;
    out.acs = double(operations.acs()) / samples;
    out.ann_picojoules = out.ann_macs * target.mac.picojoules;
    out.picojoules = out.macs * target.mac.picojoules + out.acs * target.ac.picojoules;
    out.saving = 100 * (1 - out.picojoules / out.ann_picojoules);
    out.wrong_saving = 100 * (1 - out.picojoules / (out.ann_picojoules + out.picojoules));
    return out;
}

Operations without_cache(Operations operations) {
    for (LayerOperations& layer : operations.layers)
        if (std::exchange(layer.cached, false)) layer.macs *= operations.steps;
    return operations;
}

double break_even_rate(const Energy& e) {
    const double left = e.ann_picojoules - e.macs * e.target.mac.picojoules;
    return std::max(0.0, left / (e.acs * e.target.ac.picojoules));
}

Json to_json(const Energy& e) {
    Json layers = Json::array();
    bool cached = false, repeated = false;
    for (const auto& layer : e.layers) {
        cached = cached || (layer.analog && layer.cached);
        repeated = repeated || (layer.analog && !layer.cached);
        layers.push_back({{"name", layer.name},
                          {"input", layer.analog ? "analog" : "spikes"},
                          {"macs_per_sample", double(layer.macs) / double(e.samples)},
                          {"acs_per_sample", double(layer.acs) / double(e.samples)},
                          {"dense_macs", layer.dense_macs}});
    }
    Json assumptions = Json::array(
        {"modelled: counted operations times constants; arithmetic only, no memory traffic",
         "the analog network is charged the dense MACs of " + std::to_string(uint64_t(e.frames)) +
             " forward(s) a sample",
         "a pooled spike is charged as accumulations, one for each spike and weight"});
    if (cached) assumptions.push_back("layers of constant analog input are computed once a sample");
    if (repeated) assumptions.push_back("layers of changing analog input are computed every step");
    return {{"label", "modelled"},
            {"target", e.target.name},
            {"mac", constant(e.target.mac)},
            {"ac", constant(e.target.ac)},
            {"samples", e.samples},
            {"T", e.steps},
            {"ann_macs_per_sample", e.ann_macs},
            {"snn_macs_per_sample", e.macs},
            {"snn_acs_per_sample", e.acs},
            {"ann_picojoules_per_sample", e.ann_picojoules},
            {"snn_picojoules_per_sample", e.picojoules},
            {"saving_percent", e.saving},
            {"wrong_formula",
             {{"formula", "1 - E_snn / (E_ann + E_snn)"},
              {"saving_percent", e.wrong_saving},
              {"label", "wrong: cannot be negative; some tools print it"}}},
            {"layers", layers},
            {"assumptions", assumptions}};
}

}  // namespace nc
