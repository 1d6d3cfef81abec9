// The emulation's scheduler: fibres, barriers, warp operations.
#include "tests/cuda_emulation.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#ifdef NC_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the callee's registers on this stack, and goes on where the other was left. x86-64, System
// V.
extern "C" void nc_emulation_switch(void** save, void* to);
asm(R"(
.text
.globl nc_emulation_switch
.type nc_emulation_switch, @function
nc_emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size nc_emulation_switch, . - nc_emulation_switch
)");

namespace nc::emulation {
namespace {

constexpr size_t stack_bytes = size_t(256) << 10;  // reserved, not touched until used
constexpr unsigned most_threads = 1024, lanes = 32;

enum class State { ready, at_barrier, at_warp, done };

struct Warp {
    Slot slots[2][lanes];  // a lane can be at most one operation ahead of another's read
    unsigned arrived = 0, mask = 0, line = 0;
    unsigned existing = 0;  // lanes the block has
};

struct Fibre {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    Place place;
    unsigned index = 0;
    State state = State::ready;
    int phase = 0;  // which of the warp's slots its next operation uses
};

class Scheduler {
 public:
    cudaError_t run(dim3 grid, dim3 block, const std::function<void()>& thread) {
        const uint64_t threads = uint64_t(block.x) * block.y * block.z;
        if (threads == 0 || threads > most_threads || grid.y > 65535 || grid.z > 65535 ||
            grid.x > 0x7fffffff) {
            std::fprintf(stderr, "emulation: a grid of %u x %u x %u blocks of %llu threads\n",
                         grid.x, grid.y, grid.z, static_cast<unsigned long long>(threads));
            return cudaErrorInvalidConfiguration;
        }
        thread_ = &thread;
        grid_ = grid;
        block_ = block;
        threads_ = unsigned(threads);
        const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
        // A random walk through all blocks: a start and a step that shares no factor with their
        // number.
        uint64_t step = random_() % blocks | 1;
        while (std::gcd(step, blocks) != 1) step += 2;
        uint64_t at = random_() % blocks;
        for (uint64_t i = 0; i < blocks; ++i, at = (at + step) % blocks)
            if (!run_block(at)) return cudaErrorLaunchFailure;
        return cudaSuccess;
    }

    const Place& here() const { return running_->place; }
    uint64_t block_number() const { return block_number_; }

    void barrier(int line) {
        if (at_barrier_ == 0) barrier_line_ = line;
        if (line != barrier_line_)
            complain("barriers of line %d and line %d are reached by threads of one block",
                     barrier_line_, line);
        if (++at_barrier_ == threads_) {
            at_barrier_ = 0;
            release(State::at_barrier, 0, threads_);
            return;
        }
        wait(State::at_barrier);
    }

    const Slot* exchange(unsigned mask, const void* value, size_t bytes, int line) {
        Fibre& self = *running_;
        Warp& warp = warps_[self.place.warp];
        if (warp.arrived == 0) {
            warp.mask = mask;
            warp.line = unsigned(line);
        }
        if (mask != warp.mask || unsigned(line) != warp.line || (mask & ~warp.existing) != 0 ||
            (mask >> self.place.lane & 1) == 0)
            complain("a warp operation in line %d with a mask that does not fit (line %d)", line,
                     int(warp.line));
        Slot* const slots = warp.slots[self.phase];
        self.phase ^= 1;
        std::memcpy(slots[self.place.lane].bytes, value, bytes);
        warp.arrived |= 1u << self.place.lane;
        if (warp.arrived == mask) {
            warp.arrived = 0;
            const unsigned first = self.place.warp * lanes;
            release(State::at_warp, first, std::min(first + lanes, threads_));
        } else {
            wait(State::at_warp);
        }
        return slots;
    }

 private:
    bool run_block(uint64_t number) {
        ++block_number_;
        const dim3 at(unsigned(number % grid_.x), unsigned(number / grid_.x % grid_.y),
                      unsigned(number / grid_.x / grid_.y));
        at_barrier_ = 0;
        faulty_ = false;
        while (fibres_.size() < threads_) fibres_.push_back(make_fibre());
        warps_.assign((threads_ + lanes - 1) / lanes, Warp());
        ready_.clear();
        for (unsigned i = 0; i < threads_; ++i) {
            Fibre& f = *fibres_[i];
            f.index = i;
            f.state = State::ready;
            f.phase = 0;
            f.place = {dim3(i % block_.x, i / block_.x % block_.y, i / block_.x / block_.y),
                       at,
                       block_,
                       grid_,
                       i % lanes,
                       i / lanes};
            warps_[i / lanes].existing |= 1u << i % lanes;
            ready_.push_back(i);
        }
        unsigned done = 0;
        while (!ready_.empty() && !faulty_) {
            const size_t pick = random_() % ready_.size();
            running_ = fibres_[ready_[pick]].get();
            ready_[pick] = ready_.back();
            ready_.pop_back();
            resume(*running_);
            done += running_->state == State::done;
        }
        if (done == threads_) return true;
        if (!faulty_)
            std::fprintf(
                stderr,
                "emulation: %u of %u threads ended, the others wait for them (barrier of line "
                "%d)\n",
                done, threads_, barrier_line_);
        // Their stacks hold half-run threads: never used again.
        for (auto& f : fibres_) munmap(f->stack, stack_bytes);
        fibres_.clear();
        return false;
    }

