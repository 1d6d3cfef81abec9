// Trained weights of others laid over a network, by PyTorch's names.
#pragma once

#include <string>
#include <vector>

#include "engine/graph.h"
#include "io/pt.h"

namespace nc {

// A safetensors file, this program's models among them, or PyTorch's .pt, told apart by content.
// Error (kind model) as load_safetensors and load_pt.
StateDict load_weights(const std::string& path);

struct LaidOver {
    Graph graph;
    std::vector<std::string> notes;  // what was assumed, for the user to read
};

// The network with the file's values. Names and orders are PyTorch's (io/model.h: graph_tensors);
// num_batches_tracked and what wraps every name ("module.") do not count. Layers whose names differ
// are matched by their tensors' names and shapes, where only one fits; several of the same shapes
// only in the order of the numbers in their names ("features.0", "features.3"), when that is also
// the only order in which the network computes them. Thresholds and scales, which PyTorch's layers
// do not have, stay as they are where the file has none. Error (kind model) that lists everything
// missing, unexpected or of another shape, and values that are not finite: path names the file.
LaidOver lay_over(const Graph&, const StateDict&, const std::string& path);

}  // namespace nc
