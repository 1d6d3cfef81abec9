// Counter-based random numbers (Philox 4x32-10; Salmon et al., SC 2011): the value depends on
// (seed, stream, counter) only, so a checkpoint holds one number and threads cannot change the
// result.
#pragma once

#include <cstdint>
#include <vector>

namespace nc {

class Random {
 public:
    // Different streams of one seed are independent sequences.
    explicit Random(uint64_t seed, uint64_t stream = 0, uint64_t counter = 0);

    uint32_t bits();             // 32 random bits
    uint64_t below(uint64_t n);  // uniform in [0, n), n > 0, unbiased
    double uniform();            // [0, 1), 53 bits
    double uniform(double a, double b) { return a + (b - a) * uniform(); }
    double normal();  // standard normal (Box-Muller)
    // How many draws of bits() were made: Random(seed, stream, counter()) continues the sequence.
    uint64_t counter() const { return counter_; }

    // A permutation of 0 .. n-1 (Fisher-Yates).
    std::vector<uint32_t> permutation(uint32_t n);

 private:
    uint64_t seed_, stream_, counter_;
    uint32_t block_[4];  // the four draws of which counter_ % 4 is next; stale when that is 0
};

}  // namespace nc
