// What nc_bench stream measures: events in, decisions out, one frame at a time.
#pragma once

#include <vector>

#include "datasets/events.h"
#include "neurons/runtime.h"

namespace nc::bench {

struct StreamCase {
    size_t T = 16;       // frames of a decision, at most
    int64_t window = 0;  // us of events in a frame
    double margin = 0;   // above 0: decided once the mean logits' largest leads the next by this
};

struct Decision {
    int64_t t = 0;  // us: when the last frame it took was full
    size_t answer = 0, steps = 0;
    double seconds = 0;               // of computing: counting events into frames, and all steps
    double last_seconds = 0;          // of that, from the last frame's end to the answer
    double possible = 0, spikes = 0;  // neurons that could have spiked and did, over the steps
    std::vector<float> frames;        // [steps, H, W, 2]
};

// What a network says of events, from events[from] on: frames follow one another from time t on,
// while there are events. Moves `from` and `t` to where the next decision begins. Error when the
// sensor is not the network's input.
Decision decide(Runtime&, const Recording&, const StreamCase&, size_t& from, int64_t& t);

}  // namespace nc::bench
