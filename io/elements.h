// How foreign files write numbers: element types by name, decoded into tensors.
#pragma once

#include <string_view>

#include "engine/tensor.h"

namespace nc {

struct ElementType {
    const char* name;  // as safetensors calls it: "F32", "BF16", ...
    DType dtype;       // what it becomes: F16 and BF16 are read as f32, BOOL as u8
    size_t bytes;      // of one, in the file
};

const ElementType* element_type(std::string_view name);  // null: unknown
const ElementType& element_type(DType);                  // the one a file is written with

// A tensor of little-endian elements; there are shape.elements() * type.bytes bytes.
Tensor decode(const ElementType&, const Shape&, const uint8_t* bytes);

}  // namespace nc
