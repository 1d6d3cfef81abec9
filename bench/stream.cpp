// A stream of events through the inference runtime, and nc_bench's command for it.
#include "bench/stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

#include "bench/nc_bench.h"
#include "datasets/recordings.h"
#include "engine/error.h"
#include "hw/energy.h"
#include "io/model.h"
#include "neurons/forward.h"

namespace nc::bench {
namespace {

double lead(const std::vector<float>& logits) {
    std::vector<float> two(2);
    std::partial_sort_copy(logits.begin(), logits.end(), two.begin(), two.end(),
                           std::greater<float>());
    return logits.size() > 1 ? double(two[0]) - double(two[1]) : 0;
}

// Microseconds of a frame: recordings of the training part take T of them, on average.
int64_t usual_window(const RecordingSource& training, size_t T) {
    const size_t count = std::min<size_t>(training.labels.size(), 100);
    double sum = 0;
    for (size_t i = 0; i < count; ++i) {
        const Recording r = training.recording(i);
        sum += r.events.empty() ? 0 : double(r.events.back().t - r.events.front().t);
    }
    return std::max<int64_t>(1, int64_t(sum / double(count * T)));
}

struct Streamed {
    const Model& model;
    StreamCase how;
    size_t threads = 1;

    Runtime runtime() const {
        RuntimeOptions options;
        options.threads = threads;
        options.T = how.T;
        options.temporal = true;
        return Runtime(model.graph, options);
    }
};

using Use = std::function<void(const Decision&, int32_t label)>;

// Of the test recordings one decision each, from its first event on.
void decide_all(const Streamed& s, const RecordingSource& test, size_t samples, const Use& use) {
    Runtime runtime = s.runtime();
    constexpr size_t warm_up = 3;  // the first ones meet cold caches
    for (size_t i = 0; i < samples + warm_up; ++i) {
        const size_t sample = i < warm_up ? 0 : i - warm_up;
        const Recording recording = test.recording(sample);
        size_t from = 0;
        int64_t t = recording.events.empty() ? 0 : recording.events.front().t;
        const Decision d = decide(runtime, recording, s.how, from, t);
        if (i >= warm_up) use(d, test.labels[sample]);
    }
}

// The decisions of one file, one after another while its events fill a frame.
void decide_file(const Streamed& s, const std::string& path, const Use& use) {
    const Recording recording = read_recording(Source(path), {});
    const int64_t first = recording.events.front().t, last = recording.events.back().t;
    constexpr int64_t most_time = int64_t(1) << 61;  // so that sums and differences hold
    constexpr uint64_t most_frames = 10'000'000;
    if (first < -most_time || last > most_time ||
        uint64_t(last - first) / uint64_t(s.how.window) > most_frames)
        throw Error(
            fmt::format("[stream] {}: events from {} to {} us are more than {} frames of {} us",
                        path, first, last, most_frames, s.how.window),
            ErrorKind::data, "a longer --window takes fewer");
    Runtime runtime = s.runtime();
    size_t from = 0;
    int64_t t = recording.events.front().t;
    do use(decide(runtime, recording, s.how, from, t), -1);
    while (recording.events.back().t >= t + s.how.window);
}

double microseconds(std::vector<double> seconds, double q) {
    std::sort(seconds.begin(), seconds.end());
    return quantile(seconds, q) * 1e6;
}

// Figures of many decisions.
struct Decisions {
    std::vector<double> steps, seconds, last;
    double possible = 0, spikes = 0;
    size_t right = 0;

    void add(const Decision& d, int32_t label) {
        steps.push_back(double(d.steps));
        seconds.push_back(d.seconds);
        last.push_back(d.last_seconds);
        possible += d.possible;
        spikes += d.spikes;
        right += int32_t(d.answer) == label;
    }

    Json json(bool labelled) {
        const double n = double(steps.size());
        double sum = 0;
        for (const double x : steps) sum += x;
        std::sort(steps.begin(), steps.end());
        return {{"decisions", steps.size()},
                {"accuracy", labelled ? Json(100 * double(right) / n) : Json(nullptr)},
                {"steps_mean", sum / n},
                {"steps_p50", quantile(steps, 0.5)},
                {"steps_p99", quantile(steps, 0.99)},
                {"compute_us_p50", microseconds(seconds, 0.5)},
                {"compute_us_p99", microseconds(seconds, 0.99)},
                {"latency_us_p50", microseconds(last, 0.5)},
                {"latency_us_p99", microseconds(last, 0.99)},
                {"sparsity", 100 * (1 - spikes / possible)}};
    }
};

// Synaptic operations of decisions, counted by the interpreter; those of as many steps together.
class DecisionCosts {
 public:
    explicit DecisionCosts(const Graph& graph) : graph_(graph) {}

    void add(const Decision& d, const Shape& sample) {
        OperationCounter& counter = counters_.try_emplace(d.steps, graph_).first->second;
        ForwardOptions options;
        options.temporal_input = true;
        options.observe = [&](const Observation& o) { counter.observe(o); };
        const Tensor x = Tensor::from(d.frames, sample.with_leading(1).with_leading(d.steps));
        forward(compute_, graph_, {}, x, options);
        ++decisions_;
    }

    // Means over decisions.
    Json json() const {
        double macs = 0, acs = 0, picojoules = 0;
        for (const auto& [steps, counter] : counters_) {
            const Energy e = energy(counter.result(), digital_45nm(), steps);
            const double share = double(e.samples) / decisions_;
            macs += share * e.macs;
            acs += share * e.acs;
            picojoules += share * e.picojoules;
        }
        return {{"macs", macs}, {"acs", acs}, {"modelled_nanojoules", picojoules / 1000}};
    }

