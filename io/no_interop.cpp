// The whole of a build without HDF5 or protobuf: foreign networks are refused, and why is said.
#include "io/onnx.h"

namespace nc {
namespace {

[[noreturn]] void refuse(const std::string& path, const char* what) {
    throw Error(
        "[model] " + path + " is " + what + ", which this build cannot read: it was made " NC_MADE,
        ErrorKind::model,
        "it needs libhdf5-dev, libprotobuf-dev, protobuf-compiler, and a build with "
        "-Dinterop=enabled");
}

}  // namespace

Graph load_onnx(const std::string& path) {
    refuse(path, "an ONNX model");
}

}  // namespace nc
