// Running a compiled network's stages: one thread's share of each.
#include "neurons/runtime_stages.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

namespace nc::plan {
namespace {

struct Range {
    size_t begin, end;
};

class Runner {
 public:
    Runner(const Plan& plan, const Place& place) : plan_(plan), place_(place), k_(*plan.kernels) {}

    void run(const MakeEvents& s) {
        const kernels::EventRows rows = rows_of(s.list);
        const Range r = share(place_.steps * rows.h);
        size_t& count = own().list_events[s.list];
        if (plan_.lists[s.list].repeats > 0)
            count = plan_.integers->list(at<uint64_t>(s.bits), *s.pool, spike_rows_of(s.list),
                                         r.begin, r.end);
        else if (s.bits == none)
            count = k_.graded(at(s.x), rows, r.begin, r.end);
        else if (s.pool)
            count = k_.pooled(at<uint64_t>(s.bits), *s.pool, rows, r.begin, r.end);
        else
            count = k_.events(at<uint64_t>(s.bits), rows, r.begin, r.end);
    }

    void run(const Expand& s) {
        const kernels::EventRows rows = rows_of(s.list);
        const Range r = share(place_.steps * rows.h);
        k_.expand(rows, at<float>(s.x), r.begin, r.end);
    }

    void run(const Layer& s) {
        bool dense = true;
        if (s.list != SIZE_MAX) {
            size_t events = 0;
            for (size_t i = 0; i < place_.threads; ++i)
                events += place_.counters[i].list_events[s.list];
            dense = s.path == RuntimePath::dense ||
                    (s.path == RuntimePath::automatic &&
                     double(events) > s.dense_above * double(place_.steps));
            if (place_.thread == 0) own().layer_events[s.number] += events;
        } else if (place_.thread == 0) {
            own().layer_events[s.number] +=
                (s.x.timed ? place_.steps : 1) * s.shape.h * s.shape.w * s.shape.cin;
        }
        if (place_.thread == 0) own().dense[s.number] = dense;
        if (s.integers)
            dense ? add_all_integers(s) : add_events<int32_t>(s);
        else
            dense ? add_all(s) : add_events<float>(s);
    }

    void run(const Neurons& s) {
        const Fire& f = s.fire;
        const Range pixels = share(f.pixels);
        const size_t step = f.x.timed ? f.pixels * f.channels : 0;
        const auto run_on = [&](const auto* x) {
            fire(f, {pixels, 0, f.channels}, x + pixels.begin * f.channels, f.channels, step);
        };
        f.integers ? run_on(at<int32_t>(f.x.buffer)) : run_on(at(f.x));
    }

    void run(const Sum& s) {
        if (place_.thread != 0) return;
        float* const out = at<float>(s.out);
        kernels::Queue queue;
        for (size_t t = 0; t < (s.timed ? place_.steps : 1); ++t) {
            float* const y = out + t * s.elements;
            const auto term = [&](size_t i) {
                return at(s.terms[i]) + (s.terms[i].timed ? t * s.elements : 0);
            };
            std::memcpy(y, term(0), s.elements * sizeof(float));
            for (size_t i = 1; i < s.terms.size(); ++i)
                plan_.table->elementwise.add(queue, y, term(i), y, s.elements);
        }
    }

    void run(const Convert& s) {
        if (place_.thread != 0) return;
        const size_t n = (s.in.timed ? place_.steps : 1) * s.elements;
        if (s.in.integers)
            std::copy_n(at<int32_t>(s.in.buffer), n, at<float>(s.out));
        else
            std::copy_n(at(s.in), n, at<int32_t>(s.out));
    }

    void run(const Map& s) {
        if (place_.thread != 0) return;
        const size_t steps = s.in.timed ? place_.steps : 1;
        std::visit([&](const auto& op) { map(op, s, at(s.in), at<float>(s.out), steps); }, s.op);
    }

    void run(const Result& s) {
        if (place_.thread != 0) return;
        std::memcpy(place_.result, at(s.x), place_.steps * s.elements * sizeof(float));
    }

