// What the reader of NIR is made of: layers from their fields, and one input and one output from
// several. Tensors are in the file's order.
#pragma once

#include "engine/graph.h"
#include "io/nir_fields.h"

namespace nc {

// A sample's shape as the file has it, (C, H, W) or (F).
std::string file_text(const Shape&);

// Of a Conv1d or a Conv2d.
Conv nir_convolution(Fields&, bool one_d);
ops::PoolOptions nir_pooling(Fields&);

// Of several outputs the one of this name, without what leads to the others only. names: the
// file's, of the first nodes. Error when there are several and none is named, or not that one.
Graph with_one_output(Graph, const std::vector<std::string>& names, const std::string& output,
                      const std::string& path);
// Several inputs become selections from one (io/named_inputs.h), in the order of the nodes. Error
// when they differ in more than their channels.
Graph with_one_input(Graph, const std::string& path);

}  // namespace nc
