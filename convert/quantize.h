// From a spiking network in floats to the same network in whole numbers: 8-bit (or fewer) weights,
// integer thresholds and biases. The result is a Graph too, which the interpreter and the integer
// targets both run.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "convert/passes.h"
#include "neurons/train.h"

namespace nc {

struct QuantizeOptions {
    int bits = 8;  // of a weight, 2 .. 8: whole numbers within +-(2^(bits - 1) - 1)
    int T = 16;
    size_t calibration_samples = 1000;
    bool one_threshold = false;  // one scale a population: a layer of one threshold keeps it one
    bool clip_search =
        true;  // per channel the scale of least squared weight error, not the largest weight's
};

struct QuantizedLayer {
    std::string name;  // of the population the weights feed
    double scale_min = 0,
           scale_max = 0;     // units of the integers in one of the floats, over its channels
    double weight_error = 0;  // root mean square, relative to that of the weights
    int32_t threshold_min = 0, threshold_max = 0;
    double headroom = 0;  // largest membrane seen while calibrating, as a share of 2^17
};

struct Quantized {
    Graph graph;
    std::vector<QuantizedLayer> layers;  // topological order, the readout last
};

// Per channel of a population one scale s: what feeds it becomes round(w s), round(b s),
// round(theta s). s is the largest that respects the weights' range, thresholds up to 131071,
// biases and the currents and membranes that the calibration samples cause (at most half of 24-bit
// registers); branches of a residual share it; the readout has one for all classes. Inputs become
// signed 8-bit events with one scale (counts of events keep theirs), and the biases of what reads
// them make up for the mean error of that. Pools of spikes become counts,
// and their 1 / (kh kw) goes into the weights after them; a pool between weights and neuron goes
// into a larger kernel. Error (kind model) that names the node where a graph is not folded, or has
// what integer targets have no place for.
Quantized quantize(Compute&, const Graph&, const Dataset& calibration, const QuantizeOptions&);

// Quantisation-aware training: BPTT of a folded spiking network whose forward pass sees its weights
// rounded as they will be, while gradients go straight through the rounding. The result is in
// floats still.
Graph tune_rounded(Compute&, const Graph&, const ModelInfo&, const Dataset& training,
                   const QuantizeOptions&, const TrainOptions&, TrainHooks hooks);

// The weights a quantised network would have, still in floats: round(w s) / s, by full name; for
// training that knows it will be quantised. Shapes and topology as in the graph given.
class WeightRounding {
 public:
    WeightRounding(const Graph&, int bits, bool clip_search);
    // tensors: by full name; those it rounds are replaced by new ones.
    void apply(std::map<std::string, Tensor>& tensors) const;

 private:
    struct Group {
        std::vector<std::string> weights;  // full names that share scales
        bool one_scale;
    };
    std::vector<Group> groups_;
    int bits_;
    bool clip_search_;
};

}  // namespace nc
