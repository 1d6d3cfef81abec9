// A few threads that work on one thing together, waiting by spinning.
#include "neurons/team.h"

namespace nc {
namespace {

constexpr int spins_of_a_meeting = 20000;   // then others may run: more threads than processors
constexpr int spins_between_runs = 200000;  // about a millisecond, then a worker sleeps

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

}  // namespace

Team::Team(size_t threads) {
    workers_.reserve(threads);
    for (size_t thread = 1; thread < threads; ++thread)
        workers_.emplace_back([this, thread] { work(thread); });
}

Team::~Team() {
    stop_ = true;
    ++round_;
    round_.notify_all();
    for (auto& worker : workers_) worker.join();
}

void Team::start(Call call, void* context) {
    if (workers_.empty()) return call(context, 0);
    call_ = call;
    context_ = context;
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    call(context, 0);
    meet();
}

void Team::work(size_t thread) {
    unsigned seen = 0;
    while (true) {
        unsigned now = round_.load(std::memory_order_acquire);
        for (int spin = 0; now == seen && spin < spins_between_runs; ++spin) {
            pause();
            now = round_.load(std::memory_order_acquire);
        }
        if (now == seen) {
            round_.wait(seen, std::memory_order_acquire);
            continue;
        }
        seen = now;
        if (stop_) return;
        call_(context_, thread);
        meet();
    }
}

void Team::meet() {
    const size_t all = size();
    if (all == 1) return;
    const unsigned phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == all) {
        arrived_.store(0, std::memory_order_relaxed);
        phase_.store(phase + 1, std::memory_order_release);
        return;
    }
    for (int spin = 0; phase_.load(std::memory_order_acquire) == phase; ++spin)
        if (spin < spins_of_a_meeting)
            pause();
        else
            std::this_thread::yield();
}

}  // namespace nc