    template <class... Values>
    void complain(const char* format, Values... values) {
        if (!faulty_) {
            std::fputs("emulation: ", stderr);
            std::fprintf(stderr, format, values...);
            std::fputc('\n', stderr);
        }
        faulty_ = true;
        wait(State::at_barrier);  // for ever
    }

    void release(State waiting, unsigned begin, unsigned end) {
        for (unsigned i = begin; i < end; ++i)
            if (fibres_[i]->state == waiting && fibres_[i].get() != running_) {
                fibres_[i]->state = State::ready;
                ready_.push_back(i);
            }
    }

    void wait(State why) {
        running_->state = why;
        Fibre& self = *running_;
        leave(self);
    }

#ifdef NC_ADDRESS_SANITIZER
    void resume(Fibre& f) {
        void* fake = nullptr;
        __sanitizer_start_switch_fiber(&fake, f.stack, stack_bytes);
        nc_emulation_switch(&stack_pointer_, f.stack_pointer);
        __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
    }
    void leave(Fibre& f) {
        void* fake = nullptr;
        __sanitizer_start_switch_fiber(&fake, main_stack_, main_stack_bytes_);
        nc_emulation_switch(&f.stack_pointer, stack_pointer_);
        __sanitizer_finish_switch_fiber(fake, &main_stack_, &main_stack_bytes_);
    }
    void arrived() {
        __sanitizer_finish_switch_fiber(nullptr, &main_stack_, &main_stack_bytes_);
    }
    const void* main_stack_ = nullptr;
    size_t main_stack_bytes_ = 0;
#else
    void resume(Fibre& f) {
        nc_emulation_switch(&stack_pointer_, f.stack_pointer);
    }
    void leave(Fibre& f) {
        nc_emulation_switch(&f.stack_pointer, stack_pointer_);
    }
    void arrived() {}
#endif

    static void entry();

    static std::unique_ptr<Fibre> make_fibre() {
        auto f = std::make_unique<Fibre>();
        void* memory = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            std::perror("emulation: a stack");
            std::abort();
        }
#ifdef NC_ADDRESS_SANITIZER
        // What a stack at this address once forbade, half-run threads say, it forbids no more.
        __asan_unpoison_memory_region(memory, stack_bytes);
#endif
        f->stack = static_cast<char*>(memory);
        // As nc_emulation_switch leaves a stack: six registers and an address to return to; the
        // entry then sees the alignment a call would give it.
        void** top = reinterpret_cast<void**>(f->stack + stack_bytes) - 8;
        for (int i = 0; i < 8; ++i) top[i] = nullptr;
        top[6] = reinterpret_cast<void*>(&Scheduler::entry);
        f->stack_pointer = top;
        return f;
    }

    const std::function<void()>* thread_ = nullptr;
    dim3 grid_, block_;
    unsigned threads_ = 0, at_barrier_ = 0;
    int barrier_line_ = 0;
    bool faulty_ = false;
    uint64_t block_number_ = 0;
    void* stack_pointer_ = nullptr;
    Fibre* running_ = nullptr;
    std::vector<std::unique_ptr<Fibre>> fibres_;
    std::vector<Warp> warps_;
    std::vector<unsigned> ready_;
    std::mt19937_64 random_{20260807};
};

Scheduler& scheduler() {
    static Scheduler& s = *new Scheduler;  // its fibres outlive static objects
    return s;
}

// A fibre runs one thread after another.
void Scheduler::entry() {
    Scheduler& s = scheduler();
    s.arrived();
    for (;;) {
        (*s.thread_)();
        s.wait(State::done);
    }
}

}  // namespace

const Place& here() {
    return scheduler().here();
}
uint64_t block_number() {
    return scheduler().block_number();
}
void barrier(int line) {
    scheduler().barrier(line);
}
const Slot* exchange(unsigned mask, const void* value, size_t bytes, int line) {
    return scheduler().exchange(mask, value, bytes, line);
}

cudaError_t run(dim3 grid, dim3 block, const std::function<void()>& thread) {
    static std::mutex one_at_a_time;
    const std::lock_guard lock(one_at_a_time);
    return scheduler().run(grid, block, thread);
}

}  // namespace nc::emulation
