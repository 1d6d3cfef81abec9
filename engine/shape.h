// Up to six sizes, in place, a value.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <vector>

namespace nc {

class Shape {
 public:
    static constexpr size_t max_rank = 6;

    Shape() = default;
    // Throws Error on more than six sizes or when their product does not fit in 62 bits.
    Shape(std::initializer_list<size_t> sizes);
    explicit Shape(const std::vector<size_t>& sizes);

    size_t rank() const { return rank_; }
    size_t operator[](size_t axis) const { return sizes_[axis]; }
    size_t back() const { return rank_ == 0 ? 1 : sizes_[rank_ - 1]; }
    size_t elements() const;  // 1 for rank 0
    const size_t* begin() const { return sizes_; }
    const size_t* end() const { return sizes_ + rank_; }
    std::vector<size_t> to_vector() const { return {begin(), end()}; }

    Shape with_leading(size_t size) const;  // [size, *this]
    Shape without_leading() const;          // rank >= 1
    Shape with(size_t axis, size_t size) const;

    bool operator==(const Shape& other) const;
    std::string str() const;  // "[2, 3]"

 private:
    size_t sizes_[max_rank] = {};
    size_t rank_ = 0;
};

}  // namespace nc
