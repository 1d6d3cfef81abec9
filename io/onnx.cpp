// ONNX models in: the file, then its graph.
#include "io/onnx.h"

#include <onnx.pb.h>

#include "io/bytes.h"

namespace nc {

Graph load_onnx(const std::string& path) {
    const std::vector<uint8_t> file = read_file(path, size_t(1) << 31);
    onnx::ModelProto model;
    if (!model.ParseFromArray(file.data(), int(file.size())) || !model.has_graph())
        throw Error("[onnx] " + path + " is not an ONNX model", ErrorKind::model);
    throw Error("[onnx] " + path + " has " + std::to_string(model.graph().node_size()) +
                    " nodes, none of which are supported",
                ErrorKind::model);
}

}  // namespace nc
