// The inference runtime of analog networks: compiled once, then run without allocating, locking or
// calling the system.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/graph.h"

namespace nc {

// How convolutions multiply. automatic: for each layer what should be fastest for a batch of this
// size, by counting products, transforms and bytes of weights; so it depends on nothing else.
enum class ConvChoice { automatic, direct, winograd2, winograd4 };

struct AnalogOptions {
    size_t threads = 1;  // that share every layer
    size_t batch = 1;    // samples run at once; more are run one such batch after the other
    ConvChoice conv = ConvChoice::automatic;       // where a layer allows it
    const kernels::Table<float>* table = nullptr;  // null: kernels::best()
};

// What a weight layer does for one sample.
struct AnalogLayer {
    std::string name;
    kernels::ConvMethod method;
    double operations;    // of the sum as it is defined, 2 a product
    size_t weight_bytes;  // as kept, packed or transformed
};

// Computes what neurons/forward does at inference, batch norms folded, to within rounding. A
// sample's logits are the same bits whatever the number of threads and the samples beside it. One
// thread at a time may use an AnalogRuntime.
class AnalogRuntime {
 public:
    // Error (kind model): a graph that check() refuses, anything with time or spikes, a quantised
    // input, batch norms that cannot be folded; each by name.
    explicit AnalogRuntime(const Graph&, const AnalogOptions& = {});
    ~AnalogRuntime();
    AnalogRuntime(AnalogRuntime&&) noexcept;
    AnalogRuntime& operator=(AnalogRuntime&&) noexcept;

    const Graph& graph() const;   // what it computes: batch norms folded
    const Shape& sample() const;  // one input: [H, W, C] or [F]
    size_t outputs() const;       // K
    const kernels::Table<float>& table() const;
    size_t memory_bytes() const;  // of activations and packed weights
    std::vector<AnalogLayer> layers() const;

    // x [N, sample], logits [N, K].
    void run(const float* x, size_t N, float* logits);

 private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace nc
