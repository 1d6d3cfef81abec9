// ONNX in a build without HDF5 or protobuf: refused, and why is said.
#include "io/onnx.h"

namespace nc {
namespace {

[[noreturn]] void refuse(const std::string& path, const char* what) {
    throw Error("[model] " + path + " is " + what +
                    ", which this build can neither read nor write: it was made " NC_MADE,
                ErrorKind::model,
                "it needs libhdf5-dev, libprotobuf-dev, protobuf-compiler, and a build with "
                "-Dinterop=enabled");
}

}  // namespace

OnnxNetwork load_onnx(const std::string& path) {
    refuse(path, "an ONNX model");
}
OnnxNetwork parse_onnx(const std::vector<uint8_t>&, const std::string& path) {
    refuse(path, "an ONNX model");
}
std::vector<uint8_t> onnx_step(const Graph&) {
    refuse("a time step", "to be an ONNX model");
}
void save_onnx_step(const std::string& path, const Graph&) {
    refuse(path, "to be an ONNX model");
}

}  // namespace nc
