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

int64_t parse_duration(const std::string& text) {
    const auto fail = [&](const std::string& what) {
        throw Error("[framing] duration '" + text + "': " + what, ErrorKind::usage, "10ms");
    };
    constexpr int64_t longest = int64_t(1) << 40;
    const std::pair<const char*, int64_t> units[] = {{"us", 1}, {"ms", 1000}, {"s", 1'000'000}};
    int64_t value = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, value);
    if (parsed.ec != std::errc() || value < 1) fail("a number of at least 1 wanted");
    for (const auto& [name, factor] : units)
        if (std::string(parsed.ptr, end) == name) {
            if (value > longest / factor) fail("too large");
            return value * factor;
        }
    fail("it needs a unit: us, ms or s");
    return 0;
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
    const std::string number = text.substr(equals + 1);
    if (out.kind == Framing::Kind::tonic_window) {
        out.value = parse_duration(number);
        return out;
    }
    const char* end = number.data() + number.size();
    const auto parsed = std::from_chars(number.data(), end, out.value);
    if (parsed.ec != std::errc() || out.value < 1) fail("a number of at least 1 wanted");
    if (parsed.ptr != end) fail("'" + std::string(parsed.ptr, end) + "' after the number");
    constexpr int64_t most = int64_t(1) << 40;
    if (out.value > most) fail("too large");
    if (out.fixed_frames()) bound_frames(out.value, out);
    return out;
}

FramePlan::FramePlan(const Framing& framing, const Extent& extent) {
    using Kind = Framing::Kind;
    if (extent.events == 0) throw Error("[framing] a recording without events", ErrorKind::data);
    const int64_t value = framing.value, duration = extent.last - extent.first;
    first_ = extent.first;
    frames_ = value;
    switch (framing.kind) {
        case Kind::tonic_bins:
        case Kind::sj_time:
            window_ = duration / value;
            break;
        case Kind::tonic_window:
            window_ = value;
            frames_ = std::max<int64_t>(duration / value, 1);
            break;
        case Kind::tonic_count:
            count_ = std::min(uint64_t(value), extent.events);
            frames_ = int64_t(extent.events / count_);
            break;
        case Kind::sj_number:
            count_ = extent.events / uint64_t(value);
            break;
    }
    by_count_ = framing.kind == Kind::tonic_count || framing.kind == Kind::sj_number;
    remainder_ = framing.kind == Kind::sj_number || framing.kind == Kind::sj_time;
    bound_frames(frames_, framing);
}

size_t FramePlan::frame_of(uint64_t i, int64_t t) const {
    // Frames of no length, or of no events, hold nothing.
    uint64_t frame = uint64_t(frames_);
    if (by_count_ && count_ > 0) frame = i / count_;
    if (!by_count_ && window_ > 0) frame = uint64_t((t - first_) / window_);
    return size_t(std::min(frame, uint64_t(remainder_ ? frames_ - 1 : frames_)));
}

std::vector<size_t> frame_bounds(const Recording& recording, const Framing& framing) {
    const auto& events = recording.events;
    Extent extent{events.size(), 0, 0};
    if (!events.empty()) extent = {events.size(), events.front().t, events.back().t};
    const FramePlan plan(framing, extent);
    std::vector<size_t> bounds(plan.frames() + 1);
    size_t open = 1;  // frames before it are closed
    for (size_t i = 0; i < events.size(); ++i)
        for (const size_t frame = plan.frame_of(i, events[i].t); open <= frame; ++open)
            bounds[open] = i;
    for (; open <= plan.frames(); ++open) bounds[open] = events.size();
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
