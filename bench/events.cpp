// Figures of event recordings, side by side, and nc_bench's command for them.
#include "bench/events.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "bench/bench.h"
#include "bench/nc_bench.h"
#include "engine/error.h"

namespace nc::bench {
namespace {

constexpr int64_t rate_bin = 10'000, rate_end = 320'000;  // us; N-MNIST's recordings end before
constexpr size_t rate_bins = size_t(rate_end / rate_bin);
// Where N-MNIST's camera rests between its saccades, in bins.
constexpr size_t saccades[] = {0, 9, 22, rate_bins};
constexpr size_t thirds = 3;
constexpr int64_t third = 103'000;  // us
constexpr size_t lags[] = {1, 2, 4};
constexpr int64_t interval_bin = 50;                               // us
constexpr size_t interval_bins = size_t(rate_end / interval_bin);  // the last takes longer ones
constexpr double percentiles[] = {5, 25, 50, 75, 95};

// Of pairs of values, summed one by one. NaN where one side does not vary.
struct Correlation {
    double n = 0, a = 0, b = 0, aa = 0, bb = 0, ab = 0;
    void add(double x, double y) { ++n, a += x, b += y, aa += x * x, bb += y * y, ab += x * y; }
    double value() const {
        return (n * ab - a * b) / std::sqrt((n * aa - a * a) * (n * bb - b * b));
    }
};

double correlation(const std::vector<double>& x, const std::vector<double>& y) {
    Correlation c;
    for (size_t i = 0; i < x.size(); ++i) c.add(x[i], y[i]);
    return c.value();
}

// A mean without what is not a number.
struct Mean {
    double sum = 0, n = 0;
    void add(double x) {
        if (!std::isnan(x)) sum += x, ++n;
    }
    double value() const { return sum / n; }
};

// What is kept of a recording while it is compared.
struct Image {
    std::vector<double> events;    // [H, W]
    std::vector<double> polarity;  // [3, H, W], ON minus OFF
};

// Of an image [H, W] with itself so many pixels to the right and below.
double autocorrelation(const std::vector<double>& image, size_t w, size_t lag) {
    Correlation c;
    for (size_t i = 0; i < image.size(); ++i) {
        if (i % w + lag < w) c.add(image[i], image[i + lag]);
        if (i + lag * w < image.size()) c.add(image[i], image[i + lag * w]);
    }
    return c.value();
}

// Sums over the recordings of one data set.
class Tally {
 public:
    Image add(const Recording& r) {
        if (recordings_++ == 0) height_ = r.height, width_ = r.width;
        if (r.height != height_ || r.width != width_)
            throw Error("[events] recordings of different sensors", ErrorKind::data);
        const size_t pixels = height_ * width_;
        Image image{std::vector<double>(pixels), std::vector<double>(thirds * pixels)};
        std::vector<int64_t> last(pixels, -1);
        for (const Event& e : r.events) {
            const size_t i = e.y * width_ + e.x;
            ++image.events[i];
            const size_t part = std::min(size_t(std::max<int64_t>(e.t, 0) / third), thirds - 1);
            image.polarity[part * pixels + i] += e.p ? 1 : -1;
            on_ += e.p;
            if (e.t >= 0 && e.t < rate_end) ++rate_[size_t(e.t / rate_bin)];
            if (last[i] >= 0)
                ++intervals_[std::min(size_t((e.t - last[i]) / interval_bin), interval_bins - 1)];
            last[i] = e.t;
        }
        counts_.push_back(double(r.events.size()));
        if (!r.events.empty()) duration_.add(double(r.events.back().t - r.events.front().t) / 1000);
        active_.add(100 - 100 * double(std::count(image.events.begin(), image.events.end(), 0)) /
                              double(pixels));
        for (size_t k = 0; k < std::size(lags); ++k)
            repeats_[k].add(autocorrelation(image.events, width_, lags[k]));
        return image;
    }