 private:
    Compute compute_{Device{}, 1};
    const Graph& graph_;
    std::map<size_t, OperationCounter> counters_;
    double decisions_ = 0;
};

const char* const stream_header =
    "                        steps          compute us      latency us            modelled\n"
    "margin threads      %   mean  p50  p99     p50     p99     p50     p99 sparse %   energy nJ\n";

std::string stream_row(const Json& row) {
    const auto value = [&](const char* key) { return row[key].get<double>(); };
    return fmt::format(
        "{:>6} {:>7} {:>6} {:>6.2f} {:>4.0f} {:>4.0f} {:>7.0f} {:>7.0f} {:>7.0f} {:>7.0f} {:>8.2f} "
        "{:>11.1f}\n",
        value("margin"), row["threads"].get<size_t>(),
        row["accuracy"].is_null() ? "-" : fmt::format("{:.2f}", value("accuracy")),
        value("steps_mean"), value("steps_p50"), value("steps_p99"), value("compute_us_p50"),
        value("compute_us_p99"), value("latency_us_p50"), value("latency_us_p99"),
        value("sparsity"), value("modelled_nanojoules"));
}

}  // namespace

Decision decide(Runtime& runtime, const Recording& recording, const StreamCase& c, size_t& from,
                int64_t& t) {
    const Shape& sample = runtime.sample();
    if (!(sample == Shape{recording.height, recording.width, 2}))
        throw Error(fmt::format("[stream] a sensor of {} x {}, and a network whose input is {}",
                                recording.height, recording.width, sample.str()),
                    ErrorKind::data);
    Decision out;
    std::vector<float> logits(runtime.outputs());
    const auto& events = recording.events;
    runtime.reset();
    do {
        const double begin = now();
        out.frames.resize(out.frames.size() + sample.elements());
        float* frame = out.frames.data() + out.steps * sample.elements();
        for (; from < events.size() && events[from].t < t + c.window; ++from) {
            const Event& e = events[from];
            ++frame[(e.y * recording.width + e.x) * 2 + e.p];
        }
        const double full = now();
        runtime.step(frame, nullptr, logits.data());
        const double end = now();
        t += c.window;
        out.seconds += end - begin;
        out.last_seconds = end - full;
        ++out.steps;
    } while (out.steps < c.T && from < events.size() &&
             !(c.margin > 0 && lead(logits) >= c.margin));
    out.t = t;
    out.answer = size_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
    for (const LayerActivity& layer : runtime.activity()) {
        out.possible += double(layer.outputs);
        out.spikes += double(layer.spikes);
    }
    return out;
}

int run_stream(const Settings& s) {
    const Model model = load_model(s.model);
    if (!is_spiking(model.graph))
        throw Error("[stream] " + s.model + " has no spiking neurons: it has no steps");
    Streamed streamed{model, {}};
    if (model.info.T > 0) streamed.how.T = size_t(model.info.T);
    const bool files = !s.recordings.empty(), text = !s.common.json || !s.common.json_file.empty();
    const std::string name = s.dataset.empty() ? model.info.dataset : s.dataset;
    RecordingSets sets;
    if (!files || s.window.empty()) sets = load_recordings(name, s.common.data);
    streamed.how.window =
        s.window.empty() ? usual_window(sets.train, streamed.how.T) : parse_duration(s.window);
    prepare(s);
    const size_t all = sets.test.labels.size();
    const size_t samples = s.common.samples > 0 ? std::min(s.common.samples, all) : all;
    Json json = {{"command", s.command},
                 {"model", s.model},
                 {"dataset", files ? Json(nullptr) : Json(name)},
                 {"note", files ? "" : sets.note},
                 {"T", streamed.how.T},
                 {"window_us", streamed.how.window},
                 {"rows", Json::array()}};
    std::string table;
    for (const int threads : chosen_threads(s))
        for (const double margin : s.margins) {
            streamed.threads = size_t(threads);
            streamed.how.margin = margin;
            const auto decisions = [&](const Use& use) {
                if (!files) decide_all(streamed, sets.test, samples, use);
                for (const std::string& path : s.recordings) decide_file(streamed, path, use);
            };
            Decisions times;
            decisions([&](const Decision& d, int32_t label) {
                times.add(d, label);
                if (!files) return;
                json["answers"].push_back({{"t_us", d.t}, {"class", d.answer}, {"steps", d.steps}});
                if (text)
                    fmt::print("{:.1f} ms: class {}, {} frames, {:.0f} us of computing\n",
                               double(d.t) / 1000, d.answer, d.steps, d.seconds * 1e6);
            });
            // The same decisions again, for what would slow them down.
            const Runtime compiled = streamed.runtime();
            DecisionCosts costs(compiled.graph());
            decisions([&](const Decision& d, int32_t) { costs.add(d, compiled.sample()); });
            Json row = {{"margin", margin}, {"threads", threads}};
            row.update(times.json(!files));
            row.update(costs.json());
            table += stream_row(row);
            json["rows"].push_back(std::move(row));
        }
    const std::string what = files ? fmt::format("{} files", s.recordings.size())
                                   : fmt::format("{} test recordings of {}{}", samples, name,
                                                 sets.note.empty() ? "" : " (" + sets.note + ")");
    const Target target = digital_45nm();
    program::print_result(
        s.common,
        fmt::format("{}; frames of {:.2f} ms, at most {} a decision\n{}{}"
                    "steps: frames until the decision; compute: of all of them; latency: from the "
                    "last frame's end;\nenergy modelled as by nc_convert energy: {} pJ a MAC, {} "
                    "pJ an AC, no memory traffic\n",
                    what, double(streamed.how.window) / 1000, streamed.how.T, stream_header, table,
                    target.mac.picojoules, target.ac.picojoules),
        json);
    return program::success;
}

}  // namespace nc::bench
