// What nc_bench infer and ann measure: a trained network through the inference runtime, a spiking
// one at the firing rates that real samples cause.
#pragma once

#include "bench/bench.h"
#include "engine/tensor.h"
#include "io/model.h"
#include "neurons/analog.h"
#include "neurons/runtime.h"

namespace nc::bench {

// Samples to run: x [T, N, sample] when temporal, else [N, sample]; from where, in words.
struct Samples {
    Tensor x;
    bool temporal = false;
    size_t T = 0, N = 0;
    std::string source;
};

// N samples of the model's data set, again from the first where it has fewer; random ones, and the
// source says so, where the model names none. Error when the data set is not there.
Samples samples_for(const Model&, const std::string& data_root, size_t T, size_t N);

struct InferCase {
    const kernels::Table<float>* table;
    size_t T, N, threads;
    RuntimePath path;
    bool integers = true;  // where the network is quantised
};

struct InferRow {
    Row row;
    std::vector<LayerActivity> activity;
    double dense_operations = 0;  // of all inputs, where operations are those that events cause
    Tensor logits;                // [N, K]
    size_t spikes = 0;            // of all neurons
    std::string again;            // the command for this row alone
};

// Runs the samples, after checking the spikes' sums against the interpreter (of leaky neurons in
// integers: the integer simulator): Error when an output differs at any step of the first few
// samples. The floor: one addition for each weight an event
// meets (multiplications by analog inputs: two operations), or all weights read once.
InferRow measure_inference(Machine&, const Model&, const std::string& path, const Samples&,
                           const InferCase&, double seconds);

// An analog network through its runtime.
struct AnnCase {
    const kernels::Table<float>* table;
    size_t N, threads;
    ConvChoice conv;
};
struct AnnRow {
    Row row;
    std::vector<AnalogLayer> layers;
    Tensor logits;      // [N, K]
    double far = 0;     // from the interpreter's logits, at most, over the largest of them
    std::string again;  // the command for this row alone
};
// Error when logits of the first few samples are further than 1e-4 of the largest from the
// interpreter's. The floor: the products of every sum as it is defined, so that Winograd may come
// out above 100 %, or all weights read once.
AnnRow measure_ann(Machine&, const Model&, const std::string& path, const Samples&, const AnnCase&,
                   double seconds);

// Latencies of single runs through nc.h, in seconds.
struct Latency {
    size_t runs = 0;
    double p50 = 0, p99 = 0, p999 = 0, maximum = 0;
};
// This thread stays on one processor meanwhile.
Latency measure_latency(const std::string& path, const Samples&, const InferCase&, size_t runs);

const char* path_name(RuntimePath);  // auto, dense, event
const char* conv_name(ConvChoice);   // auto, direct, winograd2, winograd4
const char* method_name(kernels::ConvMethod);

}  // namespace nc::bench
