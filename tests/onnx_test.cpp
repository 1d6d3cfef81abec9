// ONNX models in: what each pattern becomes, and what is refused.
#include "io/onnx.h"
#include "io/bytes.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

TEST_CASE("onnx: what is no ONNX model is refused by name") {
    const TempFolder folder;
    const std::string path = folder / "text.onnx";
    write_file(path, "hello");
    CHECK(contains(error_of([&] { load_onnx(path); }), "text.onnx is not an ONNX model"));
}
