// Tensor: a contiguous, row-major view of counted storage; copying one shares the bytes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/shape.h"
#include "engine/storage.h"

namespace nc {

enum class DType { f32, f64, i8, u8, i16, i32, i64, u64 };

size_t size_of(DType);
std::string str(DType);  // "f32"; also the safetensors name in capitals' lower case

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
    return DType::f32;
}
template <>
constexpr DType dtype_of<double>() {
    return DType::f64;
}
template <>
constexpr DType dtype_of<int8_t>() {
    return DType::i8;
}
template <>
constexpr DType dtype_of<uint8_t>() {
    return DType::u8;
}
template <>
constexpr DType dtype_of<int16_t>() {
    return DType::i16;
}
template <>
constexpr DType dtype_of<int32_t>() {
    return DType::i32;
}
template <>
constexpr DType dtype_of<int64_t>() {
    return DType::i64;
}
template <>
constexpr DType dtype_of<uint64_t>() {
    return DType::u64;
}

class Tensor {
 public:
    Tensor() = default;  // undefined: defined() is false, no shape
    // Uninitialised values on the allocator's device.
    explicit Tensor(const Shape& shape, DType dtype = DType::f32,
                    Allocator& allocator = host_allocator());

    template <class T>
    static Tensor from(const std::vector<T>& values, const Shape& shape) {  // host copy
        if (values.size() != shape.elements())
            throw Error("[tensor] " + std::to_string(values.size()) + " values do not fill " +
                        shape.str());
        Tensor out(shape, dtype_of<T>());
        std::copy(values.begin(), values.end(), out.data<T>());
        return out;
    }
    template <class T>
    static Tensor full(const Shape& shape, T value) {  // host
        Tensor out(shape, dtype_of<T>());
        std::fill_n(out.data<T>(), out.elements(), value);
        return out;
    }

    bool defined() const { return storage_ != nullptr; }
    const Shape& shape() const { return shape_; }
    DType dtype() const { return dtype_; }
    Device device() const { return storage_->device(); }
    Allocator& allocator() const { return storage_->allocator(); }
    size_t elements() const { return defined() ? shape_.elements() : 0; }
    size_t bytes() const { return elements() * size_of(dtype_); }
    // No other tensor shares the storage: writing in place is seen by nobody else.
    bool exclusive() const { return storage_.use_count() == 1; }

    // Typed pointer to the first element, on the tensor's device. Error when T is not the dtype.
    template <class T>
    T* data() {
        check_type(dtype_of<T>());
        return static_cast<T*>(raw());
    }
    template <class T>
    const T* data() const {
        check_type(dtype_of<T>());
        return static_cast<const T*>(raw());
    }
    // The same for reading values here. Error when they are on another device.
    template <class T>
    const T* host_data() const {
        check_host();
        return data<T>();
    }
    void* raw() { return static_cast<char*>(storage_->data()) + offset_; }
    const void* raw() const { return static_cast<const char*>(storage_->data()) + offset_; }

    // Same storage, other shape of as many elements. Error shows both shapes.
    Tensor reshape(const Shape& shape) const;
    // Rows [begin, end) of the leading axis, sharing storage.
    Tensor slice(size_t begin, size_t end) const;
    Tensor clone() const;  // own storage, same device

    // The same values where this allocator's memory is: this tensor when they are there already. A
    // copy waits for the work that makes the values.
    Tensor to(Allocator&) const;
    Tensor to_host() const { return defined() ? to(host_allocator()) : Tensor(); }
    // Writes another tensor's values, of the same shape and dtype, over these, wherever both are;
    // zero: zeros.
    void assign(const Tensor& from);
    void zero();

    template <class T>
    std::vector<T> to_vector() const {
        check_type(dtype_of<T>());
        std::vector<T> out(elements());
        copy_out(out.data());
        return out;
    }
    // Value of a one-element tensor, as double.
    double item() const;

 private:
    void check_type(DType) const;
    void check_host() const;
    void copy_out(void* to) const;

    std::shared_ptr<Storage> storage_;
    Shape shape_;
    DType dtype_ = DType::f32;
    size_t offset_ = 0;  // bytes
};

}  // namespace nc
