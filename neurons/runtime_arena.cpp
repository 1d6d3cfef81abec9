// Where buffers lie in one arena.
#include "neurons/runtime_arena.h"

#include <algorithm>
#include <string>

#include "engine/error.h"

namespace nc::plan {
namespace {

constexpr size_t forever = SIZE_MAX;
constexpr size_t most_bytes = size_t(1) << 36;

size_t whole_lines(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

}  // namespace

size_t bytes_of(size_t a, size_t b) {
    size_t out = 0;
    if (__builtin_mul_overflow(a, b, &out) || out > most_bytes)
        throw Error(
            "[runtime] a layer needs " + std::to_string(a) + " x " + std::to_string(b) + " bytes",
            ErrorKind::model);
    return out;
}

Buffer Arena::keep(size_t bytes) {
    wanted_.push_back({whole_lines(bytes), 0, forever});
    return Buffer(wanted_.size()) - 1;
}

Buffer Arena::make(size_t bytes, size_t stage) {
    wanted_.push_back({whole_lines(bytes), stage, stage});
    return Buffer(wanted_.size()) - 1;
}

void Arena::use(Buffer b, size_t stage) {
    if (b != none && wanted_[size_t(b)].last != forever) wanted_[size_t(b)].last = stage;
}

// The largest first, each as low as those that are used with it allow.
std::vector<size_t> Arena::offsets(size_t* bytes) const {
    std::vector<size_t> by_size(wanted_.size()), out(wanted_.size()), placed;
    for (size_t i = 0; i < by_size.size(); ++i) by_size[i] = i;
    std::stable_sort(by_size.begin(), by_size.end(),
                     [&](size_t a, size_t b) { return wanted_[a].bytes > wanted_[b].bytes; });
    *bytes = 0;
    for (const size_t i : by_size) {
        const Wanted& mine = wanted_[i];
        std::vector<std::pair<size_t, size_t>> taken;
        for (const size_t other : placed)
            if (wanted_[other].first <= mine.last && mine.first <= wanted_[other].last)
                taken.emplace_back(out[other], out[other] + wanted_[other].bytes);
        std::sort(taken.begin(), taken.end());
        size_t at = 0;
        for (const auto& [begin, end] : taken) {
            if (begin >= at + mine.bytes) break;
            at = std::max(at, end);
        }
        out[i] = at;
        *bytes = std::max(*bytes, at + mine.bytes);
        placed.push_back(i);
    }
    if (*bytes > most_bytes)
        throw Error("[runtime] the network needs " + std::to_string(*bytes) + " bytes",
                    ErrorKind::model);
    return out;
}

}  // namespace nc::plan