    bool same_sensor(const Tally& other) const {
        return height_ == other.height_ && width_ == other.width_;
    }

    EventFigures figures() {
        const double n = double(recordings_);
        EventFigures out;
        const auto put = [&](const std::string& name, double value) {
            out.values.emplace_back(name, value);
        };
        Mean mean, square;
        for (const double x : counts_) mean.add(x);
        for (const double x : counts_) square.add((x - mean.value()) * (x - mean.value()));
        put("events a recording", mean.value());
        put("- standard deviation", std::sqrt(square.sum / std::max(1.0, n - 1)));
        std::sort(counts_.begin(), counts_.end());
        for (const double p : percentiles)
            put(fmt::format("- percentile {}", p), quantile(counts_, p / 100));
        put("ON %", 100 * on_ / mean.sum);
        put("duration ms", duration_.value());
        for (const double events : rate_) out.rate.push_back(events / n);
        for (size_t k = 0; k + 1 < std::size(saccades); ++k) {
            double events = 0;
            for (size_t i = saccades[k]; i < saccades[k + 1]; ++i) events += out.rate[i];
            put(fmt::format("events from {} to {} ms", 10 * saccades[k], 10 * saccades[k + 1]),
                events);
        }
        put("active pixels %", active_.value());
        for (size_t k = 0; k < std::size(lags); ++k)
            put(fmt::format("autocorrelation, lag {}", lags[k]), repeats_[k].value());
        for (const double p : percentiles)
            put(fmt::format("interval at a pixel ms, percentile {}", p), interval(p / 100));
        return out;
    }

 private:
    // In ms, the middle of its bin.
    double interval(double q) const {
        double all = 0, seen = 0;
        for (const double n : intervals_) all += n;
        for (size_t i = 0; i < interval_bins; ++i)
            if ((seen += intervals_[i]) > 0 && seen >= q * all)
                return (double(i) + 0.5) * double(interval_bin) / 1000;
        return NAN;
    }

