// The inference runtime: samples through a compiled network, alone or as a team.
#include "neurons/runtime.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "neurons/runtime_stages.h"

namespace nc {
namespace {

using plan::Counters;
using plan::Place;
using plan::Plan;

[[noreturn]] void fail(const std::string& what) {
    throw Error("[runtime] " + what);
}

constexpr size_t exit_steps = 4;  // run at once where a run may end early

// One sample's data.
struct Workspace {
    explicit Workspace(const Plan& plan)
        : arena(plan.arena_bytes + 64, host_allocator()),
          frames(plan.chunk * plan.elements),
          counters(plan.threads, Counters(plan)),
          sums(plan.threads, std::vector<double>(plan.outputs)),
          recorded(plan.neurons) {
        std::memset(arena.data(), 0, arena.bytes());  // so that no page is met first while running
    }

    Storage arena;
    std::vector<float> frames;                 // [chunk, sample] where the caller's lie otherwise
    std::vector<float> history;                // [T, K]
    std::vector<char> scratch;                 // of the mean
    std::vector<Counters> counters;            // by thread
    std::vector<std::vector<double>> sums;     // by thread: of the outputs so far
    std::vector<std::vector<float>> recorded;  // by neuron: [T, pixels, channels]
};

// By how much the largest leads the next; a single output leads by itself.
double margin(const std::vector<double>& sums, size_t steps) {
    double first = -std::numeric_limits<double>::infinity(), second = first;
    for (const double x : sums) {
        if (x > first) {
            second = first;
            first = x;
        } else {
            second = std::max(second, x);
        }
    }
    return (first - second) / double(steps);
}

}  // namespace

struct Runtime::State {
    State(const Graph& graph, const RuntimeOptions& o)
        : options(o), plan(plan::compile(graph, o)), team(plan.threads) {
        reserve(std::max<size_t>(options.T, 1), 1);
    }

    void reserve(size_t T, size_t N) {
        const size_t wanted = N > 1 ? plan.threads : 1;
        while (workspaces.size() < wanted) workspaces.push_back(std::make_unique<Workspace>(plan));
        const size_t scratch = plan.table->reduce.sum_rows_scratch(T, plan.outputs) + 64;
        for (auto& w : workspaces) {
            if (w->history.size() < T * plan.outputs) w->history.resize(T * plan.outputs);
            if (w->scratch.size() < scratch) w->scratch.resize(scratch);
            if (!options.record) continue;
            for (const auto& stage : plan.stages)
                if (const plan::Fire* f = plan::neurons_of(stage))
                    w->recorded[f->number].resize(
                        std::max(w->recorded[f->number].size(), T * f->pixels * f->channels));
        }
    }

    void check_steps(size_t T) const {
        if (T > plan.most_steps)
            fail(std::to_string(T) + " steps, but membranes in integers hold " +
                 std::to_string(plan.most_steps) + " at most");
    }

    // Frames of `steps` steps from step t of sample n on, as the plan takes them; the caller's own
    // where they lie so, else copied by the first thread.
    const float* frames_of(Workspace& w, const Place& p, const float* x, bool temporal, size_t t,
                           size_t steps, size_t N, size_t n) const {
        const size_t size = plan.elements;
        if (!temporal && !plan.temporal) return x + n * size;
        if (temporal && (N == 1 || steps == 1)) return x + (t * N + n) * size;
        if (p.thread == 0 && (temporal || t == 0))
            for (size_t s = 0; s < steps; ++s)
                std::memcpy(w.frames.data() + s * size, x + (temporal ? (t + s) * N + n : n) * size,
                            size * sizeof(float));
        p.meet();
        return w.frames.data();
    }

    Place place_in(Workspace& w, size_t thread, bool together) {
        Place p;
        if (together && plan.threads > 1) {
            p.team = &team;
            p.thread = thread;
            p.threads = plan.threads;
        }
        p.base = static_cast<char*>(w.arena.data());
        p.counters = w.counters.data();
        return p;
    }

    // One sample; every thread of the place calls this. Returns the steps done.
    size_t run_sample(Workspace& w, Place p, const float* x, bool temporal, size_t T, size_t N,
                      size_t n) {
        size_t most = plan.chunk;
        if (options.exit_margin > 0) most = std::min(most, exit_steps);
        if (temporal && !plan.temporal) most = 1;
        std::vector<double>& sums = w.sums[p.thread];
        std::fill(sums.begin(), sums.end(), 0.0);
        for (size_t t = 0; t < T;) {
            const size_t chunks = (T - t + most - 1) / most;
            p.steps = (T - t + chunks - 1) / chunks;
            p.input = frames_of(w, p, x, temporal, t, p.steps, N, n);
            p.first = t;
            p.fresh = t == 0;
            p.result = w.history.data() + t * plan.outputs;
            plan::run_stages(plan, p, t == 0 || (temporal && !plan.temporal));
            if (options.record) record(w, p, t);
            if (options.exit_margin > 0)
                for (size_t s = 0; s < p.steps; ++s) {
                    for (size_t k = 0; k < plan.outputs; ++k)
                        sums[k] += double(p.result[s * plan.outputs + k]);
                    if (margin(sums, t + s + 1) >= options.exit_margin) return t + s + 1;
                }
            t += p.steps;
        }
        return T;
    }

