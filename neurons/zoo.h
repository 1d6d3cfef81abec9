// The networks by name, as Graphs with freshly drawn weights.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/graph.h"
#include "engine/random.h"

namespace nc {

// "if" or "lif" with the defaults of the table in SEMANTICS section 3; theta is left undefined.
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
// input: [H, W, C] or [F] of a sample. Error: unknown name or activation, with a suggestion; input
// too small for the network.
Graph make_model(const std::string& name, const Shape& input, int classes, const ZooOptions&);

// Values for every tensor of the graph, whose shapes stay: Kaiming normal weights (He et al.,
// 2015), zero biases, unit batch norms, lambda 2, theta 1, PReLU slopes 0.25. What --graph needs.
Graph draw_weights(Graph, uint64_t seed);

}  // namespace nc
