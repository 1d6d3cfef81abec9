// Between this program's order of values and that of other tools' files: [kh, kw, in, out] and
// [out, in, kh, kw], [in, out] and [out, in], H, W, C and C, H, W.
#pragma once

#include "engine/graph.h"

namespace nc {

// The same graph with its tensors in others' order: not for running. Error when check() refuses it.
Graph to_file_order(const Graph&);
// The exact inverse; checks the graph.
Graph from_file_order(const Graph&);

// For every node the map [H, W, C] that its output's values enumerate, itself or flattened; rank 0
// when they do not. Others' files enumerate it as [C, H, W].
std::vector<Shape> output_maps(const Graph&);

}  // namespace nc
