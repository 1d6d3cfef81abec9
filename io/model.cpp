// Models as safetensors: tensors by name, everything else as JSON in the metadata.
#include "io/model.h"

#include <cmath>

#include "io/bytes.h"

namespace nc {
namespace {

const std::string state_prefix = "state.";

Json info_to_json(const ModelInfo& info) {
    return {{"dataset", info.dataset}, {"T", info.T},
            {"mean", info.mean},       {"std", info.std},
            {"framing", info.framing}, {"ann_frames", info.ann_frames},
            {"classes", info.classes}, {"provenance", info.provenance}};
}

ModelInfo info_from_json(const Json& json, const std::string& path) {
    ModelInfo out;
    if (!json.is_object()) refuse_model(path, "info is not an object");
    std::vector<std::string> known;
    const auto read = [&](const char* key, auto good, auto& to) {
        known.push_back(key);
        const auto at = json.find(key);
        if (at == json.end()) return;
        if (!good(*at)) refuse_model(path, "info: " + std::string(key) + " is " + at->dump());
        to = at->template get<std::remove_reference_t<decltype(to)>>();
    };
    const auto text = [](const Json& v) { return v.is_string(); };
    const auto count = [](const Json& v) {
        return v.is_number_unsigned() && v.get<uint64_t>() <= 1'000'000'000;
    };
    const auto floats = [](const Json& v) {
        if (!v.is_array()) return false;
        for (const auto& x : v)
            if (!x.is_number() || !std::isfinite(x.get<float>())) return false;
        return true;
    };
    read("dataset", text, out.dataset);
    read("T", count, out.T);
    read("mean", floats, out.mean);
    read("std", floats, out.std);
    read("framing", text, out.framing);
    read("ann_frames", text, out.ann_frames);
    read("classes", count, out.classes);
    read(
        "provenance", [](const Json& v) { return v.is_object(); }, out.provenance);
    for (const auto& [key, value] : json.items())
        if (std::find(known.begin(), known.end(), key) == known.end())
            refuse_model(path, "info: unknown field '" + key + "'", suggestion(key, known));
    for (const float s : out.std)
        if (!(s > 0)) refuse_model(path, "info: std " + std::to_string(s) + " is not positive");
    if (out.mean.size() != out.std.size())
        refuse_model(path, "info: " + std::to_string(out.mean.size()) + " means, but " +
                               std::to_string(out.std.size()) + " deviations");
    return out;
}

Model to_model(const SafeTensors& file, const std::string& path) {
    const auto section = [&](const char* key) {
        const auto at = file.metadata.find(key);
        if (at == file.metadata.end())
            refuse_model(path,
                         "no " + std::string(key) + " in the metadata: not a model of this program",
                         "weights alone need a graph");
        try {
            return parse_json(at->second, path + ": " + key);
        } catch (const Error& e) {
            throw Error(e.what(), ErrorKind::model);
        }
    };
    Model out;
    const Json graph = section("graph");
    out.info = info_from_json(section("info"), path);
    out.state_info = section("state");

    std::map<std::string, Tensor> tensors;
    for (const auto& [name, tensor] : file.tensors) {
        if (name.rfind(state_prefix, 0) == 0) {
            out.state[name.substr(state_prefix.size())] = tensor;
        } else {
            tensors[name] = tensor;
        }
    }
    out.graph = graph_from_json(graph, tensors, path);
    for (const auto& node : out.graph.nodes)
        for_each_tensor(node, [&](const char* field, const Tensor& tensor, TensorRole) {
            const std::string name = node.name + "." + tensor_field(node.op, field);
            // A file without any tensor reads as a schema: its neutral values are not a model.
            if (tensor.defined() && tensors.erase(name) == 0 &&
                tensors.erase(node.name + "." + field) == 0)
                refuse_model(path, "tensor '" + name + "' is not in the file");
        });
    if (!tensors.empty())
        refuse_model(path, "tensor '" + tensors.begin()->first + "' belongs to no node");
    return out;
}

}  // namespace

Model load_model(const std::string& path) {
    return to_model(load_safetensors(path), path);
}

Model parse_model(const std::vector<uint8_t>& file, const std::string& path) {
    return to_model(parse_safetensors(file, path), path);
}

void save_model(const std::string& path, const Model& model) {
    SafeTensors file;
    for (const auto& node : model.graph.nodes)
        if (node.name == "state" || node.name.rfind(state_prefix, 0) == 0)
            refuse_model(path,
                         "a node may not be named '" + node.name + "': the training state is");
    file.tensors = graph_tensors(model.graph);
    for (const auto& [name, tensor] : model.state) file.tensors[state_prefix + name] = tensor;
    file.metadata["graph"] = graph_to_json(model.graph).dump();
    file.metadata["info"] = info_to_json(model.info).dump();
    file.metadata["state"] = model.state_info.dump();
    save_safetensors(path, file);
}

}  // namespace nc
