// What nc_bench kernels and bptt measure: every family's kernels at the sizes that networks use.
#pragma once

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "bench/bench.h"

namespace nc::bench {

using Table = kernels::Table<float>;

// Values of a kernel: filled here, then brought to where a Compute works, to stay there.
template <class T>
class Values {
 public:
    Values() = default;
    Values(std::vector<T> values) : here_(std::move(values)) {}  // NOLINT: values are values
    void resize(size_t n) { here_.resize(n); }
    void push_back(const T& value) { here_.push_back(value); }
    size_t size() const { return here_.size(); }
    bool empty() const { return here_.empty(); }
    T& operator[](size_t i) { return here_[i]; }
    auto begin() { return here_.begin(); }
    auto end() { return here_.end(); }
    // What the host holds: as filled, whatever kernels did since.
    const std::vector<T>& filled() const { return here_; }

    void bring(Compute& compute) {
        Tensor bytes(Shape{here_.size() * sizeof(T)}, DType::u8);
        if (!here_.empty()) std::memcpy(bytes.raw(), here_.data(), bytes.bytes());
        there_ = bytes.to(*compute.allocator);
    }
    // For kernels; after bring().
    T* data() const { return static_cast<T*>(const_cast<void*>(there_.raw())); }
    const Tensor& there() const { return there_; }

 private:
    std::vector<T> here_;
    Tensor there_;
};
template <class... V>
void bring(Compute& compute, V&... values) {
    (values.bring(compute), ...);
}

// One kernel at one size, with its data where a Compute works; the Compute outlives it.
struct Case {
    double operations = 0, bytes = 0;  // of a run, for the floor; 0: does not bound it
    std::function<void()> run;         // first time: from the data as made
    // What a run writes. Compared with the reference's after one run: bitwise when tolerance is 0,
    // else as floats, each within tolerance times the largest of the reference's.
    std::vector<Tensor> outputs;
    double tolerance = 0;
    // In place of that, where the reference cannot do the whole in reasonable time.
    std::function<bool()> correct;
};

// The data is only made when a case is wanted.
struct NamedCase {
    std::string name;  // family.kernel/size
    std::function<Case(Compute&)> make;
    bool host_only = false;  // no table of a device has it
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

// Error when the result there is not the reference's, else the measured row.
Row measure(Machine&, const NamedCase&, Compute&, double seconds);
// Whether the outputs of a first run of both are the same, as Case says.
bool same_outputs(const Case& expected, const Case& got);

// The figures that the targets are about, for each table and number of threads: sgemm, the averages
// over ResNet-18's layers, event-driven against dense, neurons in whole numbers a second.
std::vector<std::string> summary(const std::vector<Row>&);

std::vector<float> random_floats(size_t n, uint64_t seed, float low = -1, float high = 1);

}  // namespace nc::bench
