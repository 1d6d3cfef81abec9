// From events to frames, by the conventions of two tools, which differ in the last frame.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace nc {

struct Recording;

// tonic:bins=N      N windows of floor((last - first) / N) us from the first event on; what is left
//                   over (the last event always is) is dropped
// tonic:window=10ms windows of this length (us, ms or s) from the first event on; an incomplete
// last
//                   one is dropped, but there is at least one
// tonic:count=N     N events a frame; an incomplete last one is dropped, but there is at least one
// sj:number=N       N frames of floor(events / N) events; the last takes the remainder
// sj:time=N         N windows of floor((last - first) / N) us; the last takes the remainder
struct Framing {
    enum class Kind { tonic_bins, tonic_window, tonic_count, sj_number, sj_time };
    Kind kind = Kind::tonic_bins;
    int64_t value = 16;  // frames, microseconds or events

    // Whether every recording gives `value` frames.
    bool fixed_frames() const { return kind != Kind::tonic_window && kind != Kind::tonic_count; }
    std::string str() const;  // what parse_framing reads
    bool operator==(const Framing&) const = default;
};
Framing parse_framing(const std::string& text);  // Error with a hint

// Of a recording's events, in time order.
struct Extent {
    uint64_t events = 0;
    int64_t first = 0, last = 0;  // times, when there are events
};

// Which frame an event belongs to, known from the extent alone. Error without events, and above
// 100 000 frames.
class FramePlan {
 public:
    FramePlan(const Framing&, const Extent&);
    size_t frames() const { return size_t(frames_); }
    // Of event i (in time order) at time t; frames() when it is in none. Ascends with i.
    size_t frame_of(uint64_t i, int64_t t) const;

 private:
    int64_t frames_ = 0, window_ = 0, first_ = 0;
    uint64_t count_ = 0;
    bool by_count_ = false, remainder_ = false;  // the last frame takes what is left over
};

int64_t parse_duration(const std::string& text);  // "10ms" (or us, s) in microseconds, > 0; Error

// Frame f holds the events [bounds[f], bounds[f + 1]). The recording has at least one event. Error
// above 100 000 frames.
std::vector<size_t> frame_bounds(const Recording&, const Framing&);

Tensor to_frames(const Recording&, const Framing&);  // counts [T, H, W, 2]; Error when empty

}  // namespace nc
