// From a plan to modules: what the generator's parts share.
#pragma once

#include <algorithm>
#include <bit>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "hw/fpga.h"
#include "hw/rtl_text.h"

namespace nc::rtl {

[[noreturn]] inline void fail(const std::string& what) {
    throw Error("[rtl] " + what, ErrorKind::model);
}

inline std::string str(uint64_t x) {
    return std::to_string(x);
}

// Bits that count to n - 1: 0 for one thing.
inline size_t bits_for(size_t n) {
    return size_t(std::bit_width(n - 1));
}
// The same for what must have a wire.
inline size_t wires_for(size_t n) {
    return std::max<size_t>(1, bits_for(n));
}

// Bits from the highest down, as $readmemh takes a row.
class Row {
 public:
    void put(int64_t value, size_t bits) {
        for (size_t b = bits; b-- > 0;) bits_.push_back((uint64_t(value) >> b & 1) != 0);
    }
    std::string hex() const {
        std::string out;
        const size_t digits = (bits_.size() + 3) / 4;
        for (size_t d = 0; d < digits; ++d) {
            int value = 0;
            for (size_t b = 0; b < 4; ++b) {
                const size_t place = (digits - 1 - d) * 4 + (3 - b);  // from the lowest bit
                value = value * 2 + (place < bits_.size() && bits_[bits_.size() - 1 - place]);
            }
            out += "0123456789abcdef"[value];
        }
        return out + "\n";
    }

 private:
    std::vector<bool> bits_;
};

// x, from bits wide, sign-extended to bits wide.
inline std::string widened(const std::string& x, size_t from, size_t to) {
    if (from >= to) return x;
    return "{{" + str(to - from) + "{" + x + "[" + str(from - 1) + "]}}, " + x + "}";
}

// x * factor as shifts and additions in so many bits; x is already that wide.
inline std::string times(const std::string& x, uint64_t factor) {
    std::string out;
    for (int b = 63; b >= 0; --b)
        if (factor >> b & 1)
            out += (out.empty() ? "" : " + ") + ("(" + x + " << " + std::to_string(b) + ")");
    return out;
}

// Where an event's fields lie.
struct Fields {
    size_t y, x, c, value;
    explicit Fields(const FpgaPopulation& p, bool input)
        : y(bits_for(p.height)),
          x(bits_for(p.width)),
          c(bits_for(p.channels)),
          value(input ? 8 : 0) {}
    size_t wide() const { return 1 + y + x + c + value; }
    static std::string slice(const std::string& of, size_t low, size_t bits) {
        return of + "[" + str(low + bits - 1) + ":" + str(low) + "]";
    }
    std::string of_y(const std::string& e) const { return slice(e, value + c + x, y); }
    std::string of_x(const std::string& e) const { return slice(e, value + c, x); }
    std::string of_c(const std::string& e) const { return slice(e, value, c); }
};

// Counters that walk over places, channel (or block) fastest: "logic" lines and the always_ff body.
inline std::string counter(const std::string& name, size_t count) {
    return "    logic [" + str(wires_for(count) - 1) + ":0] " + name + ";\n";
}

// Error by name for what the cores do not have.
void check_cores(const IntegerNetwork&, const FpgaPlan&, int T, bool temporal);

// Fills the modules' text in, and writes what the memories hold.
class Writer {
 public:
    Writer(const IntegerNetwork&, const FpgaPlan&, int T, bool temporal);
    void run();

    std::vector<std::pair<std::string, std::string>> files;  // (name, text)

 private:
    // Widths of a population's parameters: thresholds without a sign.
    struct Parameters {
        size_t bias = 1, threshold = 0;
        bool each = false;  // a threshold a neuron, not a channel
    };

    void synapses(size_t i, size_t k);
    void taps(const std::string& file, const std::vector<std::vector<FpgaTap>>& axis, size_t index,
              size_t accumulator, size_t weight);
    void core(size_t i);
    void write_parameters(size_t i);
    std::string update(size_t i) const;  // of a lane: the membrane's next value
    void network();

    Parameters parameters(size_t i) const;
    size_t row_wires(size_t i) const { return wires_for(plan_.populations[i].rows); }
    bool loads(size_t i) const;  // takes a static input in

    const IntegerNetwork& net_;
    const FpgaPlan& plan_;
    const int T_;
    const bool temporal_;
};

}  // namespace nc::rtl
