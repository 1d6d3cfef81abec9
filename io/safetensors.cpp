// safetensors: 8 bytes of header length, a JSON header, tensors without holes.
#include <algorithm>
#include <bit>
#include <cstring>

#include "io/bytes.h"
#include "io/model.h"

namespace nc {
namespace {

struct Code {
    const char* name;
    DType dtype;
    size_t bytes;  // in the file
};
// The first of a type is the one written.
constexpr Code codes[] = {{"F32", DType::f32, 4}, {"F64", DType::f64, 8}, {"I8", DType::i8, 1},
                          {"U8", DType::u8, 1},   {"I16", DType::i16, 2}, {"I32", DType::i32, 4},
                          {"I64", DType::i64, 8}, {"U64", DType::u64, 8}, {"BOOL", DType::u8, 1},
                          {"F16", DType::f32, 2}, {"BF16", DType::f32, 2}};

constexpr size_t length_bytes = 8;
constexpr size_t longest_header = 100'000'000;  // as in the reference implementation

float half_to_float(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 31, mantissa = half & 1023;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | mantissa << 13);
    if (exponent > 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
    const float tiny = float(mantissa) * 0x1p-24f;  // denormal
    return sign ? -tiny : tiny;
}

Tensor decode(const Code& code, const Shape& shape, const uint8_t* bytes) {
    Tensor out(shape, code.dtype);
    const size_t n = shape.elements();
    if (n == 0) return out;
    if (code.bytes == size_of(code.dtype)) {
        std::memcpy(out.raw(), bytes, n * code.bytes);
        return out;
    }
    const bool brain = code.name[0] == 'B';
    float* to = out.data<float>();
    for (size_t i = 0; i < n; ++i) {
        const uint16_t half = uint16_t(bytes[2 * i] | bytes[2 * i + 1] << 8);
        to[i] = brain ? std::bit_cast<float>(uint32_t(half) << 16) : half_to_float(half);
    }
    return out;
}

struct Entry {
    std::string name;
    const Code* code;
    Shape shape;
    size_t begin, end;
};

Entry parse_entry(const std::string& name, const Json& json, const std::string& path) {
    const auto fail = [&](const std::string& what) {
        throw Error("[" + path + "] tensor '" + name + "': " + what, ErrorKind::model);
    };
    const auto numbers = [&](const char* key) {
        std::vector<size_t> out;
        if (!json.contains(key) || !json[key].is_array()) fail(std::string(key) + " is not a list");
        for (const auto& value : json[key]) {
            if (!value.is_number_unsigned()) fail(std::string(key) + " holds " + value.dump());
            out.push_back(value.get<size_t>());
        }
        return out;
    };
    if (!json.is_object() || json.size() != 3) fail("not {dtype, shape, data_offsets}");
    Entry out{name, nullptr, {}, 0, 0};
    if (!json.contains("dtype") || !json["dtype"].is_string()) fail("dtype is not a string");
    const std::string dtype = json["dtype"];
    for (const auto& code : codes)
        if (dtype == code.name) out.code = &code;
    if (!out.code) fail("dtype " + dtype + " is not supported");
    const auto shape = numbers("shape"), offsets = numbers("data_offsets");
    if (offsets.size() != 2 || offsets[0] > offsets[1]) fail("malformed data_offsets");
    try {
        out.shape = Shape(shape);
    } catch (const Error& e) {
        fail(e.what());
    }
    out.begin = offsets[0];
    out.end = offsets[1];
    const size_t bytes = out.end - out.begin;
    if (bytes % out.code->bytes != 0 || bytes / out.code->bytes != out.shape.elements())
        fail(std::to_string(bytes) + " bytes for " + dtype + " " + out.shape.str());
    return out;
}

}  // namespace

SafeTensors load_safetensors(const std::string& path) {
    try {
        return parse_safetensors(read_file(path), path);
    } catch (const Error& e) {
        throw Error(e.what(), ErrorKind::model, e.hint);  // a file that is not there, too
    }
}

SafeTensors parse_safetensors(const std::vector<uint8_t>& file, const std::string& path) {
    const auto fail = [&](const std::string& what) {
        throw Error("[" + path + "] " + what, ErrorKind::model);
    };
    Reader reader(file.data(), file.size(), path, ErrorKind::model);
    const uint64_t length = reader.u64le();
    if (length > longest_header)
        fail("not a safetensors file: a header of " + std::to_string(length) + " bytes");
    const char* text = reinterpret_cast<const char*>(reader.take(length));
    if (length == 0 || text[0] != '{')
        fail("not a safetensors file: the header does not start with {");
    Json header;
    try {
        header = parse_json(std::string(text, length), path);
    } catch (const Error& e) {
        throw Error(e.what(), ErrorKind::model);
    }

    SafeTensors out;
    std::vector<Entry> entries;
    for (const auto& [name, value] : header.items()) {
        if (name != "__metadata__") {
            entries.push_back(parse_entry(name, value, path));
            continue;
        }
        if (!value.is_object()) fail("__metadata__ is not an object");
        for (const auto& [key, text_value] : value.items()) {
            if (!text_value.is_string()) fail("__metadata__ '" + key + "' is not a string");
            out.metadata[key] = text_value.get<std::string>();
        }
    }
    // The tensors tile the rest of the file: no overlap, no hole, nothing after them.
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
        return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
    });
    size_t at = 0;
    const size_t size = reader.left();
    for (const auto& entry : entries) {
        if (entry.end > size)
            fail("truncated: tensor '" + entry.name + "' ends at byte " +
                 std::to_string(entry.end) + " of " + std::to_string(size));
        if (entry.begin != at)
            fail("tensor '" + entry.name + "' starts at byte " + std::to_string(entry.begin) +
                 ", not at " + std::to_string(at) + ": tensors overlap or leave a hole");
        at = entry.end;
    }
    if (at != size) fail(std::to_string(size - at) + " bytes after the last tensor");
    const uint8_t* bytes = reader.take(size);
    for (const auto& entry : entries)
        out.tensors[entry.name] = decode(*entry.code, entry.shape, bytes + entry.begin);
    return out;
}

