// Which neighbouring nodes of a Graph the interpreter may run as one, read off the graph alone.
#pragma once

#include <optional>
#include <vector>

#include "engine/graph.h"

namespace nc {

// A graph's edges by node.
struct Links {
    explicit Links(const Graph&);
    std::vector<std::vector<size_t>> incoming;  // edges into a node, in their order
    std::vector<size_t> uses;                   // how many edges leave it
};

// Nodes that train as one block which keeps packed spikes only: [flatten,] linear or conv [, batch
// norm], neuron [, average pool], each the only consumer of the one before.
struct Chain {
    size_t weight = 0, neuron = 0;
    std::optional<size_t> flatten, norm, pool;
};
// The chain whose first node this is.
std::optional<Chain> chain_from(const Graph&, const Links&, size_t node);

// The ReLU that a batch norm can do in its own pass: nobody else reads what it takes.
std::optional<size_t> relu_after(const Graph&, const Links&, size_t node);

}  // namespace nc
