// Synaptic operations counted from what a network really did on data, and their modelled energy
// (45 nm figures, Horowitz, ISSCC 2014). Arithmetic only, no memory traffic.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "hw/target.h"
#include "io/json.h"
#include "neurons/forward.h"

namespace nc {

// What one layer did over all samples and steps.
struct LayerOperations {
    std::string name;
    uint64_t macs = 0;        // for analog input: every weight and input that meet
    uint64_t acs = 0;         // spikes times the non-zero weights each reaches
    uint64_t dense_macs = 0;  // of one forward of one sample
    bool analog = false;      // its input is not spikes
    bool cached = false;      // constant analog input, computed once a sample
};

struct Operations {
    size_t samples = 0, steps = 0;
    std::vector<LayerOperations> layers;  // topological order
    uint64_t macs() const;
    uint64_t acs() const;
    uint64_t dense_macs() const;  // of one forward of one sample
};

// Weights met by an input of [H, W, cin] or [in], zeros included and padding not: what a dense
// layer multiplies for one sample. 0 for a node without weights.
uint64_t dense_macs(const Node&, const Shape& input);

// How many non-zero weights each element of the input reaches, one value an element.
std::vector<uint64_t> fan_out(const Node&, const Shape& input);

// Accumulations of a layer whose input elements fired so often, summed over samples and steps.
uint64_t accumulations(const Node&, const Shape& input, const std::vector<uint64_t>& spikes);

// Follows forward() through ForwardOptions::observe (or EvaluateOptions::observe), layer by layer.
// Spikes come from neurons (and from frames whose values are all -1, 0 or 1), and keep being
// counted one by one through pooling, flattening and additions; everything else is analog. A Scale,
// and a neuron that spikes reach without weights, are charged one accumulation a spike; a Scale that
// makes counts of a pool's averages costs nothing.
class OperationCounter {
 public:
    // Counts the first `steps` of every run; 0: all. marks, ascending: numbers of steps that
    // result() may be asked for besides all of them.
    explicit OperationCounter(const Graph& graph, size_t steps = 0,
                              const std::vector<size_t>& marks = {});
    void observe(const Observation&);
    // Of the first `steps` steps, one of the marks; 0: of all. Error on delayed edges, whose spikes
    // may not arrive within the run.
    Operations result(size_t steps = 0) const;

 private:
    Graph graph_;
    std::vector<Shape> shapes_;
    size_t limit_, samples_ = 0, steps_ = 0;
    std::vector<size_t> marks_;
    std::map<size_t, std::vector<uint64_t>> spikes_;  // by node: [marks and the rest, elements]
    std::map<size_t, bool> timed_;                    // a node's input changes over time
    bool binary_input_ = true;
};

// Modelled, per sample.
struct Energy {
    Target target;
    size_t samples = 0, steps = 0;
    double frames = 1;  // forwards of the analog network a sample
    double ann_macs = 0, macs = 0, acs = 0;
    double ann_picojoules = 0, picojoules = 0;
    double saving = 0;        // percent, 100 (1 - E_snn / E_ann); may be negative
    double wrong_saving = 0;  // percent, by the formula some tools print; only to be labelled wrong
    std::vector<LayerOperations> layers;
};

// frames: forwards the analog network needs for one sample, 1 for pictures.
Energy energy(const Operations&, const Target& target, size_t frames = 1);
// As if layers of constant analog input were computed at every step.
Operations without_cache(Operations);
// The share of its spikes a network may fire to cost what the analog one does: above 1 it saves. 0
// where its multiplications alone cost more; infinite where no spike costs anything.
double break_even_rate(const Energy&);
// With the constants, their sources and every assumption in words.
Json to_json(const Energy&);

}  // namespace nc
