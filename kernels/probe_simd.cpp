// How fast this instruction set multiplies and adds when nothing but registers is involved.
#include "kernels/families.h"
#include "kernels/isa.h"

namespace nc::kernels::NC_ISA {

// Twelve independent chains: more than any of these machines' latency times its units.
double multiply_adds(size_t rounds, float* sink) {
    constexpr size_t chains = 12;
    Vec sum[chains];
    for (size_t i = 0; i < chains; ++i) sum[i] = broadcast(float(i));
    const Vec factor = broadcast(*sink), term = broadcast(1e-9f);
    for (size_t round = 0; round < rounds; ++round) {
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 12
#endif
        for (size_t i = 0; i < chains; ++i) sum[i] = fma(sum[i], factor, term);
    }
    Vec total = sum[0];
    for (size_t i = 1; i < chains; ++i) total = total + sum[i];
    *sink = reduce_add(total);
    return double(rounds) * chains * lanes * 2;
}

}  // namespace nc::kernels::NC_ISA
