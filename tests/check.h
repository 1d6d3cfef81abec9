// What the tests share: guarded buffers, hard inputs, bitwise and bounded comparison, the tables to
// test.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "engine/error.h"
#include "kernels/backend.h"
#include "kernels/kernels.h"

// The CUDA kernels compiled for the host (tests/cuda_emulation.h), with a device of host memory.
namespace nc::kernels::on_cuda_emulated {
const Table<float>& table();
const Backend& backend();
}  // namespace nc::kernels::on_cuda_emulated

namespace nc::test {

// The sizes every kernel is tried at.
inline const size_t sizes[] = {0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 1000};

// Compiled with the address sanitizer.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif
#else
inline constexpr bool sanitized = false;
#endif

// n values between two walls of a known pattern; ok() is false once a kernel wrote outside. Starts
// filled with a pattern too (a NaN as a float), so an output that was not written shows.
template <class T>
class Guarded {
 public:
    explicit Guarded(size_t n) : n_(n), bytes_(n * sizeof(T) + 2 * wall, pattern) {}
    Guarded(const std::vector<T>& v) : Guarded(v.size()) {
        if (n_ > 0) std::memcpy(data(), v.data(), n_ * sizeof(T));
    }
    T* data() { return reinterpret_cast<T*>(bytes_.data() + wall); }
    const T* data() const { return reinterpret_cast<const T*>(bytes_.data() + wall); }
    operator T*() { return data(); }
    T& operator[](size_t i) { return data()[i]; }
    const T& operator[](size_t i) const { return data()[i]; }
    size_t size() const { return n_; }
    std::vector<T> values() const { return std::vector<T>(data(), data() + n_); }
    bool ok() const {
        for (size_t i = 0; i < wall; ++i)
            if (bytes_[i] != pattern || bytes_[bytes_.size() - 1 - i] != pattern) return false;
        return true;
    }

 private:
    static constexpr size_t wall = 64;
    static constexpr unsigned char pattern = 0xff;
    size_t n_;
    std::vector<unsigned char> bytes_;
};

// Reproducible values of scale 1 with what breaks kernels mixed in: zeros of both signs, denormals,
// outliers (1000 times).
template <class F = float>
std::vector<F> hard_values(size_t n, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    std::vector<F> out(n);
    for (auto& x : out) {
        const uint64_t kind = random() % 32;
        x = F(normal(random));
        if (kind == 0) x = 0;
        if (kind == 1) x = -F(0);
        if (kind == 2) x *= std::numeric_limits<F>::denorm_min() * 1000;
        if (kind == 3) x *= 1000;
    }
    return out;
}

template <class F = float>
std::vector<F> normal_values(size_t n, uint64_t seed, double scale = 1) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal(0, scale);
    std::vector<F> out(n);
    for (auto& x : out) x = F(normal(random));
    return out;
}

// 0 or 1, 1 with this probability.
template <class F = float>
std::vector<F> spike_values(size_t n, uint64_t seed, double rate) {
    std::mt19937_64 random(seed);
    std::bernoulli_distribution one(rate);
    std::vector<F> out(n);
    for (auto& x : out) x = one(random) ? F(1) : F(0);
    return out;
}

// The first index whose bits differ, or n.
template <class T>
size_t first_difference(const T* a, const T* b, size_t n) {
    for (size_t i = 0; i < n; ++i)
        if (std::memcmp(a + i, b + i, sizeof(T)) != 0) return i;
    return n;
}

// The same, but any NaN equals any other: which of two NaN operands survives is not defined.
inline size_t first_bit_difference(const float* a, const float* b, size_t n) {
    for (size_t i = 0; i < n; ++i)
        if (std::memcmp(a + i, b + i, sizeof(float)) != 0 && (a[i] == a[i] || b[i] == b[i]))
            return i;
    return n;
}

// The running test case lacks what it needs (golden data, a GPU): says so in the line tests/run.sh
// counts, then the case returns. Without it doctest would call the case passed.
inline void skip(const std::string& why) {
    std::printf("skipped: %s: %s\n", doctest::getContextOptions()->currentTest->m_name,
                why.c_str());
}

// NC_DATA when it has this data set's folder; else empty, after saying that the case is skipped.
inline std::string data_root_or_skip(const std::string& dataset) {
    const char* root = std::getenv("NC_DATA");
    if (!root || !*root) {
        skip("NC_DATA is not set");
        return "";
    }
    if (!std::filesystem::is_directory(std::filesystem::path(root) / dataset)) {
        skip("NC_DATA has no " + dataset);
        return "";
    }
    return root;
}

// An empty folder of its own, removed with all it holds.
class TempFolder {
 public:
    TempFolder() {
        std::string name = (std::filesystem::temp_directory_path() / "nc_test_XXXXXX").string();
        REQUIRE(mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~TempFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TempFolder(const TempFolder&) = delete;
    TempFolder& operator=(const TempFolder&) = delete;
    std::string operator/(const std::string& name) const { return (path_ / name).string(); }
    std::string str() const { return path_.string(); }

 private:
    std::filesystem::path path_;
};

// What the nc::Error that f throws says, with its hint after " | "; "" when it throws none. Any
// other exception fails the case.
template <class F>
std::string error_of(F f) {
    try {
        f();
    } catch (const Error& e) {
        return e.hint.empty() ? e.what() : e.what() + (" | " + e.hint);
    }
    return "";
}

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// A Queue with its own scratch. A kernel that failed to run fails the test.
class TestQueue : public kernels::Queue {
 public:
    explicit TestQueue(int thread_count = 1) {
        threads = thread_count;
        handles = shared_handles;
    }
    ~TestQueue() {
        CHECK(status == 0);
        if (handles != nullptr) shared_handles = handles;
    }
    void reserve(size_t bytes) {
        memory_.assign(bytes + 64, char(0x7f));
        scratch = memory_.data() + (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64) % 64;
        scratch_bytes = bytes;
    }

 private:
    std::vector<char> memory_;
    // Of the vendor's libraries: slow to make, so the first queue that needs them makes them for
    // all.
    inline static void* shared_handles = nullptr;
};

inline bool is_emulated(const kernels::Table<float>& table) {
    return &table == &kernels::on_cuda_emulated::table();
}

// Every table but the reference: those of the CPU, the CUDA kernels in emulation, and where there
// is a card its tables, which reach this process's memory from `new` (use_card_memory), not from
// the stack.
inline std::vector<const kernels::Table<float>*> tables_to_test() {
    size_t count = 0;
    const auto* tables = kernels::usable(&count);
    std::vector<const kernels::Table<float>*> out(tables + 1, tables + count);
    out.push_back(&kernels::on_cuda_emulated::table());
    return out;
}

// Whose sums these are, bit for bit: all vector tables add in one order, each CUDA table in its
// own.
inline std::string summation_of(const kernels::Table<float>& table) {
    return table.cuda ? table.name : "vectors";
}

// Makes `new` give memory that the card reaches, NC_TEST_ARENA bytes or 2 GiB. Without a card
// nothing changes, unless NC_TEST_ARENA is set: then the emulation's memory is used so. In
// tests/card_memory.cpp.
void use_card_memory();

}  // namespace nc::test
