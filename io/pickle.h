// Python's pickle as plain values. Nothing is imported or called: what a pickle asks for is
// recorded when it is allowed, refused by name otherwise.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/error.h"

namespace nc {

struct PickleValue {
    enum class Kind : uint8_t {
        none,
        boolean,     // integer
        integer,     // of up to 64 bits
        real,        // real
        text,        // text: a string
        bytes,       // text
        sequence,    // items: of a tuple, a list or a set
        dict,        // items: key, value, key, value ..
        global,      // integer: the number that allow() gave it
        call,        // integer: that of what is called; items: one sequence, its arguments
        persistent,  // items: one value, the id of what is stored outside the pickle
        large        // an integer of more than 64 bits
    };
    Kind kind = Kind::none;
    int64_t integer = 0;
    double real = 0;
    std::string_view text;  // in the pickle's bytes
    std::vector<uint32_t> items;
};

class Pickle {
 public:
    // A number >= 0 for what may be named, pickle_dict for a class that makes a dict, -1 otherwise.
    using Allow = std::function<int64_t(std::string_view module, std::string_view name)>;
    static constexpr int64_t pickle_dict = -2;

    // Protocols 2 to 5; the bytes must outlive it. Error (kind model, with this hint) that names
    // path and byte offset: truncated, an opcode or a class that is not read, more than 2^20 values
    // (a state_dict has some 20 a tensor).
    Pickle(const std::vector<uint8_t>& bytes, const std::string& path, const Allow& allow,
           const std::string& hint);
    const PickleValue& root() const { return values_[root_]; }
    const PickleValue& operator[](uint32_t index) const { return values_[index]; }

 private:
    friend class PickleMachine;
    std::deque<PickleValue> values_;  // may refer to each other in circles
    uint32_t root_ = 0;
};

}  // namespace nc
