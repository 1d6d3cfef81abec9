// Optimisers over named parameters, learning-rate schedules, gradient clipping.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/compute.h"
#include "engine/graph.h"

namespace nc {

struct OptimOptions {
    enum class Kind { sgd, adamw } kind = Kind::adamw;
    double lr = 3e-3;
    double momentum = 0.9;  // sgd
    bool nesterov = true;   // sgd
    double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
    double weight_decay = 1e-4;  // not on biases, norms and thresholds unless decay_all
    double threshold_lr = 5e-2;  // lambda and theta
    bool decay_all = false;
    double clip_norm = 0;  // 0: off; over all gradients together
};

// lr at `step` of `steps`: linear warm-up over warmup steps, then this schedule down to 0
// (constant: no decay).
enum class Schedule { constant, cosine, linear, step };  // step: x0.1 at 1/2 and 3/4
double scheduled(Schedule, double lr, int64_t step, int64_t steps, int64_t warmup);

// One trained tensor: written in place, so it must not be a Graph's own.
struct Parameter {
    std::string name;
    Tensor* value;
    Tensor gradient;  // undefined: nothing reached it, it stays as it is
    TensorRole role;
};

// What an optimiser remembers; a checkpoint stores both fields. Made on first use.
struct Moments {
    std::map<std::string, Tensor> tensors;  // "<parameter>.m", adamw also "<parameter>.v"
    int64_t step = 0;                       // steps taken
};

// One step over all parameters, at lr * factor and threshold_lr * factor (factor: the schedule's
// share, scheduled(schedule, 1, ...)). Gradients are scaled together when their common norm exceeds
// clip_norm. Thresholds are kept >= min_threshold by projection; statistics are left alone. Returns
// the norm of all gradients before clipping; NaN on a device that need not clip.
constexpr double min_threshold = 1e-4;
double optimise(Compute&, const OptimOptions&, double factor, std::vector<Parameter>& parameters,
                Moments& moments);

}  // namespace nc
