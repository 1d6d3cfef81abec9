// The loss family of one instruction set: a row at a time, exponentials by vectors.
#include "kernels/families.h"
#include "kernels/loops_simd.h"
#include "kernels/math_simd.h"

namespace nc::kernels::NC_ISA {

constexpr static size_t grain = 8192;  // elements worth a thread

// The vector at i of a row, -infinity beyond its end: no weight in a maximum or a softmax.
static inline Vec load_row(const float* z, size_t i, size_t cols) {
    if (i + lanes <= cols) return load(z + i);
    const size_t n = cols - i;
    return select(mask_from_bits((1u << n) - 1), load_partial(z + i, n),
                  broadcast(-__builtin_inff()));
}

static inline float row_top(const float* z, size_t cols) {
    Vec top = load_row(z, 0, cols);
    for (size_t i = lanes; i < cols; i += lanes) top = xsimd::max(top, load_row(z, i, cols));
    float each[lanes];
    store(each, top);
    float best = each[0];
    for (float v : each) best = v > best ? v : best;
    return best;
}

static inline float row_sum(const float* z, float top, size_t cols) {
    Vec sum = broadcast(0);
    for (size_t i = 0; i < cols; i += lanes)
        sum = sum + NC_ISA::exp(load_row(z, i, cols) - broadcast(top));
    return reduce_add(sum);
}

static void softmax(Queue& q, const float* logits, float* probabilities, size_t rows, size_t cols) {
    if (cols == 0) return;
    parallel_for(q.threads, rows, grain / cols + 1, [=](size_t begin, size_t end) {
        for (size_t r = begin; r < end; ++r) {
            const float* z = logits + r * cols;
            float* p = probabilities + r * cols;
            const float top = row_top(z, cols);
            const Vec sum = broadcast(row_sum(z, top, cols)), high = broadcast(top);
            vector_loop(0, cols, [=](auto io, size_t i) {
                io.store(p + i, NC_ISA::exp(io.load(z + i) - high) / sum);
            });
        }
    });
}

static void cross_entropy(Queue& q, const float* logits, const float* targets, float* loss,
                          float* dlogits, size_t rows, size_t cols) {
    if (cols == 0) return;
    const float mean = 1.0f / float(rows);
    parallel_for(q.threads, rows, grain / cols + 1, [=](size_t begin, size_t end) {
        for (size_t r = begin; r < end; ++r) {
            const float *z = logits + r * cols, *wanted = targets + r * cols;
            const float top = row_top(z, cols), sum = row_sum(z, top, cols);
            const Vec high = broadcast(top), log_sum = broadcast(logf(sum)), none = broadcast(0);
            Vec total = none;
            vector_loop(0, cols, [&](auto io, size_t i) {
                const Vec target = io.load(wanted + i);  // 0 beyond the row's end
                const Vec surprise = log_sum - (io.load(z + i) - high);
                total = total + select(target == none, none, target * surprise);
            });
            loss[r] = reduce_add(total);
            if (dlogits == nullptr) continue;
            float* d = dlogits + r * cols;
            const Vec inverse = broadcast(1.0f / sum), factor = broadcast(mean);
            vector_loop(0, cols, [=](auto io, size_t i) {
                const Vec p = NC_ISA::exp(io.load(z + i) - high) * inverse;
                io.store(d + i, (p - io.load(wanted + i)) * factor);
            });
        }
    });
}

Loss<float> loss() {
    return {.softmax = softmax, .cross_entropy = cross_entropy};
}

}  // namespace nc::kernels::NC_ISA
