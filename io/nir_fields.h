// The fields of one NIR node, each checked as it is asked for.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "engine/tensor.h"
#include "io/nir_file.h"

namespace nc {

inline std::string text_of(const std::vector<size_t>& shape) {
    std::string out = "(";
    for (const size_t size : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(size);
    return out + ")";
}

// The fields of one node; every refusal names file, node and field.
class Fields {
 public:
    Fields(const NirNode& node, const std::string& name, const std::string& path)
        : node_(node), where_("[" + path + "] node '" + name + "' (" + node.type + ")") {}

    [[noreturn]] void refuse(const std::string& what) const {
        throw Error(where_ + ": " + what, ErrorKind::model);
    }
    bool has(const std::string& field) const { return node_.fields.count(field) > 0; }
    const NirField& get(const std::string& field) {
        known_.insert(field);
        const auto found = node_.fields.find(field);
        if (found == node_.fields.end()) refuse(field + " is missing");
        return found->second;
    }
    // Others may say these too; what they say follows from the rest.
    void allow(const std::string& field) { known_.insert(field); }
    void refuse_unknown() const {
        for (const auto& [name, field] : node_.fields)
            if (known_.count(name) == 0) refuse("unknown field '" + name + "'");
    }

    std::vector<float> floats(const NirField& field, const std::string& name) const {
        std::vector<float> out;
        std::visit(
            [&](const auto& values) {
                using T = typename std::decay_t<decltype(values)>::value_type;
                if constexpr (std::is_same_v<T, std::string>)
                    refuse(name + " is text");
                else
                    for (const T value : values) out.push_back(float(value));
            },
            field.values);
        for (const float value : out)
            if (!std::isfinite(value)) refuse(name + " holds " + std::to_string(value));
        return out;
    }
    // A weight or bias: every size of it positive.
    Tensor tensor(const std::string& name, size_t rank) {
        const NirField& field = get(name);
        if (std::count(field.shape.begin(), field.shape.end(), size_t(0)) > 0)
            refuse(name + " is empty: " + text_of(field.shape));
        if (field.shape.size() != rank)
            refuse(name + " has the shape " + text_of(field.shape) + ", not " +
                   std::to_string(rank) + " sizes");
        return Tensor::from(floats(field, name), Shape(field.shape));
    }
    // Whole numbers >= least; one stands for `count` of them.
    std::vector<size_t> sizes(const std::string& name, size_t count, int64_t least) {
        const NirField& field = get(name);
        std::vector<size_t> out;
        std::visit(
            [&](const auto& values) {
                using T = typename std::decay_t<decltype(values)>::value_type;
                if constexpr (std::is_same_v<T, std::string>)
                    refuse(name + " is text");
                else
                    for (const T value : values) {
                        if (!(double(value) >= double(least)) || double(value) > double(largest) ||
                            double(value) != std::floor(double(value)))
                            refuse(name + " is " + std::to_string(value) + ", not a size");
                        out.push_back(size_t(value));
                    }
            },
            field.values);
        if (count > 0 && out.size() == 1) out.assign(count, out[0]);
        if (count > 0 && out.size() != count)
            refuse(name + " has " + std::to_string(out.size()) + " values, not " +
                   std::to_string(count));
        return out;
    }
    std::optional<std::string> word(const std::map<std::string, NirField>& from,
                                    const std::string& name) const {
        const auto found = from.find(name);
        if (found == from.end()) return std::nullopt;
        const auto* words = std::get_if<std::vector<std::string>>(&found->second.values);
        if (words == nullptr || words->size() != 1) refuse(name + " is not a word");
        return words->front();
    }
    std::optional<double> number(const std::map<std::string, NirField>& from,
                                 const std::string& name) const {
        const auto found = from.find(name);
        if (found == from.end()) return std::nullopt;
        std::optional<double> out;
        std::visit(
            [&](const auto& values) {
                using T = typename std::decay_t<decltype(values)>::value_type;
                if constexpr (!std::is_same_v<T, std::string>)
                    if (values.size() == 1) out = double(values[0]);
            },
            found->second.values);
        if (!out || !std::isfinite(*out)) refuse(name + " is not a number");
        return out;
    }
    const NirNode& node() const { return node_; }

 private:
    static constexpr int64_t largest = 1 << 24;
    const NirNode& node_;
    std::string where_;
    std::set<std::string> known_;
};

}  // namespace nc
