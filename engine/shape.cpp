// Shapes: up to six sizes whose product fits in 62 bits.
#include "engine/shape.h"

#include <algorithm>

#include "engine/error.h"

namespace nc {
namespace {

std::string text_of(const size_t* begin, const size_t* end) {
    std::string out = "[";
    for (const size_t* size = begin; size != end; ++size)
        out += (size == begin ? "" : ", ") + std::to_string(*size);
    return out + "]";
}

// The product of the non-zero sizes must fit too, so that no order of multiplication overflows.
void check_product(const size_t* begin, const size_t* end) {
    constexpr size_t limit = size_t(1) << 62;
    size_t product = 1;
    for (const size_t* size = begin; size != end; ++size) {
        if (*size == 0) continue;
        if (*size >= limit / product)
            throw Error("[shape] too many elements: " + text_of(begin, end), ErrorKind::data);
        product *= *size;
    }
}

}  // namespace

Shape::Shape(std::initializer_list<size_t> sizes) : Shape(std::vector<size_t>(sizes)) {}

Shape::Shape(const std::vector<size_t>& sizes) : rank_(sizes.size()) {
    const size_t* first = sizes.data();
    if (sizes.size() > max_rank)
        throw Error("[shape] more than " + std::to_string(max_rank) +
                        " sizes: " + text_of(first, first + sizes.size()),
                    ErrorKind::data);
    check_product(first, first + sizes.size());
    std::copy(sizes.begin(), sizes.end(), sizes_);
}

size_t Shape::elements() const {
    size_t product = 1;
    for (const size_t size : *this) product *= size;
    return product;
}

Shape Shape::with_leading(size_t size) const {
    std::vector<size_t> sizes = {size};
    sizes.insert(sizes.end(), begin(), end());
    return Shape(sizes);
}

Shape Shape::without_leading() const {
    if (rank_ == 0) throw Error("[shape] no leading size to drop: " + str());
    return Shape(std::vector<size_t>(begin() + 1, end()));
}

Shape Shape::with(size_t axis, size_t size) const {
    if (axis >= rank_) throw Error("[shape] no axis " + std::to_string(axis) + " in " + str());
    std::vector<size_t> sizes = to_vector();
    sizes[axis] = size;
    return Shape(sizes);
}

bool Shape::operator==(const Shape& other) const {
    return std::equal(begin(), end(), other.begin(), other.end());
}

std::string Shape::str() const {
    return text_of(begin(), end());
}

}  // namespace nc