void save_safetensors(const std::string& path, const SafeTensors& content) {
    // Larger types first, so that every tensor is aligned to its own size; then by name.
    std::vector<const std::pair<const std::string, Tensor>*> order;
    for (const auto& item : content.tensors) {
        if (!item.second.defined())
            throw Error("[save_safetensors] tensor '" + item.first + "' is undefined");
        order.push_back(&item);
    }
    std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
        return size_of(a->second.dtype()) > size_of(b->second.dtype());
    });
    Json header = Json::object();
    if (!content.metadata.empty()) header["__metadata__"] = content.metadata;
    size_t offset = 0;
    for (const auto* item : order) {
        const Tensor& tensor = item->second;
        const Code* code = std::find_if(std::begin(codes), std::end(codes),
                                        [&](const Code& c) { return c.dtype == tensor.dtype(); });
        const size_t end = offset + tensor.bytes();
        header[item->first] = {{"dtype", code->name},
                               {"shape", tensor.shape().to_vector()},
                               {"data_offsets", {offset, end}}};
        offset = end;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    if (text.size() > longest_header)
        throw Error("[save_safetensors] a header of " + std::to_string(text.size()) + " bytes",
                    ErrorKind::model);
    std::string out;
    out.reserve(length_bytes + text.size() + offset);
    for (size_t i = 0; i < length_bytes; ++i) out += char(text.size() >> (8 * i) & 0xff);
    out += text;
    for (const auto* item : order)
        if (item->second.bytes() > 0)
            out.append(static_cast<const char*>(item->second.raw()), item->second.bytes());
    write_file(path, out);
}

}  // namespace nc
