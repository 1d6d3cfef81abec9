// The networks by name, as Graphs with freshly drawn weights.
#pragma once

#include <string>
#include <vector>

#include "engine/graph.h"
#include "engine/random.h"

namespace nc {

struct ZooOptions {
    std::string activation = "relu";  // relu, qcfs, if, lif
    int levels = 8;                   // qcfs
    uint64_t seed = 0;
    Neuron
        neuron;  // the template for if and lif: rule, v0, surrogate; theta 1 a layer unless given
};

std::vector<std::string>
model_names();  // mlp lenet cnn cnn-nmnist cnn-nmnist-3x3 resnet18 resnet20 vgg16 dqn
// input: [H, W, C] of a sample. Error: unknown name, with a suggestion; input too small for the
// network.
Graph make_model(const std::string& name, const Shape& input, int classes, const ZooOptions&);

// Kaiming (He et al., 2015) weights, zero biases, unit batch norms for every tensor of these
// shapes; what --graph needs.
Graph draw_weights(Graph, uint64_t seed);

}  // namespace nc