 private:
    template <class T>
    T* at(Buffer b) const {
        return reinterpret_cast<T*>(place_.base + plan_.offsets[size_t(b)]);
    }
    const float* at(const Floats& x) const {
        return x.callers ? place_.input : at<float>(x.buffer);
    }
    Counters& own() const { return place_.counters[place_.thread]; }

    kernels::EventRows rows_of(size_t list) const {
        const EventList& l = plan_.lists[list];
        return {at<uint32_t>(l.start),
                at<uint32_t>(l.index),
                l.value != none ? at<float>(l.value) : nullptr,
                place_.steps,
                l.h,
                l.w,
                l.c};
    }

    kernels::SpikeRows spike_rows_of(size_t list) const {
        const EventList& l = plan_.lists[list];
        return {
            at<uint32_t>(l.start), at<uint32_t>(l.index), place_.steps, l.h, l.w, l.c, l.repeats};
    }

    // This thread's part of n things.
    Range share(size_t n) const {
        return {n * place_.thread / place_.threads, n * (place_.thread + 1) / place_.threads};
    }

    // ------------------------------------------------------------------------------------------
    // neurons
    struct Block {
        Range pixels;
        size_t first, channels;  // from a multiple of 64 on
    };
    template <class V>
    static const Parameters<V>& parameters(const Fire& f) {
        if constexpr (std::is_same_v<V, float>)
            return f.floats;
        else
            return f.whole;
    }
    size_t fire(const Fire& f, const kernels::Firing& firing) const {
        return k_.fire(f.rule, firing);
    }
    size_t fire(const Fire& f, const kernels::IntegerFiring& firing) const {
        return plan_.integers->fire(f.integer_rule, firing);
    }
    // x: of the first pixel and channel.
    template <class V>
    void fire(const Fire& f, const Block& b, const V* x, size_t x_pixel, size_t x_step) const {
        if (b.pixels.begin == b.pixels.end || b.channels == 0) return;
        const Parameters<V>& p0 = parameters<V>(f);
        const size_t words = (f.channels + 63) / 64, at_pixel = b.pixels.begin;
        V* const v = at<V>(f.v) + at_pixel * f.padded + b.first;
        if (place_.fresh) {
            const size_t width = std::min((b.channels + 15) / 16 * 16, f.padded - b.first);
            for (size_t p = at_pixel; p < b.pixels.end; ++p)
                std::memcpy(v + (p - at_pixel) * f.padded, p0.v0 + p * f.v0_pixel + b.first,
                            width * sizeof(V));
        }
        std::conditional_t<std::is_same_v<V, float>, kernels::Firing, kernels::IntegerFiring>
            firing = {};
        firing.pixels = b.pixels.end - at_pixel;
        firing.channels = b.channels;
        firing.steps = place_.steps;
        firing.x = x;
        firing.x_pixel = x_pixel;
        firing.x_step = x_step;
        if (f.term.defined()) {
            firing.term = at<V>(f.term.buffer) + at_pixel * f.channels + b.first;
            firing.term_pixel = f.channels;
            firing.term_step = f.term.timed ? f.pixels * f.channels : 0;
        }
        const size_t word = at_pixel * words + b.first / 64;
        if (f.gate != none) {
            firing.gate = at<uint64_t>(f.gate) + word;
            firing.gate_scale = p0.gate_scale + b.first;
        }
        firing.theta = p0.theta + at_pixel * f.theta_pixel + b.first;
        firing.theta_pixel = f.theta_pixel;
        firing.v = v;
        firing.v_pixel = f.padded;
        firing.bits = at<uint64_t>(f.bits) + word;
        firing.bits_pixel = words;
        firing.bits_step = f.pixels * words;
        own().spikes[f.number] += fire(f, firing);
    }

