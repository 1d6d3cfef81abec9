// PyTorch's files for tests, written opcode by opcode.
#pragma once

#include <string>

#include "tests/zip_writer.h"

namespace nc::test {

inline std::string little(uint64_t value, size_t bytes) {
    std::string out;
    for (size_t i = 0; i < bytes; ++i) out += char(value >> 8 * i & 255);
    return out;
}
inline std::string p_text(const std::string& text) {
    return "X" + little(text.size(), 4) + text;
}
inline std::string p_int(int64_t value) {
    if (value >= INT32_MIN && value <= INT32_MAX) return "J" + little(uint64_t(value), 4);
    return "\x8a\x08" + little(uint64_t(value), 8);
}
inline std::string p_global(const std::string& module, const std::string& name) {
    return "c" + module + "\n" + name + "\n";
}
inline std::string p_tuple(const std::vector<int64_t>& values) {
    std::string out = "(";
    for (const int64_t v : values) out += p_int(v);
    return out + "t";
}

struct TorchTensor {
    std::string type = "FloatStorage", key = "0";
    int64_t stored = 0, offset = 0;
    std::vector<int64_t> sizes = {}, strides = {};
};
inline std::string p_tensor(const TorchTensor& t) {
    return p_global("torch._utils", "_rebuild_tensor_v2") + "((" + p_text("storage") +
           p_global("torch", t.type) + p_text(t.key) + p_text("cpu") + p_int(t.stored) + "tQ" +
           p_int(t.offset) + p_tuple(t.sizes) + p_tuple(t.strides) + "\x89" +
           p_global("collections", "OrderedDict") + ")RtR";
}
// A dict of what is already pickled.
inline std::string p_dict(const std::vector<std::pair<std::string, std::string>>& items) {
    std::string out = "}(";
    for (const auto& [key, value] : items) out += p_text(key) + value;
    return out + "u";
}

struct TorchStorage {
    std::string key, bytes;
};
// As torch.save() lays them out; the pickle without its protocol and stop.
inline Bytes torch_file(const std::string& pickle, const std::vector<TorchStorage>& storages) {
    const auto bytes = [](const std::string& text) { return Bytes(text.begin(), text.end()); };
    std::vector<Zipped> entries = {{"a/data.pkl", bytes("\x80\x02" + pickle + "."), false},
                                   {"a/byteorder", bytes("little"), false}};
    for (const TorchStorage& s : storages)
        entries.push_back({"a/data/" + s.key, bytes(s.bytes), false});
    entries.push_back({"a/version", bytes("3\n"), false});
    return zip_of(entries);
}
inline std::string float_bytes(const std::vector<float>& values) {
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

}  // namespace nc::test
