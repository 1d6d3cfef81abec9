// safetensors: 8 bytes of header length, a JSON header, tensors without holes.
#include <algorithm>

#include "io/bytes.h"
#include "io/elements.h"
#include "io/model.h"

namespace nc {
namespace {

constexpr size_t length_bytes = 8;
constexpr size_t longest_header = 100'000'000;  // as in the reference implementation

struct Entry {
    std::string name;
    const ElementType* type;
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
    out.type = element_type(dtype);
    if (!out.type) fail("dtype " + dtype + " is not supported");
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
    if (bytes % out.type->bytes != 0 || bytes / out.type->bytes != out.shape.elements())
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
        out.tensors[entry.name] = decode(*entry.type, entry.shape, bytes + entry.begin);
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
        const size_t end = offset + tensor.bytes();
        header[item->first] = {{"dtype", element_type(tensor.dtype()).name},
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
