// Thresholds from data: percentiles of pre-activations, and the pass that puts QCFS in the place of
// the activations (Bu et al., ICLR 2022).
#pragma once

#include <string>
#include <vector>

#include "convert/passes.h"
#include "neurons/train.h"

namespace nc {

// The exact upper percentile of up to `most` values that come one by one; keeps only those that can
// still matter.
class UpperPercentile {
 public:
    UpperPercentile(double percentile, size_t most);
    void add(float value) {
        ++count_;
        if (heap_.size() < keep_ || value > heap_.front()) push(value);
    }
    size_t count() const { return count_; }
    // Linear between the two nearest ranks, rank = percentile / 100 (count - 1). Needs count > 0.
    double value() const;

 private:
    void push(float value);
    double percentile_;
    size_t keep_, count_ = 0;
    std::vector<float> heap_;  // the largest keep_ values, smallest first
};

struct CalibrateOptions {
    double percentile = 99.9;  // 100: the maximum
    bool per_channel = true;
    std::string ann_frames = "mean";
    std::function<bool()> stop;
};

struct CalibratedLayer {
    size_t node;
    std::vector<float> lambda;  // [C] or [1]
    double lost = 0;  // share of the activation's mass (sum of |y|) that its negative inputs give
};

// One pass of the samples through the ANN: a layer for every activation but QCFS. lambda is the
// percentile of the channel's positive pre-activations; with fewer than 100 of them the layer's,
// with none at all 2; at least 1e-4 and, for ReLU6, at most 6.
std::vector<CalibratedLayer> calibrate(Compute&, const Graph&, const Dataset& samples,
                                       const CalibrateOptions&);

// Activations become QCFS with these lambdas; one that loses a negative lobe is a warning.
Graph to_qcfs(Graph, const std::vector<CalibratedLayer>&, int levels, const Warn&);

Graph with_levels(Graph, int levels);  // every QCFS gets this L

// Every activation with this one lambda: the uncalibrated baseline.
std::vector<CalibratedLayer> constant_thresholds(const Graph&, float lambda);

struct InputHistogram {
    std::string name;
    double low = 0, high = 0;
    std::vector<double> counts;  // of the node's input; values outside are in the end bins
};
// Pre-activations of every QCFS node over the samples, in bins from -2 to 2 largest lambdas.
std::vector<InputHistogram> input_histograms(Compute&, const Graph&, const Dataset& samples,
                                             const std::string& ann_frames,
                                             const std::function<bool()>& stop);

}  // namespace nc
