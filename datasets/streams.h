// Which random streams of a seed the data uses: high tags, so that no other draw of the same seed
// meets them.
#pragma once

#include <cstdint>

namespace nc::streams {

constexpr uint64_t split = uint64_t(0xda01) << 48;
constexpr uint64_t shuffle = uint64_t(0xda02) << 48;    // + epoch
constexpr uint64_t augment = uint64_t(0xda03) << 48;    // + epoch << 32 + batch (modulo 2^48)
constexpr uint64_t synthetic = uint64_t(0xda04) << 48;  // + sample
constexpr uint64_t cartpole = uint64_t(0xda05) << 48;   // + episode: where it starts
constexpr uint64_t explore = uint64_t(0xda06) << 48;    // + episode or step
constexpr uint64_t replay = uint64_t(0xda07) << 48;     // + update
constexpr uint64_t camera = uint64_t(0xda08) << 48;     // + recording

}  // namespace nc::streams
