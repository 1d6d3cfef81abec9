// Several inputs in a network of one: they lie side by side along its last axis, in the order of
// their names, and each is a node of 0 and 1 that selects its channels.
#pragma once

#include "engine/graph.h"

namespace nc {

struct NamedInput {
    std::string name;
    size_t node;             // the selection; with one input that input
    size_t first, channels;  // of the last axis
};
// In the order of their channels, which they share among them whole; of any other network its one
// input. Tensors are on the host.
std::vector<NamedInput> named_inputs(const Graph&);

}  // namespace nc
