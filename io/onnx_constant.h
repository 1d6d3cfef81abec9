// Constants of an ONNX model: initialisers decoded, and arithmetic on them carried out.
#pragma once

#include <onnx.pb.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/bytes.h"

namespace nc::onnx {

// What is wrong with one node or tensor; the importer collects these under the node's name.
struct Unsupported {
    std::string why;
};

// ONNX's numbers of types; what is stored as an integer is computed as one.
enum Type : int {
    float32 = 1,
    uint8 = 2,
    int8 = 3,
    uint16 = 4,
    int16 = 5,
    int32 = 6,
    int64 = 7,
    boolean = 9,
    float16 = 10,
    float64 = 11,
    uint32 = 12,
    uint64 = 13,
    bfloat16 = 16
};
bool is_float(int type);

// A value known before running. One of the lists is filled, by is_float(type).
struct Constant {
    std::vector<int64_t> dims;
    int type = float32;
    std::vector<float> floats;
    std::vector<int64_t> ints;

    bool integer() const { return !is_float(type); }
    size_t size() const { return integer() ? ints.size() : floats.size(); }
    double at(size_t i) const { return integer() ? double(ints[i]) : double(floats[i]); }
};
using ConstantPtr = std::shared_ptr<const Constant>;

// Elements of these sizes. Unsupported when negative, of more than 8 axes, or 2^40 or more.
size_t elements_of(const std::vector<int64_t>& dims);
std::string text_of(const std::vector<int64_t>& dims);  // "[2, 3]"

// What a model may make us hold, in floats: a multiple of what its files hold.
class Budget {
 public:
    explicit Budget(uint64_t file_bytes) : left_(4 * file_bytes + (uint64_t(1) << 22)) {}
    void spend(size_t elements);  // Unsupported when nothing is left
    void grow(uint64_t file_bytes) { left_ += 4 * file_bytes; }

 private:
    uint64_t left_;
};

// Decodes tensors; those with external data are read from the model's folder.
class Tensors {
 public:
    // model: the path of the model file.
    Tensors(std::string model, Budget& budget) : model_(std::move(model)), budget_(budget) {}
    // Unsupported: a type that is none of the above, sizes that do not fit the data. Error: an
    // external file that is missing, outside the folder or too short.
    ConstantPtr decode(const TensorProto&);

 private:
    std::vector<uint8_t> external(const TensorProto&, size_t bytes);

    std::string model_;
    Budget& budget_;
    std::map<std::string, Source> files_;
};

// Attributes by name; the fallback where there is none of that name. Unsupported on a wrong type.
int64_t int_attribute(const NodeProto&, const char* name, int64_t fallback);
double float_attribute(const NodeProto&, const char* name, double fallback);
std::string text_attribute(const NodeProto&, const char* name, const std::string& fallback);
std::vector<int64_t> ints_attribute(const NodeProto&, const char* name);
const AttributeProto* find_attribute(const NodeProto&, const char* name);

// An operation that this can carry out on constants.
bool is_foldable(const std::string& op_type);
// Its result; inputs are null where the node leaves them out. Unsupported on wrong sizes.
ConstantPtr fold(const NodeProto&, const std::vector<ConstantPtr>& inputs, Tensors&, Budget&);

// The axis counted from the start. Unsupported when there is none.
size_t axis_of(int64_t axis, size_t rank);
// Reshape, Flatten, Squeeze and Unsqueeze: the same values in other sizes.
bool is_view(const std::string& op_type);
// Those sizes; second: the node's second input, null when there is none.
std::vector<int64_t> viewed(const NodeProto&, const std::vector<int64_t>& dims,
                            const Constant* second);

// An operation on numbers, by ONNX's name; null when there is none.
using Unary = double (*)(double);
using Binary = double (*)(double, double);
Unary unary(const std::string& op_type);
Binary binary(const std::string& op_type);

}  // namespace nc::onnx
