// Running a compiled analog network: every thread does its share of each stage, then all meet.
#include "neurons/analog.h"

#include <algorithm>
#include <cstring>

#include "neurons/analog_plan.h"
#include "neurons/team.h"

namespace nc {
namespace {

using namespace analog;

// One thread's view of a run of n samples, at most the batch.
struct Place {
    char* base;  // of the arena
    const float* x;
    size_t n, thread, threads;

    float* at(const Plan& plan, Buffer b) const {
        return reinterpret_cast<float*>(base + plan.offsets[size_t(b)]);
    }
    const float* read(const Plan& plan, Buffer b) const {
        if (b == callers) return x;
        return b == none ? nullptr : at(plan, b);
    }
    // This thread's share of [0, size), in whole grains.
    std::pair<size_t, size_t> share(size_t size, size_t grain = 1) const {
        const size_t grains = (size + grain - 1) / grain;
        return {std::min(size, grains * thread / threads * grain),
                std::min(size, grains * (thread + 1) / threads * grain)};
    }
};

void run_stage(const Plan& plan, const Place& p, const WeightLayer& layer) {
    kernels::ConvShape shape = layer.shape;
    shape.n = p.n;
    const kernels::ConvEnd end = {
        .bias = layer.bias, .add = p.read(plan, layer.add), .relu = layer.relu};
    char* scratch = p.base + plan.offsets[size_t(layer.scratch)] + p.thread * layer.scratch_bytes;
    plan.kernels->conv(layer.method, p.read(plan, layer.x), layer.packed, end,
                       p.at(plan, layer.out), shape, scratch, p.thread, p.threads);
}

void run_stage(const Plan& plan, const Place& p, const Addition& stage) {
    kernels::Queue queue;
    const auto [begin, end] = p.share(p.n * stage.elements, 16);
    float* out = p.at(plan, stage.out) + begin;
    const float* sum = p.read(plan, stage.terms[0]) + begin;
    for (size_t i = 1; i < stage.terms.size(); ++i) {
        plan.table->elementwise.add(queue, sum, p.read(plan, stage.terms[i]) + begin, out,
                                    end - begin);
        sum = out;
    }
}

// Output rows without padding are windows of a part of an image; else whole images are shared out.
void run_pool(const Plan& plan, const Place& p, const Pointwise& stage) {
    kernels::Queue queue;
    const kernels::PoolShape& shape = *stage.pool;
    const bool by_rows = shape.pad_h == 0;
    const size_t oh = shape.out_h(), in_row = shape.w * shape.c;
    const size_t in_image = shape.h * in_row, out_row = shape.out_w() * shape.c;
    const auto [begin, end] = p.share(p.n * oh, by_rows ? 1 : oh);
    for (size_t at = begin; at < end;) {  // rows of one image
        const size_t image = at / oh, row = at % oh, count = std::min(oh - row, end - at);
        kernels::PoolShape part = shape;
        part.n = 1;
        if (by_rows) part.h = (count - 1) * shape.stride_h + shape.kh;
        const float* x = p.read(plan, stage.x) + image * in_image + row * shape.stride_h * in_row;
        float* y = p.at(plan, stage.out) + at * out_row;
        if (std::holds_alternative<MaxPool>(stage.op))
            plan.table->pool.max(queue, x, y, nullptr, part);
        else
            plan.table->pool.average(queue, x, y, part);
        at += count;
    }
}

void run_stage(const Plan& plan, const Place& p, const Pointwise& stage) {
    if (stage.pool) return run_pool(plan, p, stage);
    kernels::Queue queue;
    // Parameters are per channel, per sample or one: rows of them are shared out.
    const size_t total = p.n * stage.elements;
    const auto shared = [&](size_t grain, const auto& body) {
        const auto [begin, end] = p.share(total, grain);
        body(p.read(plan, stage.x) + begin, p.at(plan, stage.out) + begin, end - begin);
    };
    if (const auto* activation = std::get_if<Activation>(&stage.op)) {
        shared(16, [&](const float* x, float* y, size_t n) {
            plan.table->elementwise.activate(queue, activation->kind, float(activation->param), x,
                                             y, n);
        });
    } else if (const auto* prelu = std::get_if<PRelu>(&stage.op)) {
        const size_t cols = prelu->slope.elements();
        shared(cols, [&](const float* x, float* y, size_t n) {
            plan.table->elementwise.prelu(queue, x, prelu->slope.data<float>(), y, n / cols, cols);
        });
    } else if (const auto* qcfs = std::get_if<Qcfs>(&stage.op)) {
        const size_t params = qcfs->lambda.elements();
        shared(params, [&](const float* x, float* y, size_t n) {
            plan.table->neuron.qcfs(queue, x, qcfs->lambda.data<float>(), qcfs->levels, y, n,
                                    params);
        });
    } else if (const auto* scale = std::get_if<Scale>(&stage.op)) {
        const size_t cols = scale->scale.elements();
        shared(cols, [&](const float* x, float* y, size_t n) {
            plan.table->elementwise.mul_row(queue, x, scale->scale.data<float>(), y, n / cols,
                                            cols);
        });
    }
}

}  // namespace

struct AnalogRuntime::State {
    State(const Graph& graph, const AnalogOptions& options)
        : plan(compile(graph, options)),
          team(plan.threads),
          arena(plan.arena_bytes + 64, host_allocator()) {
        std::memset(arena.data(), 0, arena.bytes());  // so that no page is met first while running
    }

