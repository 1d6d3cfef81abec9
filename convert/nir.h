// Networks to NIR files that any reader understands, and NIR files to networks.
#pragma once

#include <string>

#include "io/nir.h"

namespace nc {

struct NirOptions {
    // v(0): metadata, which this program reads; or bias: v(0) / T more at every step and v(0) = 0,
    // for readers that ignore metadata.
    enum class Start { metadata, bias } start = Start::metadata;
    // Averages as they are, or sums, with 1 / k^2 in the weights after them.
    enum class Pool { average, sum } pool = Pool::average;
    // strict: only what the reference reader's type check understands; convolutions that are
    // grouped or not square are given weights of zero until they are neither.
    enum class Compat { strict, full } compat = Compat::strict;
};
// "metadata", "sum", ... as --nir-vinit, --nir-pool and --nir-compat take them; Error with a hint.
NirOptions parse_nir_options(const std::string& start, const std::string& pool,
                             const std::string& compat);

// The network as NIR can say it: spikes are 1 and thresholds of neurons that subtract them are 1,
// with weights, biases and v(0) divided by them; sums stand at the neuron; BatchNorm is in the
// weights; no global pooling. This graph, run, is what the file says: reading it back gives the same spikes bit for bit. T: for
// Start::bias. Error (kind model): every node without a form in NIR, named.
Graph nir_form(Graph, const NirOptions& = {}, int T = 0);

void to_nir(const std::string& path, const Model&, const NirOptions& = {});
// dt: seconds a step, where the file does not say; output: which of several; see nir_to_graph.
Model from_nir(const std::string& path, double dt = default_dt, const std::string& output = "");

}  // namespace nc
