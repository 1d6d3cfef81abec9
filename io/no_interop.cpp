// The whole of a build without HDF5 or protobuf: foreign networks are refused, and why is said.
#include "convert/nir.h"
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

Model from_nir(const std::string& path, double) {
    refuse(path, "a NIR graph");
}

void to_nir(const std::string& path, const Model&, const NirOptions&) {
    refuse(path, "to be a NIR graph");
}

NirOptions parse_nir_options(const std::string&, const std::string&, const std::string&) {
    return {};
}

}  // namespace nc
