// PyTorch's .pt and .pth files: the tensors of a state_dict, and nothing that would have to be run.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/tensor.h"
#include "io/bytes.h"

namespace nc {

// Tensors by name, in the order of their file.
struct StateDict {
    std::vector<std::pair<std::string, Tensor>> tensors;
    std::string note;  // where in the file they were found, when not at its top
};

// A zip archive as torch.save() writes it: a state_dict, or a checkpoint with one under a key such
// as "state_dict" or "model". Half and brain floats become floats, tensors with strides contiguous;
// one storage under two names is shared. Error (kind model, with a hint) that names path and
// offset: another format, the one before PyTorch 1.6 and TorchScript among them, a class that is
// not of a state_dict, tensors that lie outside their storages.
StateDict load_pt(const Source&);

}  // namespace nc
