// Cameras' formats: N-MNIST, AEDAT 2.0 and 3.1, Prophesee RAW and .dat.
#include "datasets/event_formats.h"

#include <charconv>
#include <memory>

namespace nc {
namespace {

uint32_t u32le(const uint8_t* b) {
    return uint32_t(b[0]) | uint32_t(b[1]) << 8 | uint32_t(b[2]) << 16 | uint32_t(b[3]) << 24;
}
uint32_t u32be(const uint8_t* b) {
    return uint32_t(b[0]) << 24 | uint32_t(b[1]) << 16 | uint32_t(b[2]) << 8 | b[3];
}

// Calls one() until there are enough events or none left. one() decodes a word or a packet.
template <class One>
auto repeat(One one) {
    return [one = std::move(one)](EventFile& file, std::vector<Event>& out) mutable {
        const size_t enough = out.size() + events_at_a_time;
        while (out.size() < enough && !file.in.at_end()) one(file, out);
        return !file.in.at_end();
    };
}

// A clock that starts again after 2^bits: what goes back by more than half of that has wrapped.
class Clock {
 public:
    explicit Clock(int bits) : period_(int64_t(1) << bits) {}
    int64_t operator()(int64_t low) {
        if (low < last_ - period_ / 2) wraps_ += period_;
        last_ = low;
        return low + wraps_;
    }

 private:
    int64_t period_, last_ = 0, wraps_ = 0;
};

bool starts_with(EventFile& file, const std::string& text) {
    const uint8_t* b = file.in.peek(text.size());
    return b && std::equal(text.begin(), text.end(), b);
}

// Words of a line, without its end.
std::vector<std::string> words(const std::string& line, const std::string& separators) {
    std::vector<std::string> out;
    for (size_t at = 0; (at = line.find_first_not_of(separators, at)) != std::string::npos;) {
        const size_t end = std::min(line.find_first_of(separators, at), line.size());
        out.push_back(line.substr(at, end - at));
        at = end;
    }
    return out;
}

// A side of the sensor as the header has it; what the options say stays.
void set_side(EventFile& file, size_t& side, const std::string& text) {
    size_t value = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    if (parsed.ec != std::errc() || value == 0 || value > largest_side)
        file.in.fail("the header's sensor size '" + text + "' makes no sense");
    if (side == 0) side = value;
}

void set_sensor(EventFile& file, size_t width, size_t height) {
    if (file.width == 0) file.width = width;
    if (file.height == 0) file.height = height;
}

struct Evt2 {
    int64_t high = -1;  // the base time in units of 64 us, unwrapped; -1 before the first
    void operator()(EventFile& file, std::vector<Event>& out) {
        constexpr size_t bytes = 4;
        const uint32_t w = u32le(file.in.take(bytes));
        const uint32_t type = w >> 28;
        if (type == 8) {
            high = next_high(high, w & 0xfffffff, 28);
        } else if (type <= 1 && high >= 0) {
            const int64_t t = high << 6 | (w >> 22 & 63);
            file.add(out, {t, uint16_t(w >> 11 & 2047), uint16_t(w & 2047), uint8_t(type)}, bytes);
        }
    }
    // A time that seems to go back by nearly all of its range has wrapped; by less it is a word
    // damaged on its way, which the maker's decoder lets pass as well.
    static int64_t next_high(int64_t last, uint32_t value, int bits) {
        constexpr int64_t tolerated = 10;
        const int64_t period = int64_t(1) << bits;
        const int64_t wraps = last < 0 ? 0 : last / period * period;
        const int64_t now = wraps + value;
        return last - now >= period - 1 - tolerated ? now + period : now;
    }
};

struct Evt3 {
    int64_t high = -1, low = 0, y = -1, base = -1;
    uint8_t polarity = 0;

