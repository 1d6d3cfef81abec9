// Tensors of an ONNX file as constants, wherever their bytes lie.
#include "io/onnx_constant.h"

#include <bit>
#include <charconv>
#include <cstring>
#include <filesystem>

namespace nc::onnx {
namespace {

namespace fs = std::filesystem;

size_t bytes_of(int type) {
    switch (type) {
        case uint8:
        case int8:
        case boolean:
            return 1;
        case uint16:
        case int16:
        case float16:
        case bfloat16:
            return 2;
        case float32:
        case int32:
        case uint32:
            return 4;
        case float64:
        case int64:
        case uint64:
            return 8;
        default:
            throw Unsupported{"values of ONNX's type " + std::to_string(type) +
                              " are not supported"};
    }
}

float half_to_float(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 31, mantissa = half & 1023;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | mantissa << 13);
    if (exponent > 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
    const float tiny = float(mantissa) * 0x1p-24f;
    return sign ? -tiny : tiny;
}

template <class T>
T load(const uint8_t* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

// n values of little-endian bytes.
void decode_bytes(Constant& out, const uint8_t* from, size_t n) {
    const size_t width = bytes_of(out.type);
    if (out.type == float32) {
        out.floats.resize(n);
        if (n > 0) std::memcpy(out.floats.data(), from, 4 * n);
        return;
    }
    for (size_t i = 0; i < n; ++i, from += width) switch (out.type) {
            case float64:
                out.floats.push_back(float(load<double>(from)));
                break;
            case float16:
                out.floats.push_back(half_to_float(load<uint16_t>(from)));
                break;
            case bfloat16:
                out.floats.push_back(std::bit_cast<float>(uint32_t(load<uint16_t>(from)) << 16));
                break;
            case uint8:
            case boolean:
                out.ints.push_back(*from);
                break;
            case int8:
                out.ints.push_back(load<int8_t>(from));
                break;
            case uint16:
                out.ints.push_back(load<uint16_t>(from));
                break;
            case int16:
                out.ints.push_back(load<int16_t>(from));
                break;
            case int32:
                out.ints.push_back(load<int32_t>(from));
                break;
            case uint32:
                out.ints.push_back(load<uint32_t>(from));
                break;
            default:
                out.ints.push_back(load<int64_t>(from));
        }
}

// The same values in the message's typed lists.
bool decode_lists(Constant& out, const TensorProto& t, size_t n) {
    if (out.type == float32 && size_t(t.float_data_size()) == n) {
        out.floats.assign(t.float_data().begin(), t.float_data().end());
    } else if (out.type == float64 && size_t(t.double_data_size()) == n) {
        for (const double x : t.double_data()) out.floats.push_back(float(x));
    } else if (out.type == int64 && size_t(t.int64_data_size()) == n) {
        out.ints.assign(t.int64_data().begin(), t.int64_data().end());
    } else if (size_t(t.int32_data_size()) == n && bytes_of(out.type) <= 4 && out.type != float32 &&
               out.type != uint32) {
        for (const int32_t x : t.int32_data()) {
            if (out.type == float16)
                out.floats.push_back(half_to_float(uint16_t(x)));
            else if (out.type == bfloat16)
                out.floats.push_back(std::bit_cast<float>(uint32_t(x) << 16));
            else
                out.ints.push_back(x);
        }
    } else {
        return false;
    }
    return true;
}

std::string entry(const TensorProto& t, const char* key) {
    for (const auto& pair : t.external_data())
        if (pair.key() == key) return pair.value();
    return "";
}

}  // namespace

bool is_float(int type) {
    return type == float32 || type == float64 || type == float16 || type == bfloat16;
}

void Budget::spend(size_t elements) {
    if (elements > left_)
        throw Unsupported{"what the model computes from its constants takes many times its size"};
    left_ -= elements;
}

std::vector<uint8_t> Tensors::external(const TensorProto& t, size_t bytes) {
    const std::string location = entry(t, "location");
    const auto fail = [&](const std::string& what, const std::string& hint = "") {
        throw Error("[onnx] " + model_ + ": tensor '" + t.name() + "': " + what, ErrorKind::model,
                    hint);
    };
    const fs::path name(location);
    bool inside = !location.empty() && name.is_relative() &&
                  location.find('\\') == std::string::npos &&
                  location.find('\0') == std::string::npos;
    for (const fs::path& part : name) inside = inside && part != "..";
    if (!inside) fail("its data lies outside the model's folder: '" + location + "'");
    const auto number = [&](const char* key, uint64_t fallback) {
        const std::string text = entry(t, key);
        uint64_t value = fallback;
        const auto end = text.data() + text.size();
        if (!text.empty() && std::from_chars(text.data(), end, value).ptr != end)
            fail(std::string(key) + " '" + text + "' of its external data is no number");
        return value;
    };
    const uint64_t offset = number("offset", 0), length = number("length", bytes);
    if (length != bytes)
        fail(std::to_string(length) + " bytes of external data for " + std::to_string(bytes));
    const std::string key = name.lexically_normal().string();
    auto file = files_.find(key);
    if (file == files_.end()) {
        const fs::path path = fs::path(model_).parent_path() / name;
        std::error_code ignored;
        if (!fs::exists(path, ignored))
            throw Error("[onnx] " + model_ + " keeps its weights in '" + location +
                            "', which is not in its folder",
                        ErrorKind::model,
                        "copy that file beside the model under this name, or export with "
                        "external_data=False");
        file = files_.emplace(key, Source(path.string())).first;
        budget_.grow(file->second.size());
    }
    if (offset > file->second.size() || bytes > file->second.size() - offset)
        fail(std::to_string(bytes) + " bytes at byte " + std::to_string(offset) + " of '" +
                 location + "', which has " + std::to_string(file->second.size()),
             "the file is truncated, or another model's");
    return file->second.bytes(offset, bytes);
}

ConstantPtr Tensors::decode(const TensorProto& t) {
    auto out = std::make_shared<Constant>();
    out->dims.assign(t.dims().begin(), t.dims().end());
    out->type = t.data_type();
    const size_t n = elements_of(out->dims), bytes = n * bytes_of(out->type);
    const auto what = [&] { return "tensor '" + t.name() + "' " + text_of(out->dims); };
    if (t.data_location() == 1) {
        const std::vector<uint8_t> data = external(t, bytes);
        budget_.spend(out->integer() ? 2 * n : n);
        decode_bytes(*out, data.data(), n);
    } else if (t.has_raw_data()) {
        if (t.raw_data().size() != bytes)
            throw Unsupported{what() + " has " + std::to_string(t.raw_data().size()) +
                              " bytes, not " + std::to_string(bytes)};
        budget_.spend(out->integer() ? 2 * n : n);
        decode_bytes(*out, reinterpret_cast<const uint8_t*>(t.raw_data().data()), n);
    } else if (n > 0 && !decode_lists(*out, t, n)) {
        throw Unsupported{what() + " has not as many values"};
    }
    return out;
}

const AttributeProto* find_attribute(const NodeProto& node, const char* name) {
    for (const AttributeProto& a : node.attribute())
        if (a.name() == name) return &a;
    return nullptr;
}

namespace {

// Exporters of before 2017 leave the type out.
const AttributeProto* typed(const NodeProto& node, const char* name, int type) {
    const AttributeProto* a = find_attribute(node, name);
    if (a && a->has_type() && a->type() != type)
        throw Unsupported{"attribute '" + std::string(name) + "' has the wrong type"};
    return a;
}

}  // namespace

int64_t int_attribute(const NodeProto& node, const char* name, int64_t fallback) {
    const AttributeProto* a = typed(node, name, 2);
    return a ? a->i() : fallback;
}

double float_attribute(const NodeProto& node, const char* name, double fallback) {
    const AttributeProto* a = typed(node, name, 1);
    return a ? double(a->f()) : fallback;
}

std::string text_attribute(const NodeProto& node, const char* name, const std::string& fallback) {
    const AttributeProto* a = typed(node, name, 3);
    return a ? a->s() : fallback;
}

std::vector<int64_t> ints_attribute(const NodeProto& node, const char* name) {
    const AttributeProto* a = typed(node, name, 7);
    return a ? std::vector<int64_t>(a->ints().begin(), a->ints().end()) : std::vector<int64_t>();
}

}  // namespace nc::onnx
