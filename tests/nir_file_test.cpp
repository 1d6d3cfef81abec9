// The HDF5 container of NIR: what is written, what is read of others', and hostile files.
#include <hdf5.h>

#include <functional>

#include "io/bytes.h"
#include "tests/nir_networks.h"

using namespace nc;
using namespace nc::test;

namespace {

NirNode small_graph() {
    NirNode g = chain({2}, {node("Scale", {{"scale", numbers({1, 2})}})}, {2});
    g.metadata["T"] = {{}, std::vector<int64_t>{8}};
    g.metadata["dt"] = {{}, std::vector<double>{1e-3}};
    g.nodes["n0"].metadata["note"] = {{}, std::vector<std::string>{"h\xc3\xa9llo"}};
    return g;
}

// small_graph() by another writer; change may spoil it. Identifiers are closed by the file.
std::vector<uint8_t> foreign(const std::function<void(hid_t file, hid_t scale)>& change,
                             bool with_scale = true) {
    const TempFolder folder;
    const std::string path = folder / "x.h5";
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
    const hid_t scalar = H5Screate(H5S_SCALAR);
    const auto group = [&](const char* name) {
        return H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    };
    const auto text = [&](const std::string& name, const std::string& value) {
        const hid_t type = H5Tcopy(H5T_C_S1);  // fixed, unlike ours
        H5Tset_size(type, value.size());
        H5Tset_strpad(type, H5T_STR_NULLPAD);
        const hid_t data =
            H5Dcreate2(file, name.c_str(), type, scalar, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, value.data());
    };
    group("/node");
    group("/node/nodes");
    text("/node/type", "NIRGraph");
    const std::string ends = std::string("input\0\0", 7) + std::string("n0\0\0\0\0\0", 7) +
                             std::string("n0\0\0\0\0\0", 7) + std::string("output\0", 7);
    const hsize_t two[] = {2, 2}, one[] = {2};
    const hid_t name = H5Tcopy(H5T_C_S1);
    H5Tset_size(name, 7);
    const hid_t edges = H5Dcreate2(file, "/node/edges", name, H5Screate_simple(2, two, nullptr),
                                   H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(edges, name, H5S_ALL, H5S_ALL, H5P_DEFAULT, ends.data());
    for (const std::string at : {"input", "output"}) {
        group(("/node/nodes/" + at).c_str());
        text("/node/nodes/" + at + "/type", at == "input" ? "Input" : "Output");
        const int64_t size = 2;
        const hid_t shape =
            H5Dcreate2(file, ("/node/nodes/" + at + "/shape").c_str(), H5T_STD_I32BE, scalar,
                       H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        H5Dwrite(shape, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, &size);
    }
    group("/node/nodes/n0");
    text("/node/nodes/n0/type", "Scale");
    hid_t scale = -1;
    if (with_scale) {
        const hid_t packed = H5Pcreate(H5P_DATASET_CREATE);
        H5Pset_chunk(packed, 1, one);
        H5Pset_shuffle(packed);
        H5Pset_deflate(packed, 9);
        scale = H5Dcreate2(file, "/node/nodes/n0/scale", H5T_IEEE_F64BE,
                           H5Screate_simple(1, one, nullptr), H5P_DEFAULT, packed, H5P_DEFAULT);
        const double values[] = {1, 2};
        H5Dwrite(scale, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    }
    change(file, scale);
    H5Fclose(file);
    H5Pclose(access);
    return read_file(path);
}

std::string reading(const std::vector<uint8_t>& file) {
    return error_of([&] { parse_nir_model(file, "bad.nir"); });
}

}  // namespace

TEST_CASE("a NIR file holds what was put in, and the same graph gives the same bytes") {
    const NirNode g = small_graph();
    const std::vector<uint8_t> file = nir_bytes(g);
    CHECK(same_tree(parse_nir(file, "net.nir"), g));
    CHECK(nir_bytes(g) == file);
}

TEST_CASE("other writers' files are read: packed, big-endian, fixed strings, no metadata") {
    const std::vector<uint8_t> file = foreign([](hid_t, hid_t) {});
    const Model m = parse_nir_model(file, "other.nir");
    CHECK(run_steps(m.graph, {{1, 1}, {2, 3}}) == std::vector<float>{1, 2, 2, 6});
    CHECK(m.info.T == 0);
}

TEST_CASE("a NIR file is read from itself alone") {
    const auto refused = [](const std::function<void(hid_t, hid_t)>& change, bool scale = false) {
        return reading(foreign(change, scale));
    };
    CHECK(contains(refused([](hid_t file, hid_t) {
                       H5Lcreate_external("other.h5", "/x", file, "/node/nodes/n0/scale",
                                          H5P_DEFAULT, H5P_DEFAULT);
                   }),
                   "/node/nodes/n0 holds a link that is not to an object of this file"));
    CHECK(contains(refused([](hid_t file, hid_t) {
                       H5Lcreate_soft("/node/nodes/n0", file, "/node/nodes/n0/scale", H5P_DEFAULT,
                                      H5P_DEFAULT);
                   }),
                   "holds a link that is not"));
    CHECK(contains(refused([](hid_t file, hid_t) {
                       const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
                       H5Pset_external(list, "/etc/hostname", 0, 16);
                       const hsize_t two[] = {2};
                       H5Dcreate2(file, "/node/nodes/n0/scale", H5T_IEEE_F64LE,
                                  H5Screate_simple(1, two, nullptr), H5P_DEFAULT, list,
                                  H5P_DEFAULT);
                   }),
                   "scale is stored in another file"));
    CHECK(contains(refused([](hid_t file, hid_t) {
                       const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
                       const hsize_t two[] = {2};
                       H5Pset_chunk(list, 1, two);
                       H5Pset_fletcher32(list);
                       const hid_t data = H5Dcreate2(file, "/node/nodes/n0/scale", H5T_IEEE_F64LE,
                                                     H5Screate_simple(1, two, nullptr), H5P_DEFAULT,
                                                     list, H5P_DEFAULT);
                       const double values[] = {1, 2};
                       H5Dwrite(data, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
                   }),
                   "is packed with filter 3, only gzip and shuffle are read"));
    // Nothing stored, or less than the shape says: never memory for what a file merely claims.
    CHECK(contains(refused([](hid_t file, hid_t) {
                       const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
                       const hsize_t many[] = {hsize_t(1) << 40}, piece[] = {1 << 20};
                       H5Pset_chunk(list, 1, piece);
                       H5Dcreate2(file, "/node/nodes/n0/scale", H5T_IEEE_F64LE,
                                  H5Screate_simple(1, many, nullptr), H5P_DEFAULT, list,
                                  H5P_DEFAULT);
                   }),
                   "8796093022208 bytes, 0 are stored"));
    CHECK(contains(refused([](hid_t file, hid_t) {
                       H5Gcreate2(file, "/node/nodes/n0/more", H5P_DEFAULT, H5P_DEFAULT,
                                  H5P_DEFAULT);
                   }),
                   "/node/nodes/n0/more is not a field of a node"));
    CHECK(contains(refused([](hid_t file, hid_t) { H5Ldelete(file, "/node", H5P_DEFAULT); }),
                   "/node is missing"));
}

TEST_CASE("graphs that hold themselves end") {
    // A hard link makes a group its own descendant; each level doubles.
    const std::vector<uint8_t> file = foreign([](hid_t f, hid_t) {
        for (const char* name : {"/node/nodes/a", "/node/nodes/b"})
            H5Lcreate_hard(f, "/node", f, name, H5P_DEFAULT, H5P_DEFAULT);
    });
    const std::string what = reading(file);
    CHECK((contains(what, "nested more than 16 deep") || contains(what, "groups and datasets")));
}

TEST_CASE("what is not HDF5, or only its beginning, gives one clear error") {
    CHECK(contains(reading({}), "[bad.nir] not an HDF5 file"));
    CHECK(contains(reading(std::vector<uint8_t>(100, 7)), "not an HDF5 file"));
    const std::vector<uint8_t> file = nir_bytes(small_graph());
    for (size_t size = 0; size < file.size(); ++size) {
        const std::string what = reading({file.begin(), file.begin() + std::ptrdiff_t(size)});
        REQUIRE(contains(what, size < 8 ? "not an HDF5 file" : "[bad.nir] truncated: "));
    }
    CHECK(reading(file).empty());
}
