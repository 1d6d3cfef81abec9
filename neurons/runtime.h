// The inference runtime: a spiking network compiled once for one sample at a time, then run without
// allocating, locking or calling the system.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/graph.h"

namespace nc {

// How a weight layer adds: by walking the inputs that are not zero, or over all inputs. automatic:
// whichever is faster at the rate it meets.
enum class RuntimePath { automatic, dense, event };

struct RuntimeOptions {
    // Threads that share one sample; of a batch, each takes samples of its own.
    size_t threads = 1;
    // Steps that memory is laid out for, at most 32 of them at a time. More can be run.
    size_t T = 16;
    // What most samples are: recordings, another frame at each step, or pictures. The other kind
    // can be run too, only slower.
    bool temporal = false;
    RuntimePath path = RuntimePath::automatic;
    std::map<std::string, RuntimePath> layers;  // of single weight layers, by name
    // Above 0: a run ends after the first step at which the mean logits' largest leads the next by
    // this much.
    double exit_margin = 0;
    bool record = false;  // keep all spikes, for spikes()
    // A quantised network is computed in integers, 8- and 16-bit weights and 32-bit membranes, as
    // hw/fpga has it: the same spikes as in floats, but that leaky membranes are cut as there.
    bool integers = true;
    const kernels::Table<float>* table = nullptr;  // null: kernels::best()
};

// What a weight layer did in the last run.
struct LayerActivity {
    std::string name;
    // Of all samples and steps: input values, and those not zero (in integers, under a pool, all
    // spikes).
    size_t inputs = 0, events = 0;
    size_t outputs = 0, spikes = 0;  // of the neurons after it; 0 without
    double multiplies = 0;           // weights that events met, borders counted as inside
    bool dense = false;              // how it added last
    bool graded = false;             // events had values of their own, so they multiply
    bool integers = false;           // weights of 8 or 16 bits
};

// Computes what neurons/forward does at inference, bit for bit: all spikes, and the output at every
// step. The mean over steps is that of a batch of one. One thread at a time may use a Runtime.
class Runtime {
 public:
    // Error (kind model): a graph that check() refuses, no neuron, neurons that are not plain,
    // delayed edges, batch norms or amplitudes that cannot be folded; each by name. Weights are
    // shared with the graph where they need no other order.
    explicit Runtime(const Graph&, const RuntimeOptions& = {});
    ~Runtime();
    Runtime(Runtime&&) noexcept;
    Runtime& operator=(Runtime&&) noexcept;

    const Graph& graph() const;   // what it computes: batch norms and amplitudes folded
    const Shape& sample() const;  // one input: [H, W, C] or [F]
    size_t outputs() const;       // K
    const kernels::Table<float>& table() const;
    size_t memory_bytes() const;  // of activations, membranes and packed weights
    bool integers() const;        // whether it computes in them
    // So many at most keep membranes within 32 bits; more are an Error. SIZE_MAX: no limit.
    size_t most_steps() const;

    // Memory for runs of this many steps and samples, so that they need not allocate.
    void reserve(size_t T, size_t N);

    // x [T, N, sample] when temporal, else [N, sample], shown at every step. Writes logits [N, K],
    // the mean over the steps; steps [N], how many those were, and outputs [T, N, K], the output at
    // each step (those after an early exit are not written), where not null. Starts from reset
    // membranes, and leaves no sample begun.
    void run(const float* x, bool temporal, size_t T, size_t N, float* logits,
             size_t* steps = nullptr, float* outputs = nullptr);

    // One more step of the sample that the last reset() began: frame [sample], or null for the one
    // before again. Writes the output of this step [K] and the mean over those so far [K] (summed
    // in double), where not null.
    void step(const float* frame, float* output, float* mean);
    size_t steps_done() const;  // since reset()
    void reset();

    std::vector<LayerActivity> activity() const;  // of the last run, or of the steps since reset()
    size_t spike_count() const;                   // of all neurons, in the same
    // Of the last sample run, with record: [T, sample of the neuron], 0 or 1.
    Tensor spikes(const std::string& neuron) const;

 private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace nc
