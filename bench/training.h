// What nc_bench train measures: whole training steps of train(), on one batch again and again.
#pragma once

#include <string>

#include "bench/bench.h"
#include "engine/graph.h"

namespace nc::bench {

// What is trained on: x [T, N, sample] for recordings, else [N, sample], both where the host is,
// and labels [N].
struct TrainingBatch {
    Tensor x;
    bool temporal = false;
    size_t T = 0;
    std::vector<int32_t> labels;
};

// Drawn at random: frames in which a tenth of the values are 1, or values from -1 to 1. Labels take
// turns over the network's outputs.
TrainingBatch random_training_batch(const Graph&, bool temporal, size_t T, size_t N, uint64_t seed);

struct TrainingRow {
    Row row;
    double loss = 0;        // of the first step
    size_t peak_bytes = 0;  // of tensors
    Graph stepped;          // after one step of plain descent: the weights less their gradients
};

// Steps of AdamW as train() does them: the batch's own copy to where it works, forward, loss, back
// in time, update. Error when the gradients of two samples over at most 8 steps are further than 1
// % (of their norm) from those of the reference kernels. The floor: the products of all weight
// layers at every step, forward and for both gradients, as if inputs were dense, at the FMA peak.
TrainingRow measure_training(Machine&, const std::string& name, const Graph&, const TrainingBatch&,
                             Compute&, double seconds, bool recompute);

}  // namespace nc::bench
