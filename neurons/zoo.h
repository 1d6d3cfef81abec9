// The networks by name, as Graphs with freshly drawn weights.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/graph.h"
#include "engine/random.h"

namespace nc {

// "if" or "lif" with its usual defaults (IF: v0 theta / 2, amplitude theta; LIF: beta 0.5, v0 0,
// amplitude 1); theta is left undefined.
Neuron default_neuron(const std::string& kind);

struct ZooOptions {
    std::string activation = "relu";  // relu, qcfs, if, lif
    int levels = 8;                   // qcfs
    uint64_t seed = 0;
    // if and lif: used instead of default_neuron(activation); theta 1 a layer unless defined, [1].
    std::optional<Neuron> neuron;
};

std::vector<std::string>
model_names();  // mlp lenet cnn cnn-nmnist cnn-nmnist-3x3 resnet18 resnet20 vgg16 dqn
// Kaiming weights, zero biases, unit batch norms, lambda 2 a channel.
// input: [H, W, C] or [F] of a sample. Error: unknown name or activation, with a suggestion; input
// too small for the network.
Graph make_model(const std::string& name, const Shape& input, int classes, const ZooOptions&);

// New weights for every Linear and Conv: Kaiming normal (He et al., 2015). Other tensors stay.
Graph draw_weights(Graph, uint64_t seed);

}  // namespace nc
