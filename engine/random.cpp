// Philox 4x32-10 (Salmon et al., SC 2011): the seed is the key, (block, stream) the counter.
#include "engine/random.h"

#include <cmath>
#include <numbers>
#include <utility>

namespace nc {
namespace {

void philox(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4]) {
    uint32_t c0 = uint32_t(block), c1 = uint32_t(block >> 32), c2 = uint32_t(stream),
             c3 = uint32_t(stream >> 32);
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
        c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
        c1 = uint32_t(p1);
        c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
        c3 = uint32_t(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

}  // namespace

Random::Random(uint64_t seed, uint64_t stream, uint64_t counter)
    : seed_(seed), stream_(stream), counter_(counter) {
    philox(seed_, stream_, counter_ / 4, block_);
}

uint32_t Random::bits() {
    if (counter_ % 4 == 0) philox(seed_, stream_, counter_ / 4, block_);
    return block_[counter_++ % 4];
}

// Rejects the lowest 2^w mod n draws, after which every remainder is equally likely.
uint64_t Random::below(uint64_t n) {
    if (n <= UINT32_MAX) {
        const uint32_t small = uint32_t(n), reject = (0u - small) % small;
        uint32_t x = bits();
        while (x < reject) x = bits();
        return x % small;
    }
    const auto draw = [this] {
        const uint64_t high = bits();
        return high << 32 | bits();
    };
    const uint64_t reject = (0 - n) % n;
    uint64_t x = draw();
    while (x < reject) x = draw();
    return x % n;
}

double Random::uniform() {
    const uint64_t high = bits();
    return double((high << 32 | bits()) >> 11) * 0x1p-53;
}

double Random::normal() {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
}

std::vector<uint32_t> Random::permutation(uint32_t n) {
    std::vector<uint32_t> out(n);
    for (uint32_t i = 0; i < n; ++i) out[i] = i;
    for (uint32_t i = n; i > 1; --i) std::swap(out[i - 1], out[below(i)]);
    return out;
}

}  // namespace nc