    // Keeps the spikes of the steps just run, which are those from t on.
    void record(Workspace& w, const Place& p, size_t t) {
        kernels::Queue queue;
        for (const auto& stage : plan.stages) {
            const plan::Fire* f = p.thread == 0 ? plan::neurons_of(stage) : nullptr;
            if (f == nullptr) continue;
            const auto* bits =
                reinterpret_cast<const uint64_t*>(p.base + plan.offsets[size_t(f->bits)]);
            plan.table->spike.unpack(queue, bits, 1,
                                     w.recorded[f->number].data() + t * f->pixels * f->channels,
                                     p.steps * f->pixels, f->channels);
        }
        p.meet();
    }

    // Of the first `steps` outputs of a sample, as neurons/forward takes it.
    void mean(Workspace& w, size_t steps, float* logits) const {
        kernels::Queue queue;
        const auto address = reinterpret_cast<uintptr_t>(w.scratch.data());
        queue.scratch = w.scratch.data() + (64 - address % 64) % 64;
        queue.scratch_bytes = w.scratch.size() - 64;
        plan.table->reduce.sum_rows(queue, w.history.data(), logits, steps, plan.outputs);
        plan.table->elementwise.scale(queue, logits, float(1.0 / double(steps)), logits,
                                      plan.outputs);
    }

    void forget_counts() {
        for (auto& w : workspaces)
            for (Counters& c : w->counters) {
                std::fill(c.layer_events.begin(), c.layer_events.end(), size_t(0));
                std::fill(c.spikes.begin(), c.spikes.end(), size_t(0));
            }
        steps_run = samples_run = 0;
    }

