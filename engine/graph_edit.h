// Edits on a Graph, value in, value out: what conversion, ONNX and NIR are written with.
#pragma once

#include "engine/graph.h"

namespace nc {

// The node's operation replaced; name and edges stay.
Graph replace(Graph, size_t node, Operation op);
// The node removed (later indices move down by one); each of its inputs feeds each of its outputs,
// delays added, in the place of the edge it replaces. Error where that would change a sum: several
// inputs that are not the first to be added, or a second edge between the same two nodes.
Graph remove(Graph, size_t node);
// A new node (the last index) on an edge: from -> new -> to; the delay stays on the first half.
Graph insert_on_edge(Graph, size_t edge, const std::string& name, Operation op);
// A new node between `node` and all its consumers.
Graph insert_after(Graph, size_t node, const std::string& name, Operation op);
// A new node between all inputs of `node`, whose sum it takes, and it.
Graph insert_before(Graph, size_t node, const std::string& name, Operation op);
// Nodes in topological order; those on no path from the input to the output are dropped; edges into
// a node keep their order.
Graph sorted(const Graph&);
// wanted, or wanted_2, wanted_3, ... whichever no node has.
std::string unique_name(const Graph&, const std::string& wanted);

}  // namespace nc