    // n samples, at most the batch.
    void run(const float* x, size_t n, float* logits) {
        auto body = [&](size_t thread) {
            const Place p = {static_cast<char*>(arena.data()), x, n, thread, plan.threads};
            for (const Stage& stage : plan.stages) {
                std::visit([&](const auto& s) { run_stage(plan, p, s); }, stage);
                team.meet();
            }
            if (thread == 0)
                std::memcpy(logits, p.read(plan, plan.result), n * plan.outputs * sizeof(float));
        };
        team.run(body);
    }

    Plan plan;
    Team team;
    Storage arena;
};

AnalogRuntime::AnalogRuntime(const Graph& graph, const AnalogOptions& options)
    : state_(std::make_unique<State>(graph, options)) {}
AnalogRuntime::~AnalogRuntime() = default;
AnalogRuntime::AnalogRuntime(AnalogRuntime&&) noexcept = default;
AnalogRuntime& AnalogRuntime::operator=(AnalogRuntime&&) noexcept = default;

const Graph& AnalogRuntime::graph() const {
    return state_->plan.graph;
}
const Shape& AnalogRuntime::sample() const {
    return state_->plan.sample;
}
size_t AnalogRuntime::outputs() const {
    return state_->plan.outputs;
}
const kernels::Table<float>& AnalogRuntime::table() const {
    return *state_->plan.table;
}
size_t AnalogRuntime::memory_bytes() const {
    return state_->plan.arena_bytes + state_->plan.constant_bytes;
}

std::vector<AnalogLayer> AnalogRuntime::layers() const {
    std::vector<AnalogLayer> out;
    for (const Stage& stage : state_->plan.stages)
        if (const auto* layer = std::get_if<WeightLayer>(&stage)) {
            const kernels::ConvShape& s = layer->shape;
            out.push_back({layer->name, layer->method,
                           2.0 * double(s.out_h() * s.out_w() * s.kh * s.kw) *
                               double(s.cin / s.groups) * double(s.cout),
                           layer->packed_floats * sizeof(float)});
        }
    return out;
}

void AnalogRuntime::run(const float* x, size_t N, float* logits) {
    State& s = *state_;
    const size_t size = s.plan.sample.elements();
    for (size_t first = 0; first < N; first += s.plan.batch) {
        const size_t n = std::min(s.plan.batch, N - first);
        s.run(x + first * size, n, logits + first * s.plan.outputs);
    }
}

}  // namespace nc
