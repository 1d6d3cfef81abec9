// Every reader of files for libFuzzer: NC_FUZZ names the one to feed. nc_fuzz --targets lists them,
// nc_fuzz --seeds DIR writes good files to start from. tests/fuzz/run.sh runs them all.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>

#include "convert/nir.h"
#include "datasets/cifar.h"
#include "datasets/idx.h"
#include "hw/loihi_export.h"
#include "io/model.h"
#include "io/npy.h"
#include "io/onnx.h"
#include "io/pt.h"
#include "io/zip.h"
#include "tests/integer_networks.h"
#include "tests/onnx_file.h"
#include "tests/recording_files.h"
#include "tests/torch_pickle.h"

using namespace nc;
using namespace nc::test;

namespace {

Source over(const Bytes& b, const std::string& name = "x") {
    return Source(b.data(), b.size(), name);
}

Json json_of(const Bytes& b) {
    return parse_json(std::string(b.begin(), b.end()), "x");
}

// The path of a file in memory that holds the bytes.
class File {
 public:
    explicit File(const Bytes& b) : fd_(memfd_create("fuzz", MFD_CLOEXEC)) {
        if (fd_ < 0 || write(fd_, b.data(), b.size()) != ssize_t(b.size())) std::abort();
    }
    ~File() { close(fd_); }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
    int fd_;
};

// What a writer that takes a path wrote.
template <class Write>
Bytes written(Write write) {
    const auto path =
        std::filesystem::temp_directory_path() / ("nc_fuzz_seed_" + std::to_string(getpid()));
    write(path.string());
    const Bytes out = read_file(path.string());
    std::filesystem::remove(path);
    return out;
}

Graph small_graph() {
    Graph g;
    const auto values = [](const Shape& shape) {
        std::vector<float> out(shape.elements());
        for (size_t i = 0; i < out.size(); ++i) out[i] = float(int(i * 7 % 11) - 5) / 8;
        return Tensor::from(out, shape);
    };
    const size_t input = add_node(g, "input", Input{{4, 4, 2}}, {});
    const size_t conv = add_node(g, "conv", Conv{values({3, 3, 2, 3}), {}, {}}, {input});
    Neuron neuron;
    neuron.theta = Tensor::full<float>({3}, 1);
    const size_t spikes = add_node(g, "neuron", neuron, {conv});
    const size_t flat = add_node(g, "flat", Flatten{}, {spikes});
    const size_t fc = add_node(g, "fc", Linear{values({12, 2}), {}}, {flat});
    add_node(g, "output", Output{}, {fc});
    return g;
}

const std::vector<Event> some_events = {
    {1000, 1, 2, 1}, {1010, 33, 3, 0}, {1010, 34 - 2, 3, 0}, {5000, 7, 33, 1}, {70000, 8, 8, 0}};

// Everything that can be done with a recording; "" tells the format by its content.
template <int format>
void recording(const Bytes& b) {
    const auto& f = recording_files[format];
    RecordingOptions options{f.name, 34, 34};
    options.denoise = 2000;
    const Recording read = read_recording(over(b, f.file), options);
    for (const char* framing : {"tonic:bins=4", "tonic:count=3", "sj:number=5", "sj:time=5"})
        frame_bounds(read, parse_framing(framing));
}
template <int format>
std::vector<Bytes> recording_seeds() {
    return {recording_files[format].encode(some_events)};
}

// Headers decide on the format and the sensor, with the extension where they say too little.
void recognise(const Bytes& b) {
    for (const char* name : {"x", "x.bin", "x.dat"}) {
        try {
            const EventStream stream(over(b, name), {});
            if (stream.width() > size_t(1) << 15) std::abort();
        } catch (const Error&) {
        }
    }
}

void frames(const Bytes& b) {
    if (holds_frames(over(b))) copy_frames(over(b), true, "/dev/null");
}

void zip(const Bytes& b) {
    const Zip archive(over(b));
    for (const ZipEntry& e : archive.entries()) archive.read(e);
}

// Of the foreign networks: none in a build without HDF5 and protobuf.
std::vector<Bytes> where_readable(const std::function<std::vector<Bytes>()>& seeds) {
    try {
        return seeds();
    } catch (const Error&) {
        return {};
    }
}

std::vector<Bytes> onnx_seeds() {
    OnnxFile maps({0, 1, 4, 4});
    maps.constant(floats("w", {2, 1, 3, 3}, std::vector<float>(18, 0.5f)))
        .constant(floats("b", {2}, {1, 2}))
        .constant(integers("pads", {0, 0, 1, 0, 0, 0, 1, 0}))
        .constant(integers("to", {-1, 12}))
        .constant(tensor("half", {12, 3}, 10, std::string(72, '\x3c')))
        .node("Pad", {"x", "pads"}, "z")
        .node("Conv", {"z", "w", "b"}, "c", {ints("pads", {1, 1, 1, 1})})
        .node("Sigmoid", {"c"}, "s")
        .node("Mul", {"c", "s"}, "a")
        .node("AveragePool", {"a"}, "p",
              {ints("kernel_shape", {3, 3}), ints("strides", {2, 2}), ints("pads", {1, 1, 1, 1})})
        .node("Reshape", {"p", "to"}, "flat")
        .node("MatMul", {"flat", "half"}, "y");
    OnnxFile vectors({1, 2});
    vectors.constant(floats("fc.weight", {3, 2}, {1, 2, 3, 4, 5, 6}))
        .constant(floats("slope", {1}, {0.25f}))
        .node("Gemm", {"x", "fc.weight"}, "h", {one_int("transB", 1), one_float("alpha", 2)})
        .node("PRelu", {"h", "slope"}, "a")
        .node("Clip", {"a"}, "k", {one_float("min", 0), one_float("max", 6)})
        .node("Concat", {"a", "k"}, "both", {one_int("axis", 1)})
        .node("Softmax", {"both"}, "y");
    return where_readable([&] {
        for (const OnnxFile* file : {&maps, &vectors}) parse_onnx(file->bytes(), "x");
        return std::vector<Bytes>{maps.bytes(), vectors.bytes()};
    });
}

// Of several outputs one is named.
void nir(const Bytes& b) {
    const File file(b);
    try {
        from_nir(file.path(), default_dt, "output");
    } catch (const Error&) {
    }
    from_nir(file.path());
}

std::vector<Bytes> nir_seeds() {
    Neuron neuron;
    neuron.theta = Tensor::full<float>({1}, 1);
    Model maps;
    size_t at = add_node(maps.graph, "input", Input{{4, 4, 1}}, {});
    at = add_node(maps.graph, "neuron", neuron, {at});
    at = add_node(maps.graph, "pool", AveragePool{}, {at});
    add_node(maps.graph, "output", Output{}, {at});
    // Two inputs, side by side in one.
    Model two;
    at = add_node(two.graph, "input", Input{{2}}, {});
    const size_t a =
        add_node(two.graph, "a", Linear{Tensor::from<float>({1, 0}, {2, 1}), {}}, {at});
    const size_t b =
        add_node(two.graph, "b", Linear{Tensor::from<float>({0, 1}, {2, 1}), {}}, {at});
    at = add_node(two.graph, "sum", Scale{Tensor::full<float>({1}, 2)}, {a, b});
    add_node(two.graph, "output", Output{}, {at});
    return where_readable([&] {
        std::vector<Bytes> out;
        for (const Model* model : {&maps, &two})
            out.push_back(written([&](const std::string& path) { to_nir(path, *model); }));
        return out;
    });
}

struct Target {
    const char* name;
    void (*read)(const Bytes&);
    std::vector<Bytes> (*seeds)();
};

const std::string a_tensor =
    p_dict({{"a", p_tensor({.stored = 6, .sizes = {3, 2}, .strides = {1, 3}})}});
Bytes torch_weights(const std::string& pickle) {
    return torch_file(pickle, {{"0", std::string(24, 'a')}});
}

const Target targets[] = {
    {"json", [](const Bytes& b) { json_of(b); },
     [] {
         return std::vector<Bytes>{
             text_bytes(R"({"a": [1, -2.5e3, true, null], "b": {"c": "d\u00e9\n"}})")};
     }},
    {"graph",  // of a file that has its tensors: without any they are made as the text asks
     [](const Bytes& b) {
         static const auto tensors = graph_tensors(small_graph());
         graph_from_json(json_of(b), tensors, "x");
     },
     [] { return std::vector<Bytes>{text_bytes(graph_to_json(small_graph()).dump())}; }},
    {"safetensors", [](const Bytes& b) { parse_safetensors(b, "x"); },
     [] {
         SafeTensors file;
         file.tensors["a"] = Tensor::full<float>({2, 3}, 1);
         file.tensors["b"] = Tensor::full<int8_t>({5}, 1);
         file.metadata["key"] = "value";
         return std::vector<Bytes>{
             written([&](const std::string& path) { save_safetensors(path, file); })};
     }},
    {"model", [](const Bytes& b) { parse_model(b, "x"); },
     [] {
         Model model;
         model.graph = small_graph();
         model.info.mean = {0.5f};
         model.info.std = {0.25f};
         return std::vector<Bytes>{
             written([&](const std::string& path) { save_model(path, model); })};
     }},
    {"loihi", [](const Bytes& b) { from_loihi(json_of(b), "x"); },
     [] {
         return std::vector<Bytes>{text_bytes(to_loihi(integer_mlp({6, 5, 4}, 1).net, 4).dump())};
     }},
    {"pt", [](const Bytes& b) { load_pt(Source(b.data(), b.size(), "x")); },
     [] { return std::vector<Bytes>{torch_weights(a_tensor)}; }},
    {"pickle",  // inside an archive whose checksums hold
     [](const Bytes& b) {
         const Bytes file = torch_weights(std::string(b.begin(), b.end()));
         load_pt(Source(file.data(), file.size(), "x"));
     },
     [] { return std::vector<Bytes>{Bytes(a_tensor.begin(), a_tensor.end())}; }},
    {"onnx", [](const Bytes& b) { load_onnx(File(b).path()); }, onnx_seeds},
    {"nir", nir, nir_seeds},
    {"npy_array", [](const Bytes& b) { parse_npy(b, "x"); },
     [] { return std::vector<Bytes>{npy_file("'<f4'", "2, 3", Bytes(24, 1))}; }},
    {"zip", zip,
     [] {
         const std::vector<Zipped> entries = {{"a", Bytes(300, 1), true},
                                              {"b", Bytes(20, 2), false}};
         return std::vector<Bytes>{zip_of(entries), zip_of(entries, true, "comment")};
     }},
    {"gzip", [](const Bytes& b) { inflate_gzip(b, "x", size_t(1) << 24); },
     [] { return std::vector<Bytes>{deflated(Bytes(300, 1), true)}; }},
    {"idx", [](const Bytes& b) { parse_idx(b, "x"); },
     [] {
         Bytes idx = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4};
         idx.resize(16 + 24, 7);
         return std::vector<Bytes>{idx};
     }},
    {"cifar",
     [](const Bytes& b) {
         LabelledImages out;
         parse_cifar10(b, "x", out);
     },
     [] { return std::vector<Bytes>{Bytes(3073, 5)}; }},
    {"recognise", recognise,
     [] {
         std::vector<Bytes> out;
         for (const auto& f : recording_files) out.push_back(f.encode(some_events));
         return out;
     }},
    {"nmnist", recording<0>, recording_seeds<0>},
    {"aedat2", recording<1>, recording_seeds<1>},
    {"aedat3", recording<2>, recording_seeds<2>},
    {"evt2", recording<3>, recording_seeds<3>},
    {"evt3", recording<4>, recording_seeds<4>},
    {"dat", recording<5>, recording_seeds<5>},
    {"npy", recording<6>, recording_seeds<6>},
    {"npz", recording<7>, recording_seeds<7>},
    {"frames", frames,
     [] {
         const Bytes npy = npy_file("'|u1'", "2, 2, 1, 2", Bytes(8, 1));
         return std::vector<Bytes>{npy, zip_of({{"frames.npy", npy, true}})};
     }},
};

const Target* chosen = nullptr;

void write_seeds(const std::string& folder) {
    for (const Target& target : targets) {
        const std::filesystem::path to = std::filesystem::path(folder) / target.name;
        std::filesystem::create_directories(to);
        size_t n = 0;
        for (const Bytes& seed : target.seeds()) {
            target.read(seed);  // a seed that is refused would start nowhere
            write_file((to / std::to_string(n++)).string(), seed.data(), seed.size());
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
    const std::string first = *argc > 1 ? (*argv)[1] : "";
    if (first == "--targets") {
        for (const Target& target : targets) std::cout << target.name << "\n";
        std::exit(0);
    }
    if (first == "--seeds" && *argc > 2) {
        write_seeds((*argv)[2]);
        std::exit(0);
    }
    const char* name = std::getenv("NC_FUZZ");
    for (const Target& target : targets)
        if (name && name == std::string(target.name)) chosen = &target;
    if (!chosen) {
        std::cerr << "error: NC_FUZZ names no target; --targets lists them\n";
        std::exit(2);
    }
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        chosen->read(Bytes(data, data + size));
    } catch (const Error&) {
    }
    return 0;
}
