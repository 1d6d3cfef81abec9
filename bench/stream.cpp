// A stream of events through the inference runtime, and nc_bench's command for it.
#include "bench/stream.h"

#include <fmt/format.h>

#include <algorithm>

#include "bench/nc_bench.h"
#include "datasets/recordings.h"
#include "engine/error.h"
#include "hw/target.h"
#include "io/model.h"

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

// Figures of many decisions.
struct Decisions {
    std::vector<double> steps, seconds, last;
    Decision sum;
    size_t right = 0;

    void add(const Decision& d) {
        steps.push_back(double(d.steps));
        seconds.push_back(d.seconds);
        last.push_back(d.last_seconds);
        sum.possible += d.possible;
        sum.spikes += d.spikes;
        sum.additions += d.additions;
        sum.multiplications += d.multiplications;
    }
};

}  // namespace

Decision decide(Runtime& runtime, const Recording& recording, const StreamCase& c, size_t& from,
                int64_t& t) {
    const Shape& sample = runtime.sample();
    if (!(sample == Shape{recording.height, recording.width, 2}))
        throw Error(fmt::format("[stream] a sensor of {} x {}, and a network whose input is {}",
                                recording.height, recording.width, sample.str()),
                    ErrorKind::data);
    Decision out;
    std::vector<float> frame(sample.elements()), logits(runtime.outputs());
    const auto& events = recording.events;
    runtime.reset();
    do {
        const double begin = now();
        std::fill(frame.begin(), frame.end(), 0.0f);
        for (; from < events.size() && events[from].t < t + c.window; ++from) {
            const Event& e = events[from];
            ++frame[(e.y * recording.width + e.x) * 2 + e.p];
        }
        const double full = now();
        runtime.step(frame.data(), nullptr, logits.data());
        const double end = now();
        t += c.window;
        out.seconds += end - begin;
        out.last_seconds = end - full;
        ++out.steps;
    } while (out.steps < c.T && !(c.margin > 0 && lead(logits) >= c.margin));
    out.t = t;
    out.answer = size_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
    for (const LayerActivity& layer : runtime.activity()) {
        out.possible += double(layer.outputs);
        out.spikes += double(layer.spikes);
        (layer.graded ? out.multiplications : out.additions) += layer.multiplies;
    }
    return out;
}

namespace {

struct Streamed {
    const Settings& settings;
    Model model;
    StreamCase how;
    int threads = 1;

    Runtime runtime() const {
        RuntimeOptions options;
        options.threads = size_t(threads);
        options.T = how.T;
        options.temporal = true;
        options.table = chosen_tables(settings).front();
        return Runtime(model.graph, options);
    }
};

// Of the test recordings one decision each, from its first event on.
Decisions decide_all(const Streamed& s, const RecordingSource& test, size_t samples) {
    Runtime runtime = s.runtime();
    Decisions out;
    constexpr size_t warm_up = 3;  // the first ones meet cold caches
    for (size_t i = 0; i < samples + warm_up; ++i) {
        const size_t sample = i < warm_up ? 0 : i - warm_up;
        const Recording recording = test.recording(sample);
        size_t from = 0;
        int64_t t = recording.events.empty() ? 0 : recording.events.front().t;
        const Decision d = decide(runtime, recording, s.how, from, t);
        if (i < warm_up) continue;
        out.add(d);
        out.right += d.answer == size_t(test.labels[sample]);
    }
    return out;
}

// The decisions of one file, one after another until its events end.
void decide_file(const Streamed& s, const std::string& path, bool text, Json& json,
                 Decisions& out) {
    const Recording recording = read_recording(Source(path), {});
    Runtime runtime = s.runtime();
    size_t from = 0;
    for (int64_t t = recording.events.front().t; from < recording.events.size();) {
        const Decision d = decide(runtime, recording, s.how, from, t);
        out.add(d);
        json.push_back({{"file", path}, {"t_us", d.t}, {"class", d.answer}, {"steps", d.steps}});
        if (text)
            fmt::print("{}: {:.1f} ms: class {}, {} frames, {:.1f} us of computing\n", path,
                       double(d.t) / 1000, d.answer, d.steps, d.seconds * 1e6);
    }
}

double microseconds(std::vector<double> seconds, double q) {
    std::sort(seconds.begin(), seconds.end());
    return quantile(seconds, q) * 1e6;
}

// What nc_bench stream says of many decisions.
Json figures(const Decisions& d, const Streamed& s, bool labelled) {
    const double n = double(d.steps.size());
    std::vector<double> steps = d.steps;
    std::sort(steps.begin(), steps.end());
    double sum = 0;
    for (const double x : steps) sum += x;
    const Target target = digital_45nm();
    const double picojoules =
        d.sum.multiplications * target.mac.picojoules + d.sum.additions * target.ac.picojoules;
    return {{"margin", s.how.margin},
            {"threads", s.threads},
            {"window_us", s.how.window},
            {"T", s.how.T},
            {"decisions", d.steps.size()},
            {"accuracy", labelled ? Json(100 * double(d.right) / n) : Json(nullptr)},
            {"steps_mean", sum / n},
            {"steps_p50", quantile(steps, 0.5)},
            {"steps_p99", quantile(steps, 0.99)},
            {"compute_us_p50", microseconds(d.seconds, 0.5)},
            {"compute_us_p99", microseconds(d.seconds, 0.99)},
            {"latency_us_p50", microseconds(d.last, 0.5)},
            {"latency_us_p99", microseconds(d.last, 0.99)},
            {"sparsity", 100 * (1 - d.sum.spikes / d.sum.possible)},
            {"additions", d.sum.additions / n},
            {"multiplications", d.sum.multiplications / n},
            {"modelled_nanojoules", picojoules / n / 1000}};
}

const char* const header =
    "                        steps          compute us      latency us            modelled\n"
    "margin threads      %   mean  p50  p99     p50     p99     p50     p99 sparse %   energy nJ\n";

std::string text_of(const Json& f) {
    const auto value = [&](const char* key) { return f[key].get<double>(); };
    return fmt::format(
        "{:>6} {:>7} {:>6} {:>6.2f} {:>4.0f} {:>4.0f} {:>7.0f} {:>7.0f} {:>7.0f} {:>7.0f} {:>8.2f} "
        "{:>11.1f}\n",
        value("margin"), f["threads"].get<int>(),
        f["accuracy"].is_null() ? "-" : fmt::format("{:.2f}", value("accuracy")),
        value("steps_mean"), value("steps_p50"), value("steps_p99"), value("compute_us_p50"),
        value("compute_us_p99"), value("latency_us_p50"), value("latency_us_p99"),
        value("sparsity"), value("modelled_nanojoules"));
}

}  // namespace

