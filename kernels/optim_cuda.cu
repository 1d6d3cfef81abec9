// The optim family on CUDA: up to 48 parameters a launch, which travel as the kernel's own
// arguments; a block steps 1024 elements of one of them.
//
// Bytes an element: sgd reads g w m, writes w m: 20; adamw also v: 28. A thread has its four
// elements of all arrays in flight at once. Bitwise: the reference's operations in its order,
// --fmad=false.
#include <cmath>

#include "kernels/cuda_util.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

constexpr unsigned threads = 256, steps = 4, block_elements = threads * steps;
constexpr unsigned most_slices = 48;

// Slice k has blocks first[k] .. first[k + 1].
struct Batch {
    OptimSlice<float> slice[most_slices];
    unsigned first[most_slices + 1];
    unsigned count;
};
static_assert(sizeof(Batch) < 3500, "a kernel's arguments hold 4 KB");

struct Sgd {
    static constexpr bool second = false;  // whether there is a v
    float grad_scale, momentum;
    bool nesterov;
    __device__ void operator()(const OptimSlice<float>& s, float g, float& w, float& m,
                               float&) const {
        const float slope = g * grad_scale + s.weight_decay * w;
        m = momentum * m + slope;
        const float direction = nesterov ? slope + momentum * m : m;
        w = w - s.lr * direction;
    }
};

// Its slices have lr / (1 - beta1^step) for lr, and lr * weight_decay for weight_decay.
struct AdamW {
    static constexpr bool second = true;
    float grad_scale, beta1, beta2, rest1, rest2, root, eps;
    __device__ void operator()(const OptimSlice<float>& s, float g, float& w, float& m,
                               float& v) const {
        const float slope = g * grad_scale;
        m = beta1 * m + rest1 * slope;
        v = beta2 * v + rest2 * (slope * slope);
        const float ratio = m / (sqrtf(v) * root + eps);
        w = (w - s.weight_decay * w) - s.lr * ratio;
    }
};

// Steps element i, of which the arrays hold these.
template <class Rule>
__device__ void store(const Rule& rule, const OptimSlice<float>& s, size_t i, float g, float w,
                      float m, float v) {
    rule(s, g, w, m, v);
    s.w[i] = w < s.lowest ? s.lowest : w;
    s.m[i] = m;
    if (Rule::second) s.v[i] = v;
}

template <class Rule>
__global__ void step_slices(Rule rule, Batch batch) {
    unsigned k = 0;
    while (k + 1 < batch.count && blockIdx.x >= batch.first[k + 1]) ++k;
    const OptimSlice<float> s = batch.slice[k];
    const size_t begin = size_t(blockIdx.x - batch.first[k]) * block_elements + threadIdx.x;
    if (begin + (steps - 1) * threads < s.n) {
        float g[steps], w[steps], m[steps], v[steps];
        NC_UNROLL
        for (unsigned j = 0; j < steps; ++j) {
            const size_t i = begin + j * threads;
            g[j] = s.g[i];
            w[j] = s.w[i];
            m[j] = s.m[i];
            v[j] = Rule::second ? s.v[i] : 0;
        }
        NC_UNROLL
        for (unsigned j = 0; j < steps; ++j)
            store(rule, s, begin + j * threads, g[j], w[j], m[j], v[j]);
    } else {
        for (size_t i = begin; i < s.n; i += threads)
            store(rule, s, i, s.g[i], s.w[i], s.m[i], Rule::second ? s.v[i] : 0);
    }
}

// prepare(slice) gives the slice as the rule takes it.
template <class Rule, class Prepare>
void step_all(Queue& q, Rule rule, const OptimSlice<float>* slices, size_t count, Prepare prepare) {
    for (size_t at = 0; at < count; at += most_slices) {
        Batch batch;
        batch.count = unsigned(count - at < most_slices ? count - at : most_slices);
        batch.first[0] = 0;
        for (unsigned k = 0; k < batch.count; ++k) {
            batch.slice[k] = prepare(slices[at + k]);
            batch.first[k + 1] =
                batch.first[k] + unsigned((slices[at + k].n + block_elements - 1) / block_elements);
        }
        launch(step_slices<Rule>, dim3(batch.first[batch.count]), dim3(threads), q, rule, batch);
    }
}

void sgd(Queue& q, const OptimSlice<float>* slices, size_t count, float grad_scale, float momentum,
         bool nesterov) {
    step_all(q, Sgd{grad_scale, momentum, nesterov}, slices, count,
             [](const OptimSlice<float>& s) { return s; });
}

void adamw(Queue& q, const OptimSlice<float>* slices, size_t count, float grad_scale, float beta1,
           float beta2, float eps, int64_t step) {
    const double correction = 1 - std::pow(double(beta1), double(step));
    const float root = float(1 / std::sqrt(1 - std::pow(double(beta2), double(step))));
    step_all(q, AdamW{grad_scale, beta1, beta2, 1.0f - beta1, 1.0f - beta2, root, eps}, slices,
             count, [=](OptimSlice<float> s) {
                 s.weight_decay = s.lr * s.weight_decay;
                 s.lr = float(double(s.lr) / correction);
                 return s;
             });
}

}  // namespace

Optim<float> optim() {
    return {.sgd = sgd, .adamw = adamw};
}

}  // namespace nc::kernels::NC_CUDA