    // ------------------------------------------------------------------------------------------
    // weight layers
    // One panel's sums of output pixels [begin, end), a slab of its weights after the other.
    void add_panel(const Layer& s, const Panel& panel, float* sums, size_t begin,
                   size_t end) const {
        const kernels::EventRows rows = rows_of(s.list);
        const size_t slab = slab_rows(s);
        for (size_t from = 0; from < s.shape.kh; from += slab)
            k_.sums(rows, panel.w, panel.bias, panel.width, sums, s.shape, begin, end, from,
                    std::min(from + slab, s.shape.kh));
    }
    void add_panel(const Layer& s, const Panel& panel, int32_t* sums, size_t begin,
                   size_t end) const {
        const kernels::SpikeRows rows = spike_rows_of(s.list);
        const size_t slab = slab_rows(s);
        for (size_t from = 0; from < s.shape.kh; from += slab)
            plan_.integers->sums(rows, panel.integer_w, panel.integer_bias, panel.width, sums,
                                 s.shape, begin, end, from, std::min(from + slab, s.shape.kh));
    }

    template <class V>
    void add_events(const Layer& s) const {
        const size_t pixels = s.pixels(), steps = place_.steps;
        V* const sums =
            reinterpret_cast<V*>(at<char>(s.tiles) + place_.thread * tile_room(s, plan_.chunk));
        const size_t most = tile_pixels(s, steps);
        // Pixels of panel after panel, in one run.
        const Range mine = share(s.panels.size() * pixels);
        for (size_t unit = mine.begin; unit < mine.end;) {
            const Panel& panel = s.panels[unit / pixels];
            const size_t begin = unit % pixels;
            const size_t end = std::min({begin + most, pixels, begin + mine.end - unit});
            add_panel(s, panel, sums, begin, end);
            const size_t channels = std::min(panel.width, s.shape.cout - panel.first);
            if (s.fire)
                fire(*s.fire, {{begin, end}, panel.first, channels}, sums, panel.width,
                     (end - begin) * panel.width);
            else
                for (size_t p = begin; p < end; ++p)
                    for (size_t t = 0; t < steps; ++t)
                        std::memcpy(at<V>(s.out) + (t * pixels + p) * s.shape.cout + panel.first,
                                    sums + (t * (end - begin) + p - begin) * panel.width,
                                    channels * sizeof(V));
            unit += end - begin;
        }
    }

    void add_all(const Layer& s) const {
        const float* x = nullptr;
        if (s.list != SIZE_MAX) {
            const kernels::EventRows rows = rows_of(s.list);
            const Range r = share(place_.steps * rows.h);
            float* const expanded = at<float>(s.expanded);
            k_.expand(rows, expanded, r.begin, r.end);
            place_.meet();
            x = expanded;
        } else {
            x = at(s.x);
        }
        kernels::ConvShape shape = s.shape;
        shape.n = s.timed() ? place_.steps : 1;
        const size_t pixels = shape.n * s.pixels(), cout = shape.cout / shape.groups;
        float* const y = at<float>(s.fire ? s.sums : s.out);
        // Outputs are shared where there are too few pixels.
        if (pixels >= 12 * place_.threads) {
            const Range mine = share(pixels);
            k_.dense(x, s.w, s.bias, s.binary, y, shape, mine.begin, mine.end, 0, cout);
        } else {
            const Range blocks = share((cout + 15) / 16);
            k_.dense(x, s.w, s.bias, s.binary, y, shape, 0, pixels, blocks.begin * 16,
                     std::min(blocks.end * 16, cout));
        }
        if (!s.fire) return;
        place_.meet();
        const Range mine = share(s.pixels());
        fire(*s.fire, {mine, 0, shape.cout}, y + mine.begin * shape.cout, shape.cout,
             s.pixels() * shape.cout);
    }

    void add_all_integers(const Layer& s) const {
        const kernels::SpikeRows rows = spike_rows_of(s.list);
        const Range r = share(place_.steps * rows.h);
        plan_.integers->count(rows, at<uint8_t>(s.expanded), r.begin, r.end);
        place_.meet();
        kernels::ConvShape shape = s.shape;
        shape.n = place_.steps;
        const size_t pixels = shape.n * s.pixels(), width = s.width();
        int32_t* const y = at<int32_t>(s.sums);
        const bool by_pixels = pixels >= 12 * place_.threads;
        const Range outputs = by_pixels ? Range{0, width / 16} : share(width / 16);
        const Range mine = by_pixels ? share(pixels) : Range{0, pixels};
        plan_.integers->dense(at<uint8_t>(s.expanded), s.fours.w, s.fours.bias, s.fours.most, y,
                              shape, mine.begin, mine.end, outputs.begin * 16, outputs.end * 16);
        place_.meet();
        if (s.fire) {
            const Range own = share(s.pixels());
            fire(*s.fire, {own, 0, shape.cout}, y + own.begin * width, width, s.pixels() * width);
            return;
        }
        const Range copied = share(pixels);
        for (size_t p = copied.begin; p < copied.end; ++p)
            std::copy_n(y + p * width, shape.cout, at<int32_t>(s.out) + p * shape.cout);
    }