    size_t recordings_ = 0, height_ = 0, width_ = 0;
    double on_ = 0;
    std::vector<double> counts_;
    std::vector<double> intervals_ = std::vector<double>(interval_bins);
    std::array<double, rate_bins> rate_ = {};
    std::array<Mean, std::size(lags)> repeats_;
    Mean duration_, active_;
};

std::string number(double value) {
    if (std::isnan(value)) return "-";
    return fmt::format("{:.{}f}", value,
                       std::abs(value) >= 100  ? 0
                       : std::abs(value) >= 10 ? 1
                                               : 3);
}

}  // namespace

EventComparison compare_events(const RecordingSource& real, const RecordingSource& simulated,
                               size_t first, size_t count) {
    const size_t most = std::min(real.labels.size(), simulated.labels.size());
    if (first >= most || count > most - first || count == 0)
        throw Error(fmt::format("[events] recordings {} to {} of {} and {}", first, first + count,
                                real.labels.size(), simulated.labels.size()),
                    ErrorKind::data);
    EventComparison out;
    out.samples = count;
    const auto at = real.labels.begin() + ptrdiff_t(first);
    out.paired = std::equal(at, at + ptrdiff_t(count), simulated.labels.begin() + ptrdiff_t(first));
    Tally a, b;
    Mean images, polarities, others;
    std::map<int32_t, std::vector<double>> before;  // the last real image of each class
    for (size_t i = first; i < first + count; ++i) {
        Image x = a.add(real.recording(i));
        const Image y = b.add(simulated.recording(i));
        if (!a.same_sensor(b))
            throw Error("[events] the data sets have different sensors", ErrorKind::data);
        if (out.paired) {
            images.add(correlation(x.events, y.events));
            polarities.add(correlation(x.polarity, y.polarity));
        }
        std::vector<double>& other = before[real.labels[i]];
        if (!other.empty()) others.add(correlation(x.events, other));
        other = std::move(x.events);
    }
    out.real = a.figures();
    out.simulated = b.figures();
    out.image_correlation = images.value();
    out.polarity_correlation = polarities.value();
    out.other_correlation = others.value();
    out.rate_correlation = correlation(out.real.rate, out.simulated.rate);
    double difference = 0, whole = 0;
    for (size_t i = 0; i < rate_bins; ++i) {
        difference += std::abs(out.real.rate[i] - out.simulated.rate[i]);
        whole += out.real.rate[i];
    }
    out.rate_difference_percent = 100 * difference / whole;
    return out;
}

std::string to_text(const EventComparison& c, const std::string& real,
                    const std::string& simulated) {
    const char* const row = "{:<40} {:>16} {:>16} {:>8}\n";
    std::string out = fmt::format(fmt::runtime(row), "", real, simulated, "ratio");
    for (size_t i = 0; i < c.real.values.size(); ++i) {
        const double x = c.real.values[i].second, y = c.simulated.values[i].second;
        out += fmt::format(fmt::runtime(row), c.real.values[i].first, number(x), number(y),
                           number(y / x));
    }
    for (size_t i = 0; i < rate_bins; ++i)
        out += fmt::format(fmt::runtime(row), fmt::format("events from {} ms on", 10 * i),
                           number(c.real.rate[i]), number(c.simulated.rate[i]),
                           number(c.simulated.rate[i] / c.real.rate[i]));
    const auto say = [&](const char* what, double value, const char* unit = "") {
        out += fmt::format("{:<64} {}{}\n", what, number(value), unit);
    };
    say("correlation of the rates over time", c.rate_correlation);
    say("difference of the rates over time", c.rate_difference_percent, " %");
    if (!c.paired) out += "not paired: the labels differ\n";
    say("correlation of events a pixel, same picture", c.image_correlation);
    say("- of ON minus OFF events a pixel, in thirds of the recording", c.polarity_correlation);
    say("- of events a pixel, two real recordings of a class", c.other_correlation);
    return out;
}

Json to_json(const EventComparison& c) {
    const auto column = [](const EventFigures& f) {
        Json out = Json::object();
        for (const auto& [name, value] : f.values) out[name] = program::number_or_null(value);
        out["rate, events in 10 ms"] = f.rate;
        return out;
    };
    using program::number_or_null;
    return {{"samples", c.samples},
            {"paired", c.paired},
            {"real", column(c.real)},
            {"simulated", column(c.simulated)},
            {"rate_correlation", number_or_null(c.rate_correlation)},
            {"rate_difference_percent", number_or_null(c.rate_difference_percent)},
            {"image_correlation", number_or_null(c.image_correlation)},
            {"polarity_correlation", number_or_null(c.polarity_correlation)},
            {"image_correlation_of_two_real", number_or_null(c.other_correlation)}};
}

int run_events(const Settings& s) {
    if (s.common.json && !s.common.json_file.empty())
        program::check_output(s.common.json_file, s.common.force);
    const RecordingSets real = load_recordings(s.real, s.common.data);
    const RecordingSets simulated = load_recordings(s.simulated, s.common.data);
    const RecordingSource& a = s.test ? real.test : real.train;
    const RecordingSource& b = s.test ? simulated.test : simulated.train;
    const size_t most = std::min(a.labels.size(), b.labels.size());
    const size_t left = most - std::min(s.skip, most);
    const size_t count = s.common.samples > 0 ? s.common.samples : left;
    const EventComparison c = compare_events(a, b, s.skip, count);
    Json json = to_json(c);
    json["command"] = s.command;
    for (const auto& [name, sets] : {std::pair{&s.real, &real}, {&s.simulated, &simulated}})
        if (!sets->note.empty()) json["notes"][*name] = sets->note;
    std::string text = fmt::format("{} recordings, {} part, from number {} on\n", count,
                                   s.test ? "test" : "training", s.skip);
    program::print_result(s.common, text + to_text(c, s.real, s.simulated), json);
    return program::success;
}

}  // namespace nc::bench
