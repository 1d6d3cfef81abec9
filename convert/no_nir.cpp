// NIR in a build without HDF5 or protobuf: refused, and why is said.
#include "convert/nir.h"

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

Model from_nir(const std::string& path, double, const std::string&) {
    refuse(path, "a NIR graph");
}

void to_nir(const std::string& path, const Model&, const NirOptions&) {
    refuse(path, "to be a NIR graph");
}

NirOptions parse_nir_options(const std::string&, const std::string&, const std::string&) {
    return {};
}

}  // namespace nc