    RuntimeOptions options;
    Plan plan;
    Team team;
    std::vector<std::unique_ptr<Workspace>> workspaces;
    size_t steps_run = 0, samples_run = 0;  // since forget_counts()
    size_t step_count = 0;                  // of the sample in progress
    size_t last_workspace = 0, last_steps = 0;
};

Runtime::Runtime(const Graph& graph, const RuntimeOptions& options)
    : state_(std::make_unique<State>(graph, options)) {}
Runtime::~Runtime() = default;
Runtime::Runtime(Runtime&&) noexcept = default;
Runtime& Runtime::operator=(Runtime&&) noexcept = default;

const Graph& Runtime::graph() const {
    return state_->plan.graph;
}
const Shape& Runtime::sample() const {
    return state_->plan.sample;
}
size_t Runtime::outputs() const {
    return state_->plan.outputs;
}
const kernels::Table<float>& Runtime::table() const {
    return *state_->plan.table;
}
size_t Runtime::memory_bytes() const {
    return state_->workspaces.size() * state_->plan.arena_bytes + state_->plan.constant_bytes;
}

bool Runtime::integers() const {
    return state_->plan.integers != nullptr;
}
size_t Runtime::most_steps() const {
    return state_->plan.most_steps;
}

void Runtime::reserve(size_t T, size_t N) {
    state_->reserve(T, N);
}

void Runtime::run(const float* x, bool temporal, size_t T, size_t N, float* logits, size_t* steps,
                  float* outputs) {
    State& s = *state_;
    if (T == 0 || N == 0)
        fail("nothing to run: T " + std::to_string(T) + ", " + std::to_string(N) + " samples");
    s.check_steps(T);
    s.reserve(T, N);
    s.forget_counts();
    s.step_count = 0;
    const size_t K = s.plan.outputs, threads = s.plan.threads;
    const auto finish = [&](Workspace& w, size_t n, size_t done) {
        s.mean(w, done, logits + n * K);
        if (steps != nullptr) steps[n] = done;
        if (n + 1 == N) s.last_steps = done;
        for (size_t t = 0; outputs != nullptr && t < done; ++t)
            std::memcpy(outputs + (t * N + n) * K, w.history.data() + t * K, K * sizeof(float));
    };
    // Whole rounds of samples, one a thread; then one after the other, all threads on each.
    const size_t apart = threads > 1 ? N / threads * threads : 0;
    if (apart > 0) {
        auto body = [&](size_t thread) {
            Workspace& w = *s.workspaces[thread];
            for (size_t n = thread; n < apart; n += threads)
                finish(w, n, s.run_sample(w, s.place_in(w, 0, false), x, temporal, T, N, n));
        };
        s.team.run(body);
    }
    for (size_t n = apart; n < N; ++n) {
        Workspace& w = *s.workspaces[0];
        auto body = [&](size_t thread) {
            const size_t done = s.run_sample(w, s.place_in(w, thread, true), x, temporal, T, N, n);
            if (thread == 0) finish(w, n, done);
        };
        s.team.run(body);
    }
    s.last_workspace = apart == N ? threads - 1 : 0;
    s.steps_run = T * N;
    s.samples_run = N;
}

void Runtime::step(const float* frame, float* output, float* mean) {
    State& s = *state_;
    Workspace& w = *s.workspaces[0];
    if (frame == nullptr && s.step_count == 0) fail("the first step of a sample needs a frame");
    s.check_steps(s.step_count + 1);
    if (frame != nullptr) std::memcpy(w.frames.data(), frame, s.plan.elements * sizeof(float));
    if (s.step_count == 0) {
        s.forget_counts();
        std::fill(w.sums[0].begin(), w.sums[0].end(), 0.0);
    }
    if (s.options.record) s.reserve(s.step_count + 1, 1);
    auto body = [&](size_t thread) {
        Place p = s.place_in(w, thread, true);
        p.steps = 1;
        p.input = w.frames.data();
        p.first = s.step_count;
        p.fresh = s.step_count == 0;
        p.result = w.history.data();
        plan::run_stages(s.plan, p, frame != nullptr);
        if (s.options.record) s.record(w, p, s.step_count);
    };
    s.team.run(body);
    ++s.step_count;
    s.steps_run = s.step_count;
    s.samples_run = 1;
    s.last_workspace = 0;
    s.last_steps = s.step_count;
    for (size_t k = 0; k < s.plan.outputs; ++k) {
        w.sums[0][k] += double(w.history[k]);
        if (output != nullptr) output[k] = w.history[k];
        if (mean != nullptr) mean[k] = float(w.sums[0][k] / double(s.step_count));
    }
}

size_t Runtime::steps_done() const {
    return state_->step_count;
}

void Runtime::reset() {
    state_->step_count = 0;
}

std::vector<LayerActivity> Runtime::activity() const {
    const State& s = *state_;
    std::vector<LayerActivity> out;
    for (const auto& stage : s.plan.stages) {
        const auto* layer = std::get_if<plan::Layer>(&stage);
        if (layer == nullptr) continue;
        const kernels::ConvShape& shape = layer->shape;
        const size_t image = shape.h * shape.w * shape.cin;
        const size_t times = layer->timed() ? s.steps_run : s.samples_run;
        LayerActivity a;
        a.name = layer->name;
        a.inputs = times * image;
        a.outputs = layer->fire ? s.steps_run * layer->fire->pixels * layer->fire->channels : 0;
        for (const auto& w : s.workspaces) {
            a.events += w->counters[0].layer_events[layer->number];
            a.dense = w->counters[0].dense[layer->number];
            for (const Counters& c : w->counters)
                a.spikes += layer->fire ? c.spikes[layer->fire->number] : 0;
        }
        const double taps = double(shape.kh * shape.kw * layer->pixels()) /
                            double(shape.h * shape.w) * double(shape.cout / shape.groups);
        a.graded = layer->list == SIZE_MAX || s.plan.lists[layer->list].value != plan::none;
        a.integers = layer->integers;
        a.multiplies = double(a.events) * taps;
        out.push_back(a);
    }
    return out;
}

size_t Runtime::spike_count() const {
    size_t count = 0;
    for (const auto& w : state_->workspaces)
        for (const Counters& c : w->counters)
            for (const size_t spikes : c.spikes) count += spikes;
    return count;
}

Tensor Runtime::spikes(const std::string& neuron) const {
    const State& s = *state_;
    if (!s.options.record) fail("spikes are kept with RuntimeOptions::record only");
    for (const auto& stage : s.plan.stages) {
        const plan::Fire* f = plan::neurons_of(stage);
        if (f == nullptr || f->name != neuron) continue;
        const auto shapes = infer_shapes(s.plan.graph);
        const Shape shape = shapes[find_node(s.plan.graph, neuron)].with_leading(s.last_steps);
        const auto& all = s.workspaces[s.last_workspace]->recorded[f->number];
        return Tensor::from(
            std::vector<float>(all.begin(), all.begin() + std::ptrdiff_t(shape.elements())), shape);
    }
    fail("no neuron is named '" + neuron + "'");
}

}  // namespace nc
