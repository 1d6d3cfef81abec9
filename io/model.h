// The model file: safetensors, with the graph and everything about the model in the metadata.
#pragma once

#include <map>
#include <string>

#include "engine/graph.h"
#include "io/json.h"

namespace nc {

// What goes with a network; stored beside the graph. Unknown values are empty or 0.
struct ModelInfo {
    std::string dataset;           // "fashion-mnist", ...
    int T = 0;                     // time steps; 0: not set
    std::vector<float> mean, std;  // input normalisation per channel: (x / 255 - mean) / std
    std::string framing;           // recordings: "sj:number=10"
    std::string ann_frames;        // an ANN on temporal input: "mean" or "sum"
    int classes = 0;
    Json provenance = Json::object();  // command, seed, version, strategy, statistics
};

struct Model {
    Graph graph;
    ModelInfo info;
    // A checkpoint's training state: tensors by name, and numbers. Empty in a finished model.
    std::map<std::string, Tensor> state;
    Json state_info = Json::object();
};

// The graph's schema, which --graph FILE.json reads too. Tensors are named "<node>.<field>" and
// live in the file's tensors; in a schema without tensors their shapes are given and the caller
// draws them.
Json graph_to_json(const Graph&);
// Tensors are looked up by full name; one that is named but missing is an Error.
Graph graph_from_json(const Json&, const std::map<std::string, Tensor>& tensors,
                      const std::string& path);

// Error (kind model): not a safetensors file, truncated, wrong sizes, overlapping ranges, NaN in
// weights, a graph that check() refuses. Offsets and path are named.
Model load_model(const std::string& path);
void save_model(const std::string& path, const Model&);  // temporary name, synced, renamed

// Plain safetensors, for checkpoints of others and for tests.
struct SafeTensors {
    std::map<std::string, Tensor> tensors;
    std::map<std::string, std::string> metadata;
};
SafeTensors load_safetensors(const std::string& path);
void save_safetensors(const std::string& path, const SafeTensors&);

}  // namespace nc
