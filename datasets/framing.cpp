// Slicing as Tonic's slice_events_by_* and SpikingJelly's integrate_events_by_fixed_frames_number
// do.
#include "datasets/framing.h"

#include <algorithm>
#include <charconv>

#include "datasets/events.h"

namespace nc {
namespace {

struct Name {
    Framing::Kind kind;
    const char* text;
};
constexpr Name names[] = {{Framing::Kind::tonic_bins, "tonic:bins"},
                          {Framing::Kind::tonic_window, "tonic:window"},
                          {Framing::Kind::tonic_count, "tonic:count"},
                          {Framing::Kind::sj_number, "sj:number"},
                          {Framing::Kind::sj_time, "sj:time"}};
constexpr int64_t most_frames = 100'000;

size_t first_at(const std::vector<Event>& events, int64_t t) {
    const auto at = std::lower_bound(events.begin(), events.end(), t,
                                     [](const Event& e, int64_t time) { return e.t < time; });
    return size_t(at - events.begin());
}

void bound_frames(int64_t frames, const Framing& framing) {
    if (frames > most_frames)
        throw Error("[framing] " + framing.str() + " gives " + std::to_string(frames) +
                        " frames, more than " + std::to_string(most_frames),
                    ErrorKind::data);
}

}  // namespace

std::string Framing::str() const {
    for (const auto& name : names)
        if (name.kind == kind)
            return std::string(name.text) + "=" + std::to_string(value) +
                   (kind == Kind::tonic_window ? "us" : "");
    return "";
}

Framing parse_framing(const std::string& text) {
    const std::string hint =
        "tonic:bins=10, tonic:window=10ms, tonic:count=1000, sj:number=16 or sj:time=16";
    const auto fail = [&](const std::string& what) {
        throw Error("[framing] '" + text + "': " + what, ErrorKind::usage, hint);
    };
    const size_t equals = text.find('=');
    if (equals == std::string::npos) fail("no '='");
    const std::string key = text.substr(0, equals);
    Framing out;
    const auto name = std::find_if(std::begin(names), std::end(names),
                                   [&](const Name& n) { return key == n.text; });
    if (name == std::end(names)) fail("unknown convention '" + key + "'");
    out.kind = name->kind;
    const char* begin = text.data() + equals + 1;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(begin, end, out.value);
    if (parsed.ec != std::errc() || out.value < 1) fail("a number of at least 1 wanted");
    std::string unit(parsed.ptr, end);
    int64_t factor = 1;
    if (out.kind == Framing::Kind::tonic_window) {
        if (unit == "us")
            factor = 1;
        else if (unit == "ms")
            factor = 1000;
        else if (unit == "s")
            factor = 1'000'000;
        else
            fail("the window needs a unit: us, ms or s");
        unit.clear();
    }
    if (!unit.empty()) fail("'" + unit + "' after the number");
    constexpr int64_t longest = int64_t(1) << 40;
    if (out.value > longest / factor) fail("too large");
    out.value *= factor;
    if (out.fixed_frames()) bound_frames(out.value, out);
    return out;
}

std::vector<size_t> frame_bounds(const Recording& recording, const Framing& framing) {
    using Kind = Framing::Kind;
    const auto& events = recording.events;
    if (events.empty()) throw Error("[framing] a recording without events", ErrorKind::data);
    const int64_t n = int64_t(events.size()), value = framing.value;
    const int64_t first = events.front().t, duration = events.back().t - first;
    int64_t frames = value, window = 0, count = 0;
    switch (framing.kind) {
        case Kind::tonic_bins:
        case Kind::sj_time:
            window = duration / value;
            break;
        case Kind::tonic_window:
            window = value;
            frames = std::max<int64_t>(duration / value, 1);
            break;
        case Kind::tonic_count:
            count = std::min(value, n);
            frames = n / count;
            break;
        case Kind::sj_number:
            count = n / value;
            break;
    }
    bound_frames(frames, framing);
    const bool by_count = framing.kind == Kind::tonic_count || framing.kind == Kind::sj_number;
    std::vector<size_t> bounds(size_t(frames) + 1);
    for (int64_t f = 0; f <= frames; ++f)
        bounds[size_t(f)] = by_count ? size_t(f * count) : first_at(events, first + f * window);
    if (framing.kind == Kind::sj_number || framing.kind == Kind::sj_time)
        bounds.back() = events.size();
    return bounds;
}

Tensor to_frames(const Recording& recording, const Framing& framing) {
    const auto bounds = frame_bounds(recording, framing);
    const size_t h = recording.height, w = recording.width;
    Tensor out = Tensor::full<float>({bounds.size() - 1, h, w, 2}, 0);
    float* counts = out.data<float>();
    for (size_t f = 0; f + 1 < bounds.size(); ++f, counts += h * w * 2)
        for (size_t i = bounds[f]; i < bounds[f + 1]; ++i) {
            const Event& e = recording.events[i];
            ++counts[(e.y * w + e.x) * 2 + e.p];
        }
    return out;
}

}  // namespace nc
