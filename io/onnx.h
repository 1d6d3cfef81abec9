// ONNX models: networks of PyTorch and others, read; one time step of a spiking network, written.
#pragma once

#include <string>

#include "engine/graph.h"

namespace nc {

// The network of an ONNX model as either of PyTorch's exporters writes it (any IR version and
// opset), with the exporter's spelling undone: layers, activations and BatchNorm stay as they are.
// Weights may lie beside the file (external data in its folder). Error (kind model): not an ONNX
// model, every node that is not supported with its name, weights that are missing or do not fit,
// and in a build without protobuf always.
Graph load_onnx(const std::string& path);

}  // namespace nc
