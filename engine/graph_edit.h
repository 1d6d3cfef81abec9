// Edits on a Graph, value in, value out: what conversion, ONNX and NIR are written with.
#pragma once

#include "engine/graph.h"

namespace nc {

// The node's operation replaced; name and edges stay.
Graph replace(Graph, size_t node, Operation op);
// The node removed; each of its inputs feeds each of its outputs (delays added), keeping the order
// of edges. Error when it has several inputs and an output that needs them summed apart.
Graph remove(Graph, size_t node);
// A new node on an edge: from -> new -> to; the delay stays on the first half.
Graph insert_on_edge(Graph, size_t edge, const std::string& name, Operation op);
// A new node between `node` and all its consumers.
Graph insert_after(Graph, size_t node, const std::string& name, Operation op);
// Nodes in topological order, unreachable ones dropped; edges into a node keep their order.
Graph sorted(const Graph&);
std::string unique_name(const Graph&, const std::string& wanted);

}  // namespace nc