    void operator()(EventFile& file, std::vector<Event>& out) {
        const uint8_t* b = file.in.take(2);
        const uint32_t w = uint32_t(b[0] | b[1] << 8), value = w & 0xfff;
        switch (w >> 12) {
            case 0:
                y = value & 2047;
                break;
            case 2:
                add(file, out, value & 2047, uint8_t(value >> 11));
                break;
            case 3:
                base = value & 2047;
                polarity = uint8_t(value >> 11);
                break;
            case 4:
                vector(file, out, value, 12);
                break;
            case 5:
                vector(file, out, value & 255, 8);
                break;
            case 6:
                low = value;
                break;
            case 8: {
                const int64_t now = Evt2::next_high(high, value, 12);
                if (now != high) low = 0;
                high = now;
                break;
            }
            default:
                break;  // triggers, and words of other makes
        }
    }
    void add(EventFile& file, std::vector<Event>& out, int64_t x, uint8_t p) const {
        if (high < 0 || y < 0) return;
        file.add(out, {high << 12 | low, uint16_t(x), uint16_t(y), p}, 2);
    }
    void vector(EventFile& file, std::vector<Event>& out, uint32_t valid, int64_t length) {
        if (base < 0) return;
        for (int64_t i = 0; i < length; ++i)
            if (valid >> i & 1) add(file, out, base + i, polarity);
        base += length;
        if (base > largest_base) file.in.fail("vectors run out of every sensor");
    }
    static constexpr int64_t largest_base = 65000;
};

}  // namespace

void EventFile::outside(const Event& e, size_t event_bytes) const {
    throw Error("[" + in.path() + "] event (" + std::to_string(e.x) + ", " + std::to_string(e.y) +
                    ") at byte " + std::to_string(in.offset() - event_bytes) + " is outside " +
                    std::to_string(width) + " x " + std::to_string(height),
                ErrorKind::data);
}

void open_nmnist(EventFile& file) {
    file.description = "N-MNIST .bin";
    set_sensor(file, 34, 34);
    file.decode = repeat([added = int64_t(0)](EventFile& file, std::vector<Event>& out) mutable {
        constexpr size_t bytes = 5;
        constexpr uint8_t overflow_mark = 240;
        const uint8_t* b = file.in.take(bytes);
        if (b[1] == overflow_mark) {
            added += 1 << 13;
            return;
        }
        const int64_t time = int64_t(b[2] & 127) << 16 | int64_t(b[3]) << 8 | b[4];
        file.add(out, {time + added, b[0], b[1], uint8_t(b[2] >> 7)}, bytes);
    });
}

void open_aedat2(EventFile& file) {
    while (starts_with(file, "#")) file.in.line();
    file.description = "AEDAT 2.0 (DVS128)";
    set_sensor(file, 128, 128);
    file.decode = repeat([clock = Clock(32)](EventFile& file, std::vector<Event>& out) mutable {
        constexpr size_t bytes = 8;
        const uint8_t* b = file.in.take(bytes);
        const uint32_t a = u32be(b);
        file.add(
            out,
            {clock(u32be(b + 4)), uint16_t(a >> 8 & 127), uint16_t(a >> 1 & 127), uint8_t(a & 1)},
            bytes);
    });
}

void open_aedat3(EventFile& file) {
    file.description = "AEDAT 3.1";
    for (bool ended = false; !ended;) {
        if (!starts_with(file, "#")) file.in.fail("no #!END-HEADER");
        const std::string line = file.in.line();
        ended = line.rfind("#!END-HEADER", 0) == 0;
        // "#Source 1: DVS128"
        const auto source = words(line, " \r\n");
        if (source.size() < 3 || source[0] != "#Source") continue;
        struct Camera {
            const char* name;
            size_t width, height;
        };
        for (const Camera& c : {Camera{"DVS128", 128, 128}, Camera{"DAVIS240", 240, 180},
                                Camera{"DAVIS346", 346, 260}, Camera{"DAVIS640", 640, 480},
                                Camera{"DAVIS128", 128, 128}})
            if (source[2].rfind(c.name, 0) == 0) set_sensor(file, c.width, c.height);
    }
    // Of the packet at hand: bytes to come, events to come, and what its header says.
    struct Packet {
        uint64_t bytes = 0, events = 0;
        int64_t overflow = 0;
        bool polarity = false, some_invalid = false;
    };
    const auto one = [](EventFile& file, std::vector<Event>& out, Packet& packet) {
        constexpr size_t header_bytes = 28, event_bytes = 8;
        constexpr uint16_t polarity_type = 1;
        if (packet.bytes == 0) {
            const uint8_t* b = file.in.take(header_bytes);
            const uint32_t size = u32le(b + 4), capacity = u32le(b + 16), number = u32le(b + 20);
            if (number > capacity)
                file.in.fail("a packet of " + std::to_string(number) + " events with room for " +
                             std::to_string(capacity));
            packet.polarity = (b[0] | b[1] << 8) == polarity_type;
            if (packet.polarity && size != event_bytes)
                file.in.fail("polarity events of " + std::to_string(size) + " bytes");
            packet.bytes = uint64_t(size) * capacity;
            packet.events = number;
            packet.overflow = int64_t(u32le(b + 12)) << 31;
            if (packet.overflow > latest_time) file.in.fail("a time beyond all bounds");
            packet.some_invalid = u32le(b + 24) < number;
            return;
        }
        if (!packet.polarity || packet.events == 0) {  // frames, inertial data, unused room
            const size_t n = size_t(std::min<uint64_t>(packet.bytes, 1 << 16));
            file.in.take(n);
            packet.bytes -= n;
            return;
        }
        const uint8_t* b = file.in.take(event_bytes);
        packet.bytes -= event_bytes;
        --packet.events;
        const uint32_t a = u32le(b);
        if (packet.some_invalid && (a & 1) == 0) return;
        file.add(out,
                 {int64_t(u32le(b + 4)) + packet.overflow, uint16_t(a >> 17),
                  uint16_t(a >> 2 & 0x7fff), uint8_t(a >> 1 & 1)},
                 event_bytes);
    };
    file.decode = [one, packet = Packet()](EventFile& f, std::vector<Event>& out) mutable {
        const size_t enough = out.size() + events_at_a_time;
        while (out.size() < enough && !f.in.at_end()) one(f, out, packet);
        if (f.in.at_end() && packet.bytes > 0) f.in.take(1);  // truncated
        return !f.in.at_end();
    };
}

namespace {

void read_raw_header(EventFile& file) {
    while (starts_with(file, "% ")) {
        const auto line = words(file.in.line().substr(1), " \r\n;");
        if (line.empty()) continue;
        if (line[0] == "end") break;
        if (line[0] == "endianness" && line.size() > 1 && line[1] != "little")
            file.in.fail("words that are not little-endian");
        if (line[0] == "geometry" && line.size() > 1) {
            const auto sides = words(line[1], "x");
            if (sides.size() != 2) file.in.fail("the header's geometry '" + line[1] + "'");
            set_side(file, file.width, sides[0]);
            set_side(file, file.height, sides[1]);
        }
        // "% format EVT3;height=720;width=1280"
        for (size_t i = 2; line[0] == "format" && i < line.size(); ++i) {
            const auto pair = words(line[i], "=");
            if (pair.size() != 2) continue;
            if (pair[0] == "width") set_side(file, file.width, pair[1]);
            if (pair[0] == "height") set_side(file, file.height, pair[1]);
        }
    }
}

}  // namespace

void open_evt2(EventFile& file) {
    read_raw_header(file);
    file.description = "Prophesee EVT2";
    file.decode = repeat(Evt2());
}

void open_evt3(EventFile& file) {
    read_raw_header(file);
    file.description = "Prophesee EVT3";
    file.decode = repeat(Evt3());
}

void open_dat(EventFile& file) {
    constexpr size_t bytes = 8;
    bool header = false;
    while (starts_with(file, "%")) {
        header = true;
        const auto line = words(file.in.line().substr(1), " \r\n");
        if (line.size() < 2) continue;
        if (line[0] == "Width") set_side(file, file.width, line[1]);
        if (line[0] == "Height") set_side(file, file.height, line[1]);
    }
    if (header) {  // without one the two bytes are missing too
        const uint8_t* b = file.in.take(2);
        if ((b[0] != 0 && b[0] != 12) || b[1] != bytes)
            file.in.fail("events of type " + std::to_string(b[0]) + " and " + std::to_string(b[1]) +
                         " bytes, not 12 (or 0) and 8");
    }
    file.description = "Prophesee .dat";
    file.decode = repeat([clock = Clock(32)](EventFile& file, std::vector<Event>& out) mutable {
        const uint8_t* b = file.in.take(bytes);
        const uint32_t a = u32le(b + 4);
        file.add(out,
                 {clock(u32le(b)), uint16_t(a & 0x3fff), uint16_t(a >> 14 & 0x3fff),
                  uint8_t(a >> 28 & 1)},
                 bytes);
    });
}

}  // namespace nc
