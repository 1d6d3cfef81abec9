// Records a forward pass and replays it.
#include "neurons/recorded.h"

#include "engine/cuda_allocator.h"

namespace nc {
namespace {

const Compute& on_a_device(const Compute& where) {
    if (where.on_host())
        throw Error("[record] only a device's work can be recorded, this is " + where.device.str(),
                    ErrorKind::usage, "give a cuda device, or call forward()");
    return where;
}

}  // namespace

RecordedForward::RecordedForward(const Compute& where, const Graph& graph, const Shape& input,
                                 size_t T, bool temporal)
    : compute_(Compute::beside(on_a_device(where), 0, Compute::Memory::own)),
      graph_(on_device(graph, compute_)),
      input_(compute_.zeros(input)) {
    ForwardOptions options;
    options.T = T;
    options.temporal_input = temporal;
    const auto once = [&] {
        return mean_logits(compute_, nullptr, forward(compute_, graph_, {}, input_, options)).value;
    };
    // The first time memory is got from the card and libraries set themselves up; the second takes
    // the same blocks in the same order, and nothing else ever does.
    once();
    compute_.wait();
    const kernels::Backend& backend = *compute_.backend;
    if (const int code = backend.begin_recording(compute_.queue); code != 0)
        throw_device_error(backend, "beginning to record", code);
    try {
        logits_ = once();
    } catch (...) {
        backend.end_recording(compute_.queue, &recording_);
        backend.forget(recording_);
        throw;
    }
    if (const int code = backend.end_recording(compute_.queue, &recording_); code != 0)
        throw_device_error(backend, "recording", code);
}

RecordedForward::~RecordedForward() {
    compute_.backend->wait(compute_.queue);
    compute_.backend->forget(recording_);
}

Tensor RecordedForward::run(const Tensor& input) {
    input_.assign(input);
    if (const int code = compute_.backend->replay(compute_.queue, recording_); code != 0)
        throw_device_error(*compute_.backend, "replaying", code);
    return logits_.to_host();
}

}  // namespace nc
