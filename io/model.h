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

// The graph's schema, which --graph FILE.json reads too:
//   {"nodes": [{"name": "conv1", "op": "conv", FIELDS}, ..],
//    "edges": [{"from": "input", "to": "conv1", "delay": 0}, ..]}
// op          fields; those with a default may be left out
// input       shape [H, W, C] or [F]; scale (of a quantised network)
// linear      weight; bias optional
// conv        weight; bias optional; stride, padding, dilation [h, w] or one number; groups
// batch_norm  mean, variance; gamma, beta optional; eps, momentum
// activation  kind: relu leaky_relu relu6 hard_swish silu gelu sigmoid tanh; param
// prelu slope; qcfs lambda, levels; scale scale; step_bias bias [steps, C]
// neuron      theta; v0 optional, v0_fraction; amplitude: theta one; train_theta; beta; compare:
//             greater_equal greater; reset: subtract to_value; reset_value; spiking: plain negative
//             exact; surrogate: atan triangle rectangle sigmoid; surrogate_width; scale_width;
//             detach_reset
// average_pool, max_pool   kernel_size, stride, padding: [h, w] or one number
// output, global_average_pool, flatten, add   none
// A tensor field is {"shape": [..]}, or {"shape": [..], "value": x} in a graph without tensors; its
// values are the file's tensor "<node>.<tensor_field>", so that PyTorch's load_state_dict() takes
// them. Shapes and tensors are in others' order: conv [out, in / groups, kh, kw], linear [out, in];
// what enumerates a map (the inputs of a Linear after a Flatten, parameters per neuron) counts C,
// H, W.
Json graph_to_json(const Graph&);
// PyTorch's name of a field: weight, bias, running_mean and running_var of a batch norm, weight of
// a PReLU; others have their own.
std::string tensor_field(const Operation&, const std::string& field);
std::map<std::string, Tensor> graph_tensors(const Graph&);  // by full name, in others' order
// The inverse of the two above. Without any tensors, those named are made, filled with their value
// or, where none is given, with a neutral one (weights 0, variance, theta, gamma and scale 1,
// lambda 2, slope 0.25): the caller draws them. Error (kind model): a tensor that is named but
// missing, other shapes or types, unknown operations and fields, a graph that check() refuses.
Graph graph_from_json(const Json&, const std::map<std::string, Tensor>& tensors,
                      const std::string& path);

// Error (kind model): not a safetensors file, truncated, wrong sizes, overlapping ranges, NaN in
// weights, a graph that check() refuses. Offsets and path are named.
Model load_model(const std::string& path);
Model parse_model(const std::vector<uint8_t>& file, const std::string& path);
void save_model(const std::string& path, const Model&);  // temporary name, synced, renamed

// Plain safetensors, for checkpoints of others and for tests. F16 and BF16 are read as f32, BOOL as
// u8.
struct SafeTensors {
    std::map<std::string, Tensor> tensors;
    std::map<std::string, std::string> metadata;
};
SafeTensors load_safetensors(const std::string& path);
SafeTensors parse_safetensors(const std::vector<uint8_t>& file, const std::string& path);
void save_safetensors(const std::string& path, const SafeTensors&);

}  // namespace nc