    // ------------------------------------------------------------------------------------------
    // floats
    void map(const Add&, const Map& s, const float* x, float* y, size_t steps) const {
        std::memcpy(y, x, steps * s.elements * sizeof(float));
    }
    // Signed 8-bit values: adding and taking away 1.5 * 2^23 rounds to even.
    void map(const Input& op, const Map& s, const float* x, float* y, size_t steps) const {
        constexpr float magic = 12582912;
        for (size_t i = 0; i < steps * s.elements; ++i) {
            const float scaled = x[i] * float(op.scale);
            const float clipped = scaled < -128 ? -128 : scaled > 127 ? 127 : scaled;
            const float shifted = clipped + magic;
            y[i] = shifted - magic;
        }
    }
    void map(const Activation& op, const Map& s, const float* x, float* y, size_t steps) const {
        kernels::Queue queue;
        plan_.table->elementwise.activate(queue, op.kind, float(op.param), x, y,
                                          steps * s.elements);
    }
    void map(const PRelu& op, const Map& s, const float* x, float* y, size_t steps) const {
        kernels::Queue queue;
        const size_t cols = op.slope.elements();
        plan_.table->elementwise.prelu(queue, x, op.slope.data<float>(), y,
                                       steps * s.elements / cols, cols);
    }
    void map(const Qcfs& op, const Map& s, const float* x, float* y, size_t steps) const {
        kernels::Queue queue;
        plan_.table->neuron.qcfs(queue, x, op.lambda.data<float>(), op.levels, y,
                                 steps * s.elements, op.lambda.elements());
    }
    void map(const Scale& op, const Map& s, const float* x, float* y, size_t steps) const {
        kernels::Queue queue;
        const size_t cols = op.scale.elements();
        plan_.table->elementwise.mul_row(queue, x, op.scale.data<float>(), y,
                                         steps * s.elements / cols, cols);
    }
    void map(const StepBias& op, const Map& s, const float* x, float* y, size_t) const {
        kernels::Queue queue;
        const size_t rows = op.bias.shape()[0], cols = op.bias.shape()[1];
        for (size_t t = 0; t < place_.steps; ++t)
            plan_.table->elementwise.add_row(
                queue, x + (s.in.timed ? t * s.elements : 0),
                op.bias.data<float>() + std::min(place_.first + t, rows - 1) * cols,
                y + t * s.elements, s.elements / cols, cols);
    }
    kernels::PoolShape pool_of(const Map& s, const ops::PoolOptions& options, size_t steps) const {
        return ops::pool_shape({steps, s.h, s.w, s.c}, options);
    }
    void map(const AveragePool& op, const Map& s, const float* x, float* y, size_t steps) const {
        kernels::Queue queue;
        plan_.table->pool.average(queue, x, y, pool_of(s, op.options, steps));
    }
    void map(const GlobalAveragePool&, const Map& s, const float* x, float* y, size_t steps) const {
        kernels::Queue queue;
        plan_.table->pool.average(
            queue, x, y, pool_of(s, {.kh = s.h, .kw = s.w, .stride_h = 1, .stride_w = 1}, steps));
    }
    void map(const MaxPool& op, const Map& s, const float* x, float* y, size_t steps) const {
        kernels::Queue queue;
        plan_.table->pool.max(queue, x, y, nullptr, pool_of(s, op.options, steps));
    }
    // These are stages of their own, or none; what the plan refuses is among them.
    void map(const Output&, const Map&, const float*, float*, size_t) const {}
    void map(const Linear&, const Map&, const float*, float*, size_t) const {}
    void map(const Conv&, const Map&, const float*, float*, size_t) const {}
    void map(const BatchNorm&, const Map&, const float*, float*, size_t) const {}
    void map(const Neuron&, const Map&, const float*, float*, size_t) const {}
    void map(const Flatten&, const Map&, const float*, float*, size_t) const {}
    void map(const Membrane&, const Map&, const float*, float*, size_t) const {}
    void map(const Threshold&, const Map&, const float*, float*, size_t) const {}

