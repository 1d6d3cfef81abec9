// What training changes, kept apart from the Graph; a checkpoint is a model file made of it.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "neurons/train.h"

namespace nc {

using Tensors = std::map<std::string, Tensor>;  // by full name, "<node>.<field>"

struct TrainState {
    Tensors tensors;  // of the graph, all of them: own copies, written in place
    std::map<std::string, TensorRole> trained;  // which of them the optimiser moves
    Tensors average;                            // decaying average of `tensors`; empty when off
    Moments moments;

    Tensors best;  // the epoch best on validation; empty before the first
    double best_accuracy = std::numeric_limits<double>::quiet_NaN();
    int best_epoch = -1;

    int epoch = 0;
    int64_t step = 0;  // within the epoch; the next one to do
    // Over the epoch so far.
    double loss_sum = 0;
    uint64_t correct = 0, seen = 0;
    double epoch_seconds = 0;
    double seconds = 0;  // over all
};

TrainState begin_training(const Graph&, const TrainOptions&);

// The graph with these tensors, shared; own copies when the graph is to outlive the state.
Graph with_tensors(Graph, const Tensors&);
Tensors copies(const Tensors&);
// All tensors of the state where this Compute works; files hold the host's.
void move_to(const Compute&, TrainState&);
Tensors on_host(const Tensors&);

// All tensors for a forward pass, those that are trained on the tape; and, when the tape was
// walked, what the optimiser takes.
Parameters on_tape(const TrainState&, Tape&);
std::vector<Parameter> with_gradients(TrainState&, const Tape&, const Parameters&);

// After a step: average += (1 - decay) (tensors - average), the decay warmed up.
void update_average(Compute&, TrainState&, double decay, int64_t step);

Json to_json(const TrainOptions&);  // what decides the result, to be compared on resuming

Model make_checkpoint(const TrainState&, const Graph&, const ModelInfo&, const TrainOptions&);
// Error (kind model): not a checkpoint, of another network, or of other options (which are named).
TrainState resume_training(const Model&, const Graph&, const TrainOptions&);

}  // namespace nc
