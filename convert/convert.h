// From a trained network to a spiking one: the driver and its options, statistics and measures.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "neurons/train.h"

namespace nc {

struct ConvertOptions {
    std::string strategy = "auto";  // auto qcfs_if_ft qcfs_direct percentile max none
    int T = 0;                      // 0: 16, residual graphs 32; recordings: the data's
    int levels = 0;                 // QCFS L; 0: 4 for T <= 4, else 8
    bool lambda_per_channel = true;
    double percentile = 99.9;
    size_t calibration_samples = 1000;
    int qcfs_epochs = 5, if_epochs = 5;
    std::string recipe = "adamw";  // or "cifar": SGD 0.9
    std::string fold = "auto";     // before or after tuning; auto: after for residual graphs
    std::string neuron = "if";     // if, lif, exact, signed
    bool bias_calibration = false, membrane_calibration = false;
    bool train_thresholds = false;
    size_t batch = 64;
    AugmentOptions augment;
    std::string ann_frames = "mean";
    uint64_t seed = 0;
    std::string dump;  // folder for every stage's model, or empty
    std::function<void(const std::string& stage, const Progress*)> progress;
    std::function<void(const std::string&)> warn;
    std::function<bool()> stop;
};

struct LayerStatistics {
    std::string name;
    size_t neurons = 0;  // of a sample
    double threshold_min = 0, threshold_mean = 0, threshold_max = 0;
    std::vector<double> activation_histogram;  // of pre-activations over calibration data
    double histogram_low = 0, histogram_high = 0;
    uint64_t spikes = 0, possible = 0;
};

struct Statistics {
    std::string strategy;
    int T = 0;
    uint64_t seed = 0;
    // percent; empty where no test data was given or the stage does not exist
    std::optional<double> ann_accuracy, qcfs_accuracy, if_accuracy, validation_accuracy, sparsity;
    std::vector<double> accuracy_at_t;
    size_t test_samples = 0;
    double conversion_time = 0;  // seconds
    std::vector<LayerStatistics> layers;
    std::vector<std::string> warnings;
};
Json to_json(const Statistics&);

struct Converted {
    Model model;  // the folded spiking network, ready to save
    Statistics statistics;
};

// The input is never changed. training is split for validation (SEMANTICS section 4); test may be
// null.
Converted convert(Compute&, const Model&, const Dataset& training, const Dataset* test,
                  const ConvertOptions&);

// BPTT of a spiking model at T; amplitudes and thresholds as they are.
Converted finetune(Compute&, const Model&, const Dataset& training, const Dataset* test,
                   const ConvertOptions&);

}  // namespace nc
