// The emulation of CUDA's execution model notices what it is there to notice: kernels with one
// fault each.
#define NC_CUDA on_cuda_emulated
#include "tests/cuda_emulation.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "kernels/cuda_util.cuh"
#include "tests/check.h"

using namespace nc;
using namespace nc::kernels;
using namespace nc::kernels::on_cuda_emulated;

namespace {

constexpr unsigned threads = 96;

// out = the block's threads in reverse, through shared memory.
template <bool with_barrier>
void reverse(int* out) {
    NC_SHARED(int, all, threads);
    all[threadIdx.x] = int(threadIdx.x);
    if (with_barrier) __syncthreads();
    out[threadIdx.x] = all[threads - 1 - threadIdx.x];
}

// Every thread passes its number on twice; without the second barrier some have written again
// before others have read.
template <bool with_barrier>
void rotate_twice(int* out) {
    NC_SHARED(int, all, threads);
    int own = int(threadIdx.x);
    for (int i = 0; i < 2; ++i) {
        all[threadIdx.x] = own;
        __syncthreads();
        own = all[(threadIdx.x + 1) % threads];
        if (with_barrier) __syncthreads();
    }
    out[threadIdx.x] = own;
}

void half_at_a_barrier(int* out) {
    if (threadIdx.x < threads / 2) __syncthreads();
    out[threadIdx.x] = 0;
}

void two_barriers(int* out) {
    if (threadIdx.x < threads / 2)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 0;
}

// The ballot of lanes under `lanes`, by lanes that `mask` may or may not name.
template <unsigned mask, unsigned lanes>
void vote(int* out) {
    const unsigned lane = threadIdx.x % warp_size;
    out[threadIdx.x] = lane < lanes ? int(__ballot_sync(mask, lane % 2 == 0)) : 0;
}

// Lane 0's value by shuffle, or read from where it writes it, with nothing between.
template <bool shuffled>
void first_of_warp(int* out) {
    NC_SHARED(int, firsts, threads / warp_size);
    const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
    const int own = int(threadIdx.x) + 1;
    if (lane == 0) firsts[warp] = own;
    out[threadIdx.x] = shuffled ? __shfl_sync(all_lanes, own, 0) : firsts[warp];
}

void leave_one_unwritten(int* out) {
    if (threadIdx.x != 5) out[threadIdx.x] = 1;
}

struct Ran {
    int status;
    std::string said;  // on stderr
    std::vector<int> out;
};

Ran run_once(void (*kernel)(int*)) {
    const test::TempFolder folder;
    const std::string path = folder / "stderr";
    const int before = dup(2), file = open(path.c_str(), O_CREAT | O_RDWR, 0600);
    REQUIRE((before >= 0 && file >= 0));
    void* memory = nullptr;
    REQUIRE(cudaMalloc(&memory, threads * sizeof(int)) == cudaSuccess);
    int* const out = static_cast<int*>(memory);
    dup2(file, 2);
    Queue queue;
    launch(kernel, dim3(1), dim3(threads), queue, out);
    dup2(before, 2);
    close(before);
    close(file);
    std::ifstream text(path);
    Ran ran = {queue.status, std::string(std::istreambuf_iterator<char>(text), {}),
               std::vector<int>(threads)};
    REQUIRE(cudaMemcpyAsync(ran.out.data(), memory, threads * sizeof(int), cudaMemcpyDefault,
                            nullptr) == cudaSuccess);
    cudaFree(memory);
    return ran;
}

// What the threads are to write, by their number; -1, as memory starts, is what none has written.
template <class F>
bool gives(const Ran& ran, F want) {
    for (unsigned i = 0; i < threads; ++i)
        if (ran.out[i] != want(int(i))) return false;
    return ran.status == cudaSuccess && ran.said.empty();
}

}  // namespace

TEST_CASE("the CUDA emulation runs right kernels and notices faulty ones") {
    const auto reversed = [](int i) { return int(threads) - 1 - i; };
    CHECK(gives(run_once(reverse<true>), reversed));
    CHECK(!gives(run_once(reverse<false>), reversed));
    const auto rotated = [](int i) { return (i + 2) % int(threads); };
    CHECK(gives(run_once(rotate_twice<true>), rotated));
    CHECK(!gives(run_once(rotate_twice<false>), rotated));
    const auto first = [](int i) { return i / 32 * 32 + 1; };
    CHECK(gives(run_once(first_of_warp<true>), first));
    CHECK(!gives(run_once(first_of_warp<false>), first));
    CHECK(gives(run_once(vote<0xffffffff, 32>), [](int) { return 0x55555555; }));
    CHECK(gives(run_once(vote<0x000000ff, 8>), [](int i) { return i % 32 < 8 ? 0x55 : 0; }));
    CHECK(gives(run_once(leave_one_unwritten), [](int i) { return i == 5 ? -1 : 1; }));

    for (auto* kernel : {half_at_a_barrier, two_barriers, vote<0xffffffff, 8>, vote<0x000000ff, 32>,
                         vote<0x0000ffff, 8>}) {
        const Ran ran = run_once(kernel);
        CHECK(ran.status == cudaErrorLaunchFailure);
        CHECK(test::contains(ran.said, "emulation: "));
    }
    // A launch after a failed one runs; one on a queue that has failed does not.
    CHECK(gives(run_once(reverse<true>), reversed));
    Queue failed;
    failed.status = cudaErrorLaunchFailure;
    int untouched[threads] = {};
    launch(reverse<true>, dim3(1), dim3(threads), failed, static_cast<int*>(untouched));
    CHECK(std::all_of(untouched, untouched + threads, [](int i) { return i == 0; }));
}
