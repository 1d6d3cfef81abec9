// ONNX models: networks of PyTorch and others, read; one time step of a spiking network, written.
#pragma once

#include <string>
#include <vector>

#include "engine/graph.h"

namespace nc {

struct OnnxNetwork {
    Graph graph;
    std::vector<std::string> notes;  // what of the model was left out, for people
};

// The network of an ONNX model as either of PyTorch's exporters writes it (any IR version and
// opset), with the exporter's spelling undone: layers, activations and BatchNorm stay as they are.
// Weights may lie beside the file (external data in its folder). Error (kind model): not an ONNX
// model, every node that is not supported with its name, weights that are missing or do not fit,
// and in a build without protobuf always.
OnnxNetwork load_onnx(const std::string& path);
OnnxNetwork parse_onnx(const std::vector<uint8_t>& file, const std::string& path);

// One time step as an ONNX model in primitive operations of opset 17, float32: inputs x
// [N, C, H, W] or [N, F] and, for every neuron, its membrane "<node>.v"; outputs "logits" and the
// membranes after the step, "<node>.v_next". A membrane that is not given starts at v(0). The
// neurons' arithmetic is ours operation by operation; a layer's sums are in the runtime's order.
// Error (kind model) names the node: signed and exact neurons, delayed edges, biases of every step,
// membranes in physical time.
std::vector<uint8_t> onnx_step(const Graph&);
void save_onnx_step(const std::string& path, const Graph&);

}  // namespace nc
