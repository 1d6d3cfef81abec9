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

// Frame f holds the events [bounds[f], bounds[f + 1]). The recording has at least one event. Error
// above 100 000 frames.
std::vector<size_t> frame_bounds(const Recording&, const Framing&);

Tensor to_frames(const Recording&, const Framing&);  // counts [T, H, W, 2]; Error when empty

}  // namespace nc
