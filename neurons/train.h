// Training and evaluating any Graph on any Dataset: ANN, QCFS, direct spiking, fine-tuning. One
// loop for all.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "autograd/optim.h"
#include "datasets/dataset.h"
#include "io/model.h"
#include "neurons/forward.h"

namespace nc {

struct TrainOptions {
    int epochs = 5;
    size_t batch = 64;
    OptimOptions optim;
    Schedule schedule = Schedule::cosine;
    int64_t warmup = 0;  // steps
    double label_smoothing = 0;
    double ema = 0;  // decay of the weight average; 0: off
    AugmentOptions augment;
    int T = 16;  // spiking graphs on static data
    bool recompute = false;
    bool train_thresholds = false;    // theta of neurons; lambda of QCFS is always trained
    bool freeze_batch_norm = false;   // normalise by running statistics, and leave them alone
    std::string ann_frames = "mean";  // an ANN on temporal data: "mean" or "sum"
    // Share of the loss that asks for a teacher's answers (TrainHooks::teacher) and not the
    // labels: tau^2 times the cross-entropy of softmax(z / tau) against softmax(z_teacher / tau)
    // (Hinton et al. 2015), tau the temperature.
    double distill = 0, temperature = 4;
    uint64_t seed = 0;
    bool keep_best = true;    // return the epoch best on validation, when validation is given
    bool keep_start = false;  // the network as given is one of those chosen from, its epoch -1
    // Path written at the start, after every epoch (and every checkpoint_steps); empty: none.
    std::string checkpoint;
    int64_t checkpoint_steps = 0;
};

struct Progress {
    int epoch, epochs;
    int64_t step, steps;  // within the epoch
    double loss;          // mean over the epoch so far
    double accuracy;      // percent, training
    double samples_per_second, seconds_left;
    bool epoch_done;
    double validation_accuracy;  // percent; NaN unless epoch_done and validation was given
    double epoch_seconds;        // when epoch_done
    size_t peak_bytes;           // of tensors, since the epoch began
};

struct TrainHooks {
    std::function<void(const Progress&)> progress;
    std::function<bool()> stop;  // asked after every step; true: checkpoint and throw Interrupted
    // Replaces tensors (by full name) by what the network is to be run with, rounded weights say;
    // gradients go straight through to those that are trained. Validation runs with them, too.
    std::function<void(std::map<std::string, Tensor>&)> rounding;
    const Graph* teacher = nullptr;  // an ANN of as many classes; wanted when distill > 0
};

struct Interrupted : std::exception {
    const char* what() const noexcept override { return "interrupted"; }
};

struct Trained {
    Graph graph;                 // the best epoch on validation, else the last
    double validation_accuracy;  // percent, NaN without validation
    int best_epoch;
    double seconds;          // of all runs, when it was resumed
    double seconds_resumed;  // of them, those before the last run
};

// resume: a checkpoint's model (Model::state), or null. Resuming gives the bits of an uninterrupted
// run, whatever the threads; options that differ from the checkpoint's are an Error. Error when the
// loss becomes NaN, naming epoch and step. The last, smaller batch of an epoch is left out.
Trained train(Compute&, const Graph&, const ModelInfo&, const Dataset& training,
              const Dataset* validation, const TrainOptions&, const TrainHooks& hooks = {},
              const Model* resume = nullptr);

// A batch as the network takes it: recordings stay frames [T, N, ...], unless an ANN takes their
// sum.
struct Frames {
    Tensor x;
    bool temporal = false;
};
Frames frames_for(Compute&, const Graph&, const Batch&, const std::string& ann_frames);

struct Evaluation {
    double accuracy = 0;  // percent
    std::vector<double>
        accuracy_at_t;  // [T], percent: mean logits of the first t steps; one entry for an ANN
    size_t samples = 0;
    struct Layer {
        std::string name;
        uint64_t spikes = 0, possible = 0;
    };
    std::vector<Layer> layers;  // of neurons, in topological order
    double sparsity()
        const;  // percent of (neuron, step) pairs without a spike; NaN without neurons
    double seconds = 0;
};

struct EvaluateOptions {
    int T = 16;
    size_t batch = 250;
    size_t samples = 0;  // 0: all
    std::string ann_frames = "mean";
    ops::SpikePath path = ops::SpikePath::automatic;
    std::function<void(const Observation&)> observe;
};
Evaluation evaluate(Compute&, const Graph&, const Dataset&, const EvaluateOptions&);

}  // namespace nc
