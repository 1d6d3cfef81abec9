// What nc_bench kernels and bptt measure: every family's kernels at the sizes that networks use.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/bench.h"
#include "kernels/kernels.h"

namespace nc::bench {

using Table = kernels::Table<float>;

// One kernel at one size, with its data.
struct Case {
    double operations = 0, bytes = 0;  // of a run, for the floor; 0: does not bound it
    std::function<size_t(const Table&, int threads)> scratch;
    std::function<void(const Table&, kernels::Queue&)> run;
    // Whether this table's result is the reference's, within what kernels.h promises.
    std::function<bool(const Table&, int threads)> correct;
};

// The data is only made when a case is wanted.
struct NamedCase {
    std::string name;  // family.kernel/size
    std::function<Case()> make;
};

std::vector<NamedCase> dense_cases();    // gemm, conv
std::vector<NamedCase> layer_cases();    // elementwise, reduce, pool, norm, loss, optim, image
std::vector<NamedCase> spiking_cases();  // neuron, spike
std::vector<NamedCase> integer_cases();
std::vector<NamedCase> all_cases();

// Forward scan that keeps packed spikes only, then back-propagation through time, over `elements`
// membranes and steps in total. The floor is 16.1 bytes an element: the currents read twice, dy
// read, dx written, spikes written and read.
NamedCase bptt_case(bool leaky, size_t steps, size_t elements);
constexpr double bptt_bytes = 16.1;

// Error when the table's result is wrong, else the measured row.
Row measure(Machine&, const NamedCase&, const Table&, int threads, double seconds);

// The figures that the targets are about, for each table and number of threads: sgemm, the averages
// over ResNet-18's layers, event-driven against dense, neurons in whole numbers a second.
std::vector<std::string> summary(const std::vector<Row>&);

// An output's place; bounded ones are compared as floats.
struct Output {
    const void* data;
    size_t bytes;
};

// The usual `correct`: runs the reference and the table from the same state (set by reset, which
// may be null) and compares the outputs: bitwise when tolerance is 0, else each float within
// tolerance times the largest of the reference's.
std::function<bool(const Table&, int)> same_as_reference(const Case&, std::function<void()> reset,
                                                         std::vector<Output> outputs,
                                                         double tolerance);

std::vector<float> random_floats(size_t n, uint64_t seed, float low = -1, float high = 1);

}  // namespace nc::bench
