// Element types of foreign files; half and brain floats become floats.
#include "io/elements.h"

#include <bit>
#include <cstring>

namespace nc {
namespace {

// The first of a type is the one written.
constexpr ElementType types[] = {
    {"F32", DType::f32, 4}, {"F64", DType::f64, 8}, {"I8", DType::i8, 1},   {"U8", DType::u8, 1},
    {"I16", DType::i16, 2}, {"I32", DType::i32, 4}, {"I64", DType::i64, 8}, {"U64", DType::u64, 8},
    {"BOOL", DType::u8, 1}, {"F16", DType::f32, 2}, {"BF16", DType::f32, 2}};

float half_to_float(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 31, mantissa = half & 1023;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | mantissa << 13);
    if (exponent > 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
    const float tiny = float(mantissa) * 0x1p-24f;  // denormal
    return sign ? -tiny : tiny;
}

}  // namespace

const ElementType* element_type(std::string_view name) {
    for (const ElementType& type : types)
        if (name == type.name) return &type;
    return nullptr;
}

const ElementType& element_type(DType dtype) {
    return *std::find_if(std::begin(types), std::end(types),
                         [&](const ElementType& type) { return type.dtype == dtype; });
}

Tensor decode(const ElementType& type, const Shape& shape, const uint8_t* bytes) {
    Tensor out(shape, type.dtype);
    const size_t n = shape.elements();
    if (n == 0) return out;
    if (type.bytes == size_of(type.dtype)) {
        std::memcpy(out.raw(), bytes, n * type.bytes);
        return out;
    }
    const bool brain = type.name[0] == 'B';
    float* to = out.data<float>();
    for (size_t i = 0; i < n; ++i) {
        const uint16_t half = uint16_t(bytes[2 * i] | bytes[2 * i + 1] << 8);
        to[i] = brain ? std::bit_cast<float>(uint32_t(half) << 16) : half_to_float(half);
    }
    return out;
}

}  // namespace nc
