// Tensors: typed, contiguous views of counted storage.
#include "engine/tensor.h"

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
    Tensor out(shape_, dtype_, allocator());
    allocator().copy_within(out.raw(), raw(), bytes());
    return out;
}

void Tensor::check_host() const {
    if (defined() && device().kind != DeviceKind::cpu)
        throw Error("[tensor] values on " + device().str() + " read on the host: " + shape_.str(),
                    ErrorKind::usage, "to_host() copies them");
}

void Tensor::copy_out(void* to) const {
    allocator().copy_out(to, raw(), bytes());
}

Tensor Tensor::to(Allocator& there) const {
    if (!defined() || &there == &allocator()) return *this;
    Tensor out(shape_, dtype_, there);
    out.assign(*this);
    return out;
}

void Tensor::assign(const Tensor& from) {
    if (!defined() || !from.defined() || !(shape_ == from.shape_) || dtype_ != from.dtype_)
        throw Error("[assign] " + (from.defined() ? from.shape_.str() : "undefined") + " to " +
                    (defined() ? shape_.str() : "undefined"));
    Allocator& here = allocator();
    Allocator& there = from.allocator();
    if (&here == &there) {
        here.copy_within(raw(), from.raw(), bytes());
    } else if (there.device().kind == DeviceKind::cpu) {
        here.copy_in(raw(), from.raw(), bytes());
    } else if (here.device().kind == DeviceKind::cpu) {
        there.copy_out(raw(), from.raw(), bytes());
    } else {
        const Tensor between = from.to_host();
        here.copy_in(raw(), between.raw(), bytes());
    }
}

void Tensor::zero() {
    if (defined()) allocator().zero(raw(), bytes());
}

double Tensor::item() const {
    if (elements() != 1)
        throw Error("[item] not one element: " + (defined() ? shape_.str() : "undefined"));
    const Tensor here = to_host();
    switch (dtype_) {
        case DType::f32:
            return *here.data<float>();
        case DType::f64:
            return *here.data<double>();
        case DType::i8:
            return *here.data<int8_t>();
        case DType::u8:
            return *here.data<uint8_t>();
        case DType::i16:
            return *here.data<int16_t>();
        case DType::i32:
            return *here.data<int32_t>();
        case DType::i64:
            return double(*here.data<int64_t>());
        case DType::u64:
            return double(*here.data<uint64_t>());
    }
    return 0;
}

}  // namespace nc