    const Plan& plan_;
    const Place& place_;
    const kernels::Stages& k_;
};

}  // namespace

void check_supported(const Graph& g) {
    std::string refused;
    const auto add = [&](const std::string& what) {
        refused += (refused.empty() ? "" : "; ") + what;
    };
    for (const Node& node : g.nodes)
        if (const auto* neuron = std::get_if<Neuron>(&node.op);
            neuron && neuron->rule.spiking != kernels::Spiking::plain)
            add("neuron '" + node.name + "' is " +
                (neuron->rule.spiking == kernels::Spiking::exact ? "exact" : "signed") +
                ", only plain neurons run here");
    for (const Node& node : g.nodes)
        if (std::holds_alternative<Membrane>(node.op) || std::holds_alternative<Threshold>(node.op))
            add("node '" + node.name + "' is a " + std::string(operation_name(node.op)));
    for (const Edge& e : g.edges)
        if (e.delay > 0)
            add("edge '" + g.nodes[e.from].name + "' -> '" + g.nodes[e.to].name +
                "' is delayed by " + std::to_string(e.delay));
    if (!is_spiking(g)) add("the network has no neuron");
    if (!refused.empty())
        throw Error("[runtime] " + refused, ErrorKind::model, "nc_convert eval runs such networks");
}

double dense_above(const kernels::StageCosts& costs, const kernels::ConvShape& s,
                   kernels::Adding adding) {
    constexpr size_t many = 1 << 20;
    const double dense = costs.dense(s, adding, 1, 0), sums = costs.sums(s, adding, 1, 0);
    const double dense_event = (costs.dense(s, adding, 1, many) - dense) / double(many);
    const double event = (costs.sums(s, adding, 1, many) - sums) / double(many);
    if (event > dense_event) return (dense - sums) / (event - dense_event);
    return dense < sums ? -1 : std::numeric_limits<double>::infinity();
}

size_t slab_rows(const Layer& layer) {
    const size_t row = layer.shape.kw * layer.shape.cin * layer.panels.front().width;
    const size_t weight = layer.integers ? sizeof(int16_t) : sizeof(float);
    return std::clamp<size_t>(slab_bytes / (row * weight), 1, layer.shape.kh);
}

size_t tile_room(const Layer& layer, size_t steps) {
    const size_t bytes = slab_rows(layer) == layer.shape.kh ? tile_bytes : long_tile_bytes;
    return std::max(bytes, steps * layer.panels.front().width * sizeof(float));
}

size_t tile_pixels(const Layer& layer, size_t steps) {
    const size_t sums = steps * layer.panels.front().width * sizeof(float);
    return std::clamp<size_t>(tile_room(layer, steps) / sums, 1, layer.pixels());
}

void run_stage(const Plan& plan, const Place& place, size_t stage) {
    Runner runner(plan, place);
    std::visit([&](const auto& s) { runner.run(s); }, plan.stages[stage]);
}

void run_stages(const Plan& plan, const Place& place, bool new_input) {
    for (size_t i = 0; i < plan.stages.size(); ++i) {
        if (plan.once[i] && !new_input) continue;
        run_stage(plan, place, i);
        place.meet();
    }
}

const Fire* neurons_of(const Stage& stage) {
    if (const auto* neurons = std::get_if<Neurons>(&stage)) return &neurons->fire;
    const auto* layer = std::get_if<Layer>(&stage);
    return layer != nullptr && layer->fire ? &*layer->fire : nullptr;
}

}  // namespace nc::plan
