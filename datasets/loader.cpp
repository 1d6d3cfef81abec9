// Batches made ahead on a thread.
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "datasets/dataset.h"
#include "datasets/streams.h"

namespace nc {

struct Loader::Worker {
    const Compute* const where;  // null: the host
    const Dataset& data;
    const size_t batch_size, batches;
    const uint64_t seed;
    const uint64_t epoch;
    const AugmentOptions options;
    std::vector<uint32_t> order;

    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Batch> ready;
    std::exception_ptr error;
    bool done = false, stop = false;
    std::thread thread;

    void run(size_t first) noexcept {
        constexpr size_t ahead = 3;
        try {
            // One thread: the others belong to the training step that runs meanwhile.
            Compute compute = where != nullptr ? Compute::beside(*where, 1) : Compute(Device{}, 1);
            for (size_t b = first; b < batches; ++b) {
                Batch batch = make(compute, b);
                std::unique_lock lock(mutex);
                changed.wait(lock, [&] { return ready.size() < ahead || stop; });
                if (stop) return;
                ready.push_back(std::move(batch));
                changed.notify_all();
            }
        } catch (...) {
            const std::lock_guard lock(mutex);
            error = std::current_exception();
        }
        const std::lock_guard lock(mutex);
        done = true;
        changed.notify_all();
    }

    Batch make(Compute& compute, size_t b) const {
        const size_t begin = b * batch_size;
        const size_t end = std::min(begin + batch_size, order.size());
        const std::vector<uint32_t> indices(order.begin() + ptrdiff_t(begin),
                                            order.begin() + ptrdiff_t(end));
        // A stream a batch: resuming within an epoch draws the same.
        const uint64_t within = (epoch << 32 | uint64_t(b)) & 0xffffffffffff;
        Random random(seed, streams::augment | within);
        return data.batch(compute, indices, options, random);
    }
};

Loader::Loader(const Dataset& data, size_t batch_size, bool shuffle, uint64_t seed, int epoch,
               const AugmentOptions& options, bool drop_last, size_t first)
    : Loader(nullptr, data, batch_size, shuffle, seed, epoch, options, drop_last, first) {}

Loader::Loader(const Compute& compute, const Dataset& data, size_t batch_size, bool shuffle,
               uint64_t seed, int epoch, const AugmentOptions& options, bool drop_last,
               size_t first)
    : Loader(&compute, data, batch_size, shuffle, seed, epoch, options, drop_last, first) {}

Loader::Loader(const Compute* where, const Dataset& data, size_t batch_size, bool shuffle,
               uint64_t seed, int epoch, const AugmentOptions& options, bool drop_last,
               size_t first) {
    if (batch_size == 0) throw Error("[loader] a batch of 0 samples");
    const size_t n = data.size();
    const size_t batches = drop_last ? n / batch_size : (n + batch_size - 1) / batch_size;
    std::vector<uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0u);
    if (shuffle) order = Random(seed, streams::shuffle + uint64_t(epoch)).permutation(uint32_t(n));
    worker_.reset(new Worker{.where = where,
                             .data = data,
                             .batch_size = batch_size,
                             .batches = batches,
                             .seed = seed,
                             .epoch = uint64_t(epoch),
                             .options = shuffle ? options : AugmentOptions{},
                             .order = std::move(order),
                             .mutex = {},
                             .changed = {},
                             .ready = {},
                             .error = {},
                             .thread = {}});
    worker_->thread = std::thread([worker = worker_.get(), first] { worker->run(first); });
}

Loader::~Loader() {
    {
        const std::lock_guard lock(worker_->mutex);
        worker_->stop = true;
    }
    worker_->changed.notify_all();
    worker_->thread.join();
}

size_t Loader::batches() const {
    return worker_->batches;
}

bool Loader::next(Batch& out) {
    std::unique_lock lock(worker_->mutex);
    worker_->changed.wait(lock, [&] { return !worker_->ready.empty() || worker_->done; });
    if (!worker_->ready.empty()) {
        out = std::move(worker_->ready.front());
        worker_->ready.pop_front();
        worker_->changed.notify_all();
        return true;
    }
    if (worker_->error) std::rethrow_exception(worker_->error);
    return false;
}

}  // namespace nc
