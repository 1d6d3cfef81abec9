// ONNX files by hand, message by message, for the tests: what a broken or hostile one may hold,
// too.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace nc::test {

// Protobuf's wire format.
class Message {
 public:
    Message& number(int field, uint64_t value) {
        varint(uint64_t(field) << 3);
        varint(value);
        return *this;
    }
    Message& real(int field, float value) {
        varint(uint64_t(field) << 3 | 5);
        bytes_.append(reinterpret_cast<const char*>(&value), 4);
        return *this;
    }
    Message& text(int field, const std::string& value) {
        varint(uint64_t(field) << 3 | 2);
        varint(value.size());
        bytes_ += value;
        return *this;
    }
    Message& message(int field, const Message& value) { return text(field, value.bytes_); }
    const std::string& bytes() const { return bytes_; }

 private:
    void varint(uint64_t value) {
        for (; value > 127; value >>= 7) bytes_ += char(value | 128);
        bytes_ += char(value);
    }
    std::string bytes_;
};

template <class T>
std::string raw(const std::vector<T>& values) {
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

using Sizes = std::vector<int64_t>;

inline Message tensor(const std::string& name, const Sizes& dims, int type,
                      const std::string& data) {
    Message t;
    for (const int64_t size : dims) t.number(1, uint64_t(size));
    return t.number(2, uint64_t(type)).text(8, name).text(9, data);
}

inline Message floats(const std::string& name, const Sizes& dims,
                      const std::vector<float>& values) {
    return tensor(name, dims, 1, raw(values));
}

inline Message integers(const std::string& name, const Sizes& values) {
    return tensor(name, {int64_t(values.size())}, 7, raw(values));
}

// Attributes.
inline Message ints(const std::string& name, const Sizes& values) {
    Message a;
    a.text(1, name);
    for (const int64_t v : values) a.number(8, uint64_t(v));
    return a.number(20, 7);
}
inline Message one_int(const std::string& name, int64_t value) {
    return Message().text(1, name).number(3, uint64_t(value)).number(20, 2);
}
inline Message one_float(const std::string& name, float value) {
    return Message().text(1, name).real(2, value).number(20, 1);
}
inline Message words(const std::string& name, const std::string& value) {
    return Message().text(1, name).text(4, value).number(20, 3);
}
inline Message value_of(const Message& constant) {
    return Message().text(1, "value").message(5, constant).number(20, 4);
}

// A model: one input x and one output y unless said otherwise.
class OnnxFile {
 public:
    explicit OnnxFile(const Sizes& input, const std::string& output = "y") : output_(output) {
        add_input("x", input);
    }
    // A size of 0 or less is left open.
    OnnxFile& add_input(const std::string& name, const Sizes& sizes, int type = 1) {
        Message shape;
        for (const int64_t size : sizes)
            shape.message(1,
                          size > 0 ? Message().number(1, uint64_t(size)) : Message().text(2, "n"));
        const Message t = Message().number(1, uint64_t(type)).message(2, shape);
        inputs_.push_back(Message().text(1, name).message(2, Message().message(1, t)));
        return *this;
    }
    OnnxFile& constant(const Message& t) {
        graph_.message(5, t);
        return *this;
    }
    // The node is named like its output, in capitals' place: "/y".
    OnnxFile& node(const std::string& op, const std::vector<std::string>& from,
                   const std::string& to, const std::vector<Message>& attributes = {},
                   const std::string& domain = "") {
        Message n;
        for (const auto& name : from) n.text(1, name);
        n.text(2, to).text(3, "/" + to).text(4, op);
        for (const auto& a : attributes) n.message(5, a);
        if (!domain.empty()) n.text(7, domain);
        graph_.message(1, n);
        return *this;
    }
    std::vector<uint8_t> bytes() const {
        Message graph = graph_;
        for (const Message& input : inputs_) graph.message(11, input);
        graph.message(12, Message().text(1, output_));
        const std::string all =
            Message().number(1, 8).message(8, Message().number(2, 17)).message(7, graph).bytes();
        return std::vector<uint8_t>(all.begin(), all.end());
    }

 private:
    Message graph_;
    std::vector<Message> inputs_;
    std::string output_;
};

}  // namespace nc::test
