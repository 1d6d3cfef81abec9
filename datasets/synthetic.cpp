// Moving shapes before a simulated event camera, for tests and trials without data.
#include <algorithm>
#include <cmath>

#include "datasets/events.h"
#include "datasets/streams.h"

namespace nc {
namespace {

constexpr int side = 34;
constexpr int64_t duration = 300'000;  // microseconds, as an N-MNIST recording

// A pixel turns on where the shape arrives and off where it leaves.
Recording draw(Random random, int32_t label) {
    const bool disc = label / 4 == 0;
    const int direction = label % 4;  // right, left, down, up
    const double radius = random.uniform(4, 7);
    const double travel = random.uniform(10, 16);
    const double middle = (side - 1) / 2.0;
    const double start_x = middle + random.uniform(-4, 4), start_y = middle + random.uniform(-4, 4);
    const auto covers = [&](int x, int y, double moved) {
        const double along = (direction % 2 == 0 ? 1 : -1) * (moved - travel / 2);
        const double dx = x - start_x - (direction < 2 ? along : 0);
        const double dy = y - start_y - (direction < 2 ? 0 : along);
        return disc ? dx * dx + dy * dy <= radius * radius
                    : std::max(std::abs(dx), std::abs(dy)) <= radius;
    };

    Recording out{side, side, {}};
    constexpr int64_t step = 5'000;
    for (int64_t t = 0; t < duration; t += step) {
        const double before = travel * double(t) / duration;
        const double after = travel * double(t + step) / duration;
        for (uint16_t y = 0; y < side; ++y)
            for (uint16_t x = 0; x < side; ++x) {
                const bool was = covers(x, y, before), is = covers(x, y, after);
                if (was != is) out.events.push_back({t + int64_t(random.below(step)), x, y, is});
            }
        // Two events of noise a step.
        for (int i = 0; i < 2; ++i) {
            const uint16_t x = uint16_t(random.below(side)), y = uint16_t(random.below(side));
            const int64_t time = t + int64_t(random.below(step));
            out.events.push_back({time, x, y, uint8_t(random.below(2))});
        }
    }
    std::stable_sort(out.events.begin(), out.events.end(),
                     [](const Event& a, const Event& b) { return a.t < b.t; });
    return out;
}

}  // namespace

RecordingSource synthetic_source(size_t count, uint64_t seed) {
    RecordingSource out;
    out.simulated = true;
    for (size_t i = 0; i < count; ++i) out.labels.push_back(int32_t(i % synthetic_classes));
    out.recording = [seed](size_t i) {
        return draw(Random(seed, streams::synthetic + i), int32_t(i % synthetic_classes));
    };
    return out;
}

}  // namespace nc
