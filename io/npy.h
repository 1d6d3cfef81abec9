// NumPy's .npy arrays, C order.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/tensor.h"
#include "io/bytes.h"

namespace nc {

Tensor parse_npy(const std::vector<uint8_t>& file, const std::string& path);
Tensor load_npy(const std::string& path);  // f4 f8 i1 u1 i2 i4 i8 u8 b1; Error on anything else
void save_npy(const std::string& path, const Tensor&);

// A number in an item of `item_bytes`: the item itself, or a field of a structured one.
struct NpyField {
    std::string name;  // empty where the array is not structured
    char kind;         // 'i', 'u', 'f' or 'b' (bool)
    size_t bytes;      // 1, 2, 4 or 8
    size_t offset;     // in the item
    bool big_endian;
    double number(const uint8_t* item) const;
    // Exact. A float must hold an integer: false when it does not, or does not fit.
    bool integer(const uint8_t* item, int64_t& out) const;
};
struct NpyHeader {
    std::string type;  // as the file spells it
    std::vector<NpyField> fields;
    bool structured = false;
    size_t item_bytes = 0;
    std::vector<size_t> shape;
    const NpyField* find(const std::string& name) const;  // null when not there
    uint64_t elements() const;
};
// Leaves the stream at the first value. Error names path and offset: no .npy file, malformed,
// Fortran order, a type other than numbers and records of numbers.
NpyHeader read_npy_header(ByteStream&);
// Before values written piece by piece.
std::string npy_header(DType, const std::vector<size_t>& shape);

}  // namespace nc
