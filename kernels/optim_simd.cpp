// The optim family of one instruction set: the reference's operations in its order.
#include "kernels/families.h"
#include "kernels/loops_simd.h"

namespace nc::kernels::NC_ISA {

constexpr static size_t grain = 16384;  // elements worth a thread

static inline Vec at_least(Vec lowest, Vec v) {
    return select(v < lowest, lowest, v);
}

static void sgd(Queue& q, const OptimSlice<float>* slices, size_t count, float grad_scale,
                float momentum, bool nesterov) {
    const Vec scale = broadcast(grad_scale), keep = broadcast(momentum);
    for (size_t k = 0; k < count; ++k) {
        const OptimSlice<float> s = slices[k];
        const Vec rate = broadcast(s.lr), decay = broadcast(s.weight_decay);
        const Vec lowest = broadcast(s.lowest);
        const auto run = [&](auto ahead) {
            parallel_vectors(q.threads, s.n, grain, [=](auto io, size_t i) {
                const Vec weight = io.load(s.w + i);
                const Vec slope = io.load(s.g + i) * scale + decay * weight;
                const Vec moment = keep * io.load(s.m + i) + slope;
                io.store(s.m + i, moment);
                io.store(s.w + i, at_least(lowest, weight - rate * ahead(slope, moment)));
            });
        };
        if (nesterov)
            run([=](Vec slope, Vec moment) { return slope + keep * moment; });
        else
            run([](Vec, Vec moment) { return moment; });
    }
}

static void adamw(Queue& q, const OptimSlice<float>* slices, size_t count, float grad_scale,
                  float beta1, float beta2, float eps, int64_t step) {
    const Vec scale = broadcast(grad_scale), keep1 = broadcast(beta1), keep2 = broadcast(beta2);
    const Vec rest1 = broadcast(1.0f - beta1), rest2 = broadcast(1.0f - beta2);
    const Vec root = broadcast(float(1 / sqrt(1 - pow(double(beta2), double(step)))));
    const Vec least = broadcast(eps);
    for (size_t k = 0; k < count; ++k) {
        const OptimSlice<float> s = slices[k];
        const Vec decay = broadcast(s.lr * s.weight_decay), lowest = broadcast(s.lowest);
        const Vec rate = broadcast(float(double(s.lr) / (1 - pow(double(beta1), double(step)))));
        parallel_vectors(q.threads, s.n, grain, [=](auto io, size_t i) {
            const Vec slope = io.load(s.g + i) * scale;
            const Vec first = keep1 * io.load(s.m + i) + rest1 * slope;
            const Vec second = keep2 * io.load(s.v + i) + rest2 * (slope * slope);
            io.store(s.m + i, first);
            io.store(s.v + i, second);
            const Vec ratio = first / (xsimd::sqrt(second) * root + least);
            const Vec weight = io.load(s.w + i);
            io.store(s.w + i, at_least(lowest, (weight - decay * weight) - rate * ratio));
        });
    }
}

Optim<float> optim() {
    return {.sgd = sgd, .adamw = adamw};
}

}  // namespace nc::kernels::NC_ISA
