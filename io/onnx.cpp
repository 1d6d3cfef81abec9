// ONNX models in: the file's messages, counted before they are parsed, then its graph.
#include "io/onnx.h"

#include "io/onnx_import.h"

namespace nc {
namespace {

// Protobuf's wire format, walked without making anything of it. An empty message of two bytes
// becomes an object of a hundred or two: a file of nothing else must be refused before that.
class Messages {
 public:
    Messages(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

    // What a message's fields are to us; the schema's nesting and no other.
    enum Kind { model, graph, node, attribute, tensor, entry, info, type, shape, leaf };

    // Counts strings and messages within; false when the bytes are no such message.
    bool count(Kind kind, size_t& total) {
        while (at_ < end_) {
            uint64_t key = 0, length = 0;
            if (!varint(key)) return false;
            switch (key & 7) {
                case 0:
                    if (!varint(length)) return false;
                    break;
                case 1:
                    if (!skip(8)) return false;
                    break;
                case 5:
                    if (!skip(4)) return false;
                    break;
                case 2: {
                    if (!varint(length) || length > size_t(end_ - at_)) return false;
                    ++total;
                    const Kind inner = within(kind, key >> 3);
                    if (inner != leaf && !Messages(at_, length).count(inner, total)) return false;
                    at_ += length;
                    break;
                }
                default:
                    return false;  // groups are of before ONNX
            }
        }
        return true;
    }

 private:
    static Kind within(Kind kind, uint64_t field) {
        switch (kind) {
            case model:
                return field == 7 ? graph : field == 8 ? entry : leaf;
            case graph:
                return field == 1                   ? node
                       : field == 5                 ? tensor
                       : field == 11 || field == 12 ? info
                                                    : leaf;
            case node:
                return field == 5 ? attribute : leaf;
            case attribute:
                return field == 5 ? tensor : leaf;
            case tensor:
                return field == 13 ? entry : leaf;
            case info:
                return field == 2 ? type : leaf;
            case type:  // of a tensor, and its shape and sizes below
                return field == 1 || field == 2 ? shape : leaf;
            case shape:
                return field == 1 || field == 2 ? entry : leaf;
            default:
                return leaf;
        }
    }
    bool varint(uint64_t& value) {
        value = 0;
        for (int shift = 0; shift < 70 && at_ < end_; shift += 7) {
            const uint8_t byte = *at_++;
            if (shift < 64) value |= uint64_t(byte & 127) << shift;
            if (byte < 128) return true;
        }
        return false;
    }
    bool skip(size_t bytes) {
        if (bytes > size_t(end_ - at_)) return false;
        at_ += bytes;
        return true;
    }

    const uint8_t* at_;
    const uint8_t* end_;
};

}  // namespace

OnnxNetwork parse_onnx(const std::vector<uint8_t>& file, const std::string& path) {
    const auto fail = [&](const std::string& what) {
        throw Error("[onnx] " + path + what, ErrorKind::model);
    };
    constexpr size_t most_messages = 1 << 18, most_nodes = 20000, most_bytes = 0x7fffffff;
    size_t messages = 0;
    onnx::ModelProto model;
    if (file.size() > most_bytes)
        fail(" has more than 2 GiB; larger models keep their weights in another file");
    if (!Messages(file.data(), file.size()).count(Messages::model, messages))
        fail(" is not an ONNX model, or truncated");
    if (messages > most_messages || !model.ParseFromArray(file.data(), int(file.size())) ||
        !model.has_graph() || model.graph().node_size() == 0)
        fail(" is not an ONNX model");
    if (size_t(model.graph().node_size()) > most_nodes)
        fail(" has more than " + std::to_string(most_nodes) + " nodes");
    onnx::Budget budget(file.size());
    onnx::Tensors tensors(path, budget);
    onnx::Importer importer(model.graph(), path, tensors, budget);
    OnnxNetwork out;
    out.graph = importer.run();
    out.notes = importer.notes();
    return out;
}

OnnxNetwork load_onnx(const std::string& path) {
    try {
        return parse_onnx(read_file(path), path);
    } catch (const Error& e) {
        throw Error(e.what(), ErrorKind::model, e.hint);  // a file that is not there, too
    }
}

}  // namespace nc
