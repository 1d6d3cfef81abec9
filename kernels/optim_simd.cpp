// The optim family of one instruction set: the reference's operations in its order.
#include "kernels/families.h"
#include "kernels/loops_simd.h"

namespace nc::kernels::NC_ISA {

constexpr static size_t grain = 16384;  // elements worth a thread

static void sgd(Queue& q, const float* g, float grad_scale, float lr, float momentum, bool nesterov,
                float weight_decay, float* w, float* m, size_t n) {
    const Vec scale = broadcast(grad_scale), rate = broadcast(lr), keep = broadcast(momentum);
    const Vec decay = broadcast(weight_decay);
    const auto run = [&](auto ahead) {
        parallel_vectors(q.threads, n, grain, [=](auto io, size_t i) {
            const Vec weight = io.load(w + i);
            const Vec slope = io.load(g + i) * scale + decay * weight;
            const Vec moment = keep * io.load(m + i) + slope;
            io.store(m + i, moment);
            io.store(w + i, weight - rate * ahead(slope, moment));
        });
    };
    if (nesterov)
        run([=](Vec slope, Vec moment) { return slope + keep * moment; });
    else
        run([](Vec, Vec moment) { return moment; });
}

static void adamw(Queue& q, const float* g, float grad_scale, float lr, float beta1, float beta2,
                  float eps, float weight_decay, int64_t step, float* w, float* m, float* v,
                  size_t n) {
    const Vec scale = broadcast(grad_scale), keep1 = broadcast(beta1), keep2 = broadcast(beta2);
    const Vec rest1 = broadcast(1.0f - beta1), rest2 = broadcast(1.0f - beta2);
    const Vec decay = broadcast(lr * weight_decay), least = broadcast(eps);
    const Vec rate = broadcast(float(double(lr) / (1 - pow(double(beta1), double(step)))));
    const Vec root = broadcast(float(1 / sqrt(1 - pow(double(beta2), double(step)))));
    parallel_vectors(q.threads, n, grain, [=](auto io, size_t i) {
        const Vec slope = io.load(g + i) * scale;
        const Vec first = keep1 * io.load(m + i) + rest1 * slope;
        const Vec second = keep2 * io.load(v + i) + rest2 * (slope * slope);
        io.store(m + i, first);
        io.store(v + i, second);
        const Vec ratio = first / (xsimd::sqrt(second) * root + least);
        const Vec weight = io.load(w + i);
        io.store(w + i, (weight - decay * weight) - rate * ratio);
    });
}

Optim<float> optim() {
    return {.sgd = sgd, .adamw = adamw};
}

}  // namespace nc::kernels::NC_ISA
