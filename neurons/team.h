// A few threads that work on one thing together: started once, waiting by spinning, so that sharing
// a fraction of a millisecond pays.
#pragma once

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace nc {

class Team {
 public:
    // Starts threads - 1 threads; the caller of run() is the first of them.
    explicit Team(size_t threads);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    size_t size() const { return workers_.size() + 1; }

    // Calls body(thread) on every thread of the team and returns when all have. The body may not
    // throw. One run at a time.
    template <class Body>
    void run(Body& body) {
        start([](void* context, size_t thread) { (*static_cast<Body*>(context))(thread); }, &body);
    }
    // Inside a body: until all threads are here.
    void meet();

 private:
    using Call = void (*)(void* context, size_t thread);
    void start(Call, void* context);
    void work(size_t thread);

    Call call_ = nullptr;
    void* context_ = nullptr;
    std::atomic<unsigned> round_ = 0;  // counts runs; workers sleep on it after spinning for long
    std::atomic<unsigned> phase_ = 0;  // counts meetings
    std::atomic<size_t> arrived_ = 0;
    std::atomic<bool> stop_ = false;
    std::vector<std::thread> workers_;
};

}  // namespace nc
