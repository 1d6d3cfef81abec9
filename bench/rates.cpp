// Measuring layers at chosen firing rates, one path beside the other.
#include "bench/rates.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>

#include "neurons/runtime_stages.h"

namespace nc::bench {
namespace {

// Of this thread on a processor: others' work does not count.
double thread_now() {
    timespec t = {};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// A network compiled for one path, whose stages are run one by one.
struct Compiled {
    Compiled(const Graph& graph, const RatesCase& c, RuntimePath path)
        : plan([&] {
              RuntimeOptions options;
              options.T = c.T;
              options.temporal = c.temporal;
              options.table = c.table;
              options.path = path;
              return plan::compile(graph, options);
          }()),
          arena(plan.arena_bytes + 64, host_allocator()),
          counters(plan) {
        std::memset(arena.data(), 0, arena.bytes());
        place.base = static_cast<char*>(arena.data());
        place.counters = &counters;
        place.steps = plan.chunk;
        place.fresh = true;
    }

    template <class T>
    T* at(plan::Buffer b) {
        return reinterpret_cast<T*>(place.base + plan.offsets[size_t(b)]);
    }

    size_t stage_of(const std::string& layer) const {
        for (size_t i = 0; i < plan.stages.size(); ++i)
            if (const auto* l = std::get_if<plan::Layer>(&plan.stages[i]); l && l->name == layer)
                return i;
        throw Error("[bench] no layer '" + layer + "'");
    }

    // Lists random inputs of a layer; returns how many of them are not zero.
    size_t draw(size_t list, double rate, uint64_t seed) {
        const plan::EventList& l = plan.lists[list];
        std::mt19937_64 random(seed);
        std::bernoulli_distribution one(rate);
        uint32_t* const start = at<uint32_t>(l.start);
        uint32_t* const index = at<uint32_t>(l.index);
        float* const value = l.value != plan::none ? at<float>(l.value) : nullptr;
        const size_t slots = l.w * l.c * std::max<size_t>(l.repeats, 1) + 64;
        size_t events = 0;
        for (size_t r = 0; r < plan.chunk * l.h; ++r) {
            size_t e = r * slots;
            for (size_t x = 0; x < l.w; ++x) {
                start[r * (l.w + 1) + x] = uint32_t(e);
                for (size_t c = 0; c < l.c; ++c) {
                    if (!one(random)) continue;
                    if (value != nullptr) value[e] = float(1 + random() % 4) / 4;
                    index[e++] = uint32_t(x * l.c + c);
                }
            }
            start[r * (l.w + 1) + l.w] = uint32_t(e);
            events += e - r * slots;
        }
        counters.list_events[list] = events;
        return events;
    }

    void run(size_t stage) { plan::run_stage(plan, place, stage); }

    // What the stage writes for those after it.
    std::pair<const char*, size_t> written(const plan::Layer& l) {
        if (!l.fire)
            return {at<char>(l.out), plan.chunk * l.pixels() * l.shape.cout * sizeof(float)};
        const size_t words = (l.fire->channels + 63) / 64;
        return {at<char>(l.fire->bits), plan.chunk * l.pixels() * words * sizeof(uint64_t)};
    }

    plan::Plan plan;
    Storage arena;
    plan::Counters counters;
    plan::Place place;
};

std::string shape_text(const plan::Layer& l) {
    const auto& s = l.shape;
    using kernels::Adding;
    const std::string kind = l.adding == Adding::integers ? "integers"
                             : l.adding == Adding::values ? "values"
                                                          : "spikes";
    if (s.out_h() * s.out_w() == 1 && s.kh == s.h && s.kw == s.w)
        return fmt::format("{}/linear-{}-{}-{}", l.name, s.h * s.w * s.cin, s.cout, kind);
    return fmt::format("{}/conv-{}-{}-k{}-s{}-{}x{}-{}", l.name, s.cin, s.cout, s.kh, s.stride_h,
                       s.h, s.w, kind);
}

}  // namespace

double RateRow::ratio() const {
    return automatic.minimum / std::min(dense.minimum, event.minimum);
}

std::vector<RateRow> measure_rates(const Graph& graph, const RatesCase& c,
                                   const std::function<void(const RateRow&)>& seen) {
    constexpr double shortest = 2e-4;  // a time that the clock's reading does not matter to
    constexpr size_t least_rounds = 5;
    Compiled dense(graph, c, RuntimePath::dense), event(graph, c, RuntimePath::event),
        automatic(graph, c, RuntimePath::automatic);
    Compiled* const all[] = {&dense, &event, &automatic};
    std::set<std::string> done;
    std::vector<RateRow> rows;
    for (const auto& stage : automatic.plan.stages) {
        const auto* layer = std::get_if<plan::Layer>(&stage);
        if (layer == nullptr || layer->list == SIZE_MAX) continue;
        const std::string name = shape_text(*layer);
        if (!done.insert(name.substr(name.find('/'))).second) continue;
        size_t at[3] = {};
        const plan::Layer* layers[3] = {};
        for (size_t i = 0; i < 3; ++i) {
            at[i] = all[i]->stage_of(layer->name);
            layers[i] = &std::get<plan::Layer>(all[i]->plan.stages[at[i]]);
        }
        if (layers[0]->list == SIZE_MAX || layers[1]->list == SIZE_MAX) continue;
        const double inputs =
            double(automatic.plan.chunk * layer->shape.h * layer->shape.w * layer->shape.cin);
        for (const double percent : c.rates) {
            RateRow row;
            row.name = name;
            for (size_t i = 0; i < 3; ++i) {
                row.rate = 100 * double(all[i]->draw(layers[i]->list, percent / 100, 1)) / inputs;
                all[i]->run(at[i]);
            }
            const auto [a, bytes] = dense.written(*layers[0]);
            const auto [b, same] = event.written(*layers[1]);
            if (bytes != same || std::memcmp(a, b, bytes) != 0)
                throw Error("[bench] " + name + ": dense and event differ");
            std::vector<double> times[3];
            size_t repeats[3] = {1, 1, 1};
            for (const double begin = thread_now();
                 times[2].size() < least_rounds || thread_now() - begin < c.seconds;)
                for (size_t i = 0; i < 3; ++i) {
                    const double from = thread_now();
                    for (size_t k = 0; k < repeats[i]; ++k) all[i]->run(at[i]);
                    const double each = (thread_now() - from) / double(repeats[i]);
                    if (repeats[i] == 1 && each < shortest)
                        repeats[i] = size_t(shortest / each) + 1;
                    else
                        times[i].push_back(each);
                }
            row.dense = timing_of(times[0]);
            row.event = timing_of(times[1]);
            row.automatic = timing_of(times[2]);
            row.chose_dense = automatic.counters.dense[layer->number];
            seen(row);
            rows.push_back(std::move(row));
        }
    }
    return rows;
}

}  // namespace nc::bench
