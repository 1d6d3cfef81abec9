// From a tensor's dtype to a storage type, and the checks every operation begins with.
#pragma once

#include <string>

#include "engine/compute.h"

namespace nc {

// body(F()) with F float or double, whichever the tensors hold; Error on any other dtype.
template <class Body>
decltype(auto) on_floats(const char* op, DType dtype, Body&& body) {
    if (dtype == DType::f64) return body(double());
    if (dtype != DType::f32)
        throw Error("[" + std::string(op) + "] f32 or f64 wanted, not " + str(dtype));
    return body(float());
}

// The same for what runs kernels there: Error too when a kernel could not be started, or for f64 on
// a device, where only f32 runs.
template <class Body>
void on_floats(Compute& compute, const char* op, DType dtype, Body&& body) {
    if (dtype == DType::f64 && !compute.on_host())
        throw Error("[" + std::string(op) + "] f64 runs on the cpu only, not on " +
                    compute.device.str());
    on_floats(op, dtype, body);
    compute.check(op);
}

// A tensor that may be left out: its values or null.
template <class F>
const F* data_or_null(const Tensor& t) {
    return t.defined() ? t.data<F>() : nullptr;
}

inline std::string shape_text(const Tensor& t) {
    return t.defined() ? t.shape().str() : "undefined";
}

[[noreturn]] inline void fail(const char* op, const std::string& what) {
    throw Error("[" + std::string(op) + "] " + what);
}

inline void check_same(const char* op, const Tensor& a, const Tensor& b) {
    if (!a.defined() || !b.defined() || !(a.shape() == b.shape()))
        fail(op, "shapes differ: " + shape_text(a) + " and " + shape_text(b));
}

inline void check_rank(const char* op, const Tensor& a, size_t rank) {
    if (!a.defined() || a.shape().rank() != rank)
        fail(op, std::to_string(rank) + " sizes wanted: " + shape_text(a));
}

inline void check_row(const char* op, const Tensor& a, const Tensor& row) {
    if (!a.defined() || !row.defined() || a.shape().rank() == 0 ||
        !(row.shape() == Shape{a.shape().back()}))
        fail(op, "row " + shape_text(row) + " does not fit the last size of " + shape_text(a));
}

// Sizes of a viewed as rows of its last axis.
inline size_t rows_of(const Tensor& a) {
    return a.shape().back() == 0 ? 0 : a.elements() / a.shape().back();
}

}  // namespace nc
