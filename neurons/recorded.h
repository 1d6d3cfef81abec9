// A whole forward of a network over its T steps, recorded on a device once and then started as one
// piece of work: at batch 1 starting kernels one by one takes longer than running them.
#pragma once

#include "neurons/forward.h"

namespace nc {

class RecordedForward {
 public:
    // Records forward() of inputs of this shape, [N, ...] (or [T, N, ...] when temporal), and the
    // mean of its logits over T, on the device of `where`, in memory and on a stream of its own.
    // Error on the CPU, and as forward(). The graph's weights are copied.
    RecordedForward(const Compute& where, const Graph&, const Shape& input, size_t T,
                    bool temporal = false);
    ~RecordedForward();
    RecordedForward(const RecordedForward&) = delete;
    RecordedForward& operator=(const RecordedForward&) = delete;

    // The bits of mean_logits(forward(...)), [N, K] on the host. Error when the shape is another.
    Tensor run(const Tensor& input);

 private:
    Compute compute_;  // first: the others' memory is its own
    Graph graph_;
    Tensor input_, logits_;
    void* recording_ = nullptr;
};

}  // namespace nc