int run_stream(const Settings& s) {
    Streamed streamed{s, load_model(s.model), {}};
    const ModelInfo& info = streamed.model.info;
    if (!is_spiking(streamed.model.graph))
        throw Error("[stream] " + s.model + " has no spiking neurons: it decides at once");
    streamed.how.T = info.T > 0 ? size_t(info.T) : 16;
    const std::string name = s.dataset.empty() ? info.dataset : s.dataset;
    const auto known = event_dataset_names();
    RecordingSets sets;
    if (s.recordings.empty() || s.window.empty()) {
        if (std::find(known.begin(), known.end(), name) == known.end())
            throw Error("[stream] the model's data set '" + name + "' has no recordings",
                        ErrorKind::usage, "--dataset NAME, or files of events and --window 30ms");
        sets = load_recordings(name, s.common.data);
    }
    streamed.how.window =
        s.window.empty() ? usual_window(sets.train, streamed.how.T) : parse_duration(s.window);
    prepare(s);
    const bool text = !s.common.json || !s.common.json_file.empty();
    const size_t all = sets.test.labels.size();
    const size_t samples = s.common.samples > 0 ? std::min(s.common.samples, all) : all;
    Json json = {{"command", s.command}, {"model", s.model}, {"rows", Json::array()}};
    Json answers = Json::array();
    std::string table;
    for (const int threads : chosen_threads(s))
        for (const double margin : s.margins) {
            streamed.threads = threads;
            streamed.how.margin = margin;
            Decisions d;
            if (s.recordings.empty())
                d = decide_all(streamed, sets.test, samples);
            else
                for (const std::string& path : s.recordings)
                    decide_file(streamed, path, text, answers, d);
            json["rows"].push_back(figures(d, streamed, s.recordings.empty()));
            table += text_of(json["rows"].back());
        }
    if (!s.recordings.empty()) json["answers"] = answers;
    std::string said = fmt::format(
        "{}; frames of {:.2f} ms, at most {} a decision\n{}{}"
        "steps: frames until the decision; compute us: of all of them; latency us: from the last "
        "frame's end;\nenergy modelled: {} pJ a multiplication, {} pJ an addition of an input "
        "that is not zero, no memory traffic\n",
        s.recordings.empty() ? fmt::format("{} test recordings of {}{}", samples, name,
                                           sets.note.empty() ? "" : " (" + sets.note + ")")
                             : fmt::format("{} files", s.recordings.size()),
        double(streamed.how.window) / 1000, streamed.how.T, header, table,
        digital_45nm().mac.picojoules, digital_45nm().ac.picojoules);
    program::print_result(s.common, said, json);
    return program::success;
}

}  // namespace nc::bench
