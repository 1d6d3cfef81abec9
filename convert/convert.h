// From a trained network to a spiking one: the driver and its options,
// statistics and measures.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "hw/energy.h"
#include "io/json.h"
#include "neurons/train.h"

namespace nc {

struct ConvertOptions {
    std::string strategy = "auto";  // auto qcfs_if_ft qcfs_direct percentile max none
    int T = 0;                      // 0: 16, residual graphs 32; recordings: the data's
    int levels = 0;                 // QCFS L; 0: 4 for T <= 4, else 8; exact neurons: T
    bool lambda_per_channel = true;
    double percentile = 99.9;
    size_t calibration_samples = 1000;
    int qcfs_epochs = -1;  // -1: 5, or 0 when the model's activations are QCFS already
    int if_epochs = 5;
    std::string recipe = "adamw";      // or "cifar": SGD 0.9
    std::string fold = "auto";         // BatchNorm before or after tuning; auto: after
    std::string neuron = "if";         // if, lif, exact, signed
    std::string max_pool = "average";  // or "keep", where its input is analog
    std::string bias_calibration;  // "": none, "channel", "step": one for every channel and step
    bool membrane_calibration = false;
    bool train_thresholds = false;
    size_t batch = 64;
    double qcfs_lr = 0, if_lr = 0;  // 0: the default of the recipe and depth
    double label_smoothing = 0;
    // Of both trainings of a conversion: TrainOptions, the teacher being the network as given.
    double distill = 0, temperature = 4;
    int64_t warmup = 0;      // steps
    bool recompute = false;  // tuning keeps packed spikes only: memory grows by bits, not floats
    AugmentOptions augment;
    std::string ann_frames = "mean";
    uint64_t seed = 0;
    int curve_T = 16;  // the accuracy curve runs to at least this many steps on static input
    std::string dump;  // folder for every stage's model, or empty
    // Folder where the trainings keep their state, <folder>/qcfs.safetensors and tune.safetensors;
    // empty: nowhere. With resume each goes on from what is there, to the bits of one that was
    // never cut; what is there of another start or other options is an Error.
    std::string checkpoint;
    bool resume = false;
    std::function<void(const std::string& stage, const Progress*)> progress;
    std::function<void(const std::string&)> warn;
    std::function<bool()> stop;  // true: Interrupted is thrown
};

struct LayerStatistics {
    std::string name;
    size_t neurons = 0;  // of a sample
    double threshold_min = 0, threshold_mean = 0, threshold_max = 0;
    std::vector<double> activation_histogram;  // of pre-activations over calibration data
    double histogram_low = 0, histogram_high = 0;
    uint64_t spikes = 0, possible = 0;  // over T steps of the test samples
};

struct Statistics {
    std::string strategy;
    std::string neuron;
    int T = 0;
    int levels = 0;
    uint64_t seed = 0;
    // percent; empty where no test data was given or the stage does not exist
    std::optional<double> ann_accuracy, qcfs_accuracy, if_accuracy, validation_accuracy, sparsity;
    std::vector<double> accuracy_at_t;
    size_t test_samples = 0;
    double conversion_time = 0;  // seconds, without test evaluations; resumed trainings whole
    // spikes that differ between the network before and after its amplitudes went into the weights
    uint64_t fold_compared = 0, fold_different = 0;
    std::optional<Energy> energy;  // of the test samples, at T
    struct Cost {
        int T;
        double accuracy, picojoules;  // percent; modelled, a sample
    };
    std::vector<Cost> costs;  // of the first T steps: powers of two, and the network's T
    std::vector<LayerStatistics> layers;
    std::vector<std::string> warnings;
};
Json to_json(const Statistics&);

struct Converted {
    Model model;  // the folded spiking network, ready to save
    Statistics statistics;
};

// The input is never changed. training is split for validation; test may be
// null. Errors: an activation, pooling or BatchNorm that has no spiking form (kind model, nodes
// named), options that contradict each other or the data.
Converted convert(Compute&, const Model&, const Dataset& training, const Dataset* test,
                  const ConvertOptions&);

// BPTT of a spiking model at T; amplitudes and thresholds as they are. Options used: T (0: the
// model's), if_epochs, if_lr, batch, augment, train_thresholds, label_smoothing, warmup,
// recompute, seed.
Converted finetune(Compute&, const Model&, const Dataset& training, const Dataset* test,
                   const ConvertOptions&);

// The options of both trainings, as convert() uses them.
TrainOptions qcfs_training(const Graph&, const ConvertOptions&);
TrainOptions tuning(const Graph&, const ConvertOptions&, int T);
// One of them, "qcfs" or "tune", on training and held-out samples.
Trained train_stage(Compute&, const std::string& name, const Graph&, const ModelInfo&,
                    const Dataset& fit, const Dataset& held, TrainOptions, const ConvertOptions&,
                    const Graph* teacher = nullptr);

// The steps a run takes. Error when data with T of its own is asked for another T: both are named.
int deployment_steps(const Graph&, int wanted, int stored, const Dataset&);

}  // namespace nc
