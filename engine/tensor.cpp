// Tensors: typed, contiguous views of counted storage.
#include "engine/tensor.h"

#include <cstring>

namespace nc {

size_t size_of(DType dtype) {
    switch (dtype) {
        case DType::i8:
        case DType::u8:
            return 1;
        case DType::i16:
            return 2;
        case DType::f32:
        case DType::i32:
            return 4;
        case DType::f64:
        case DType::i64:
        case DType::u64:
            return 8;
    }
    return 0;
}

std::string str(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return "f32";
        case DType::f64:
            return "f64";
        case DType::i8:
            return "i8";
        case DType::u8:
            return "u8";
        case DType::i16:
            return "i16";
        case DType::i32:
            return "i32";
        case DType::i64:
            return "i64";
        case DType::u64:
            return "u64";
    }
    return "";
}

Tensor::Tensor(const Shape& shape, DType dtype, Allocator& allocator)
    : storage_(std::make_shared<Storage>(shape.elements() * size_of(dtype), allocator)),
      shape_(shape),
      dtype_(dtype) {}

void Tensor::check_type(DType wanted) const {
    if (!defined()) throw Error("[tensor] undefined tensor read as " + nc::str(wanted));
    if (dtype_ != wanted)
        throw Error("[tensor] a tensor of " + nc::str(dtype_) + " read as " + nc::str(wanted) +
                    ": " + shape_.str());
}

Tensor Tensor::reshape(const Shape& shape) const {
    if (!defined() || shape.elements() != elements())
        throw Error("[reshape] sizes differ: " + (defined() ? shape_.str() : "undefined") + " to " +
                    shape.str());
    Tensor out = *this;
    out.shape_ = shape;
    return out;
}

Tensor Tensor::slice(size_t begin, size_t end) const {
    if (!defined() || shape_.rank() == 0 || begin > end || end > shape_[0])
        throw Error("[slice] rows " + std::to_string(begin) + " to " + std::to_string(end) +
                    " of " + (defined() ? shape_.str() : "undefined"));
    Tensor out = *this;
    out.shape_ = shape_.with(0, end - begin);
    const size_t row = shape_.without_leading().elements();
    out.offset_ += begin * row * size_of(dtype_);
    return out;
}

Tensor Tensor::clone() const {
    if (!defined()) return {};
    if (device().kind != DeviceKind::cpu) throw Error("[clone] not on the host: " + device().str());
    Tensor out(shape_, dtype_);
    std::memcpy(out.raw(), raw(), bytes());
    return out;
}

double Tensor::item() const {
    if (elements() != 1)
        throw Error("[item] not one element: " + (defined() ? shape_.str() : "undefined"));
    switch (dtype_) {
        case DType::f32:
            return *data<float>();
        case DType::f64:
            return *data<double>();
        case DType::i8:
            return *data<int8_t>();
        case DType::u8:
            return *data<uint8_t>();
        case DType::i16:
            return *data<int16_t>();
        case DType::i32:
            return *data<int32_t>();
        case DType::i64:
            return double(*data<int64_t>());
        case DType::u64:
            return double(*data<uint64_t>());
    }
    return 0;
}

}  // namespace nc
