// Where the test binary's memory comes from when there is a card: one page-locked arena, which
// kernels on the card reach by the host's pointers. So the tests of kernels on the host's memory
// are tests of the card's tables too. Without a card, and before the arena is made, memory is
// malloc's.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>

#include "tests/check.h"

namespace {

// Blocks of powers of two, each behind a header of its own; freed ones wait for the next of their
// size.
class Arena {
 public:
    void open(char* memory, size_t bytes) {
        const std::lock_guard lock(mutex_);
        end_ = memory + bytes;
        next_ = begin_ = memory;
    }

    // Null when it is not open, or full.
    void* allocate(size_t bytes) {
        const std::lock_guard lock(mutex_);
        if (begin_ == nullptr || bytes > size_t(end_ - begin_)) return nullptr;
        const unsigned kind = unsigned(std::bit_width(bytes + header - 1));
        if (Free* const block = free_[kind]) {
            free_[kind] = block->next;
            return block;
        }
        const size_t whole = size_t(1) << kind;
        if (whole > size_t(end_ - next_)) {
            if (!full_) std::fputs("the arena of NC_TEST_ARENA bytes is full\n", stderr);
            full_ = true;
            return nullptr;
        }
        char* const block = next_;
        next_ += whole;
        *reinterpret_cast<unsigned*>(block) = kind;
        return block + header;
    }

    // False when it is none of the arena's.
    bool release(void* p) {
        char* const at = static_cast<char*>(p);
        if (begin_ == nullptr || at < begin_ || at >= end_) return false;
        const std::lock_guard lock(mutex_);
        const unsigned kind = *reinterpret_cast<unsigned*>(at - header);
        free_[kind] = new (p) Free{free_[kind]};
        return true;
    }

 private:
    static constexpr size_t header = 64;  // and so the alignment
    struct Free {
        Free* next;
    };
    std::mutex mutex_;
    char *begin_ = nullptr, *end_ = nullptr, *next_ = nullptr;
    Free* free_[64] = {};
    bool full_ = false;
};
constinit Arena arena;

constexpr size_t most_alignment = 64;

void* allocate(size_t bytes, size_t alignment) {
    if (bytes == 0) bytes = 1;
    void* p = alignment <= most_alignment ? arena.allocate(bytes) : nullptr;
    if (p == nullptr)
        p = alignment <= alignof(std::max_align_t)
                ? std::malloc(bytes)
                : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    return p;
}

void* allocate_or_throw(size_t bytes, size_t alignment) {
    void* const p = allocate(bytes, alignment);
    if (p == nullptr) throw std::bad_alloc();
    return p;
}

void release(void* p) {
    if (!arena.release(p)) std::free(p);
}

}  // namespace

// The forms for arrays call these; the one without exceptions is here because the address
// sanitizer's own would give memory that the delete here does not know.
void* operator new(size_t bytes) {
    return allocate_or_throw(bytes, 1);
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
    return allocate(bytes, 1);
}
void* operator new(size_t bytes, std::align_val_t alignment) {
    return allocate_or_throw(bytes, size_t(alignment));
}
void operator delete(void* p) noexcept {
    release(p);
}
void operator delete(void* p, size_t) noexcept {
    release(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
    release(p);
}
void operator delete(void* p, size_t, std::align_val_t) noexcept {
    release(p);
}

namespace nc::test {

void use_card_memory() {
    const char* const asked = std::getenv("NC_TEST_ARENA");
    const kernels::Backend* backend = kernels::cuda_backend();
    if (backend == nullptr && asked != nullptr) backend = &kernels::on_cuda_emulated::backend();
    if (backend == nullptr) return;
    const size_t bytes = asked != nullptr ? std::strtoull(asked, nullptr, 10) : size_t(2) << 30;
    void* memory = nullptr;
    if (const int error = backend->host_memory(0, &memory, bytes); error != 0) {
        std::fprintf(stderr, "NC_TEST_ARENA: no %zu bytes of page-locked memory: %s\n", bytes,
                     backend->text(error));
        std::exit(2);
    }
    arena.open(static_cast<char*>(memory), bytes);
}

}  // namespace nc::test

TEST_CASE("cuda: the card's tables compute in the test's own memory") {
    using namespace nc;
    if (kernels::cuda() == nullptr) return test::skip(kernels::why_no_cuda());
    size_t seen = 0;
    for (const auto* table : test::tables_to_test()) {
        if (!table->cuda || test::is_emulated(*table)) continue;
        ++seen;
        test::TestQueue queue;
        test::Guarded<float> out(1000);
        table->elementwise.fill(queue, 2.5f, out, 1000);
        CHECK(out.values() == std::vector<float>(1000, 2.5f));
        CHECK(out.ok());
    }
    CHECK(seen == 2);
}
