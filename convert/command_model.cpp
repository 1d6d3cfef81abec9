// nc_convert finetune, info and backends.
#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "convert/commands.h"
#include "hw/target.h"

namespace nc::program {

int finetune_command(int argc, char** argv) {
    Common common;
    DataOptions data_options;
    ConvertOptions options;
    ReadOptions read;
    std::string path, out;
    CLI::App app("Trains a spiking model further, by back-propagation through its time steps.",
                 "nc_convert finetune");
    app.add_option("model", path, "spiking model (.safetensors, .nir)")->required();
    add_nir_options(app, read);
    app.add_option("--out", out, "the tuned model's file")->type_name("FILE")->required();
    app.add_option("--T", options.T, "time steps (default: the model's)")
        ->check(CLI::Range(1, 65536));
    add_data_options(app, data_options);
    add_training_options(app, options);
    add_checkpoint_options(app, options);
    add_common_options(app, common);
    add_precision_option(app, common);
    return run(app, argc, argv, [&] {
        check_output(out, common.force);
        Compute compute = make_compute(common);
        const Model model = read_model(path, read, common);
        const LoadedData data = load(common, data_options, model.info, model.graph, options.T);
        Watcher watcher(common, model.info, options);
        Converted tuned = watcher.watch(
            [&] { return finetune(compute, model, *data.train, data.test.get(), options); });
        tuned.model.info.provenance["command"] = typed_command;
        save_model(out, tuned.model);
        Json json = to_json(tuned.statistics);
        json["dataset"] = data.name;
        json["subset"] = data.subset;
        json["measure"] = data.measure;
        json["model"] = path;
        json["out"] = out;
        json["command"] = typed_command;
        json["environment"] = environment(compute);
        const auto title = fmt::format("{} on {}, {}; tuned, seed {}",
                                       std::filesystem::path(path).filename().string(), data.name,
                                       data.label, common.seed);
        std::string text = summary(title, tuned.statistics, data.measure);
        if (data.policy())
            text += returns_table(compute,
                                  {{"SNN", model.graph, model.info.T},
                                   {"SNN, tuned", tuned.model.graph, tuned.statistics.T}},
                                  json["returns"]);
        print_result(common, text, json);
        return int(success);
    });
}

namespace {

std::string detail(const Operation& op) {
    std::string text;
    Node node{"", op};
    for_each_tensor(node, [&](const char* field, Tensor& t, TensorRole) {
        if (t.defined()) text += fmt::format("{} {} ", field, t.shape().str());
    });
    if (const auto* q = std::get_if<Qcfs>(&op)) text += fmt::format("L {} ", q->levels);
    if (const auto* n = std::get_if<Neuron>(&op)) text += fmt::format("beta {} ", n->rule.beta);
    return text;
}

std::string placement_text(const Placement& p) {
    std::vector<std::vector<std::string>> rows = {{"population", "neurons", "fan-in", "cores",
                                                   "neurons a core", "synapse bits a core",
                                                   "late by"}};
    for (const PlacedPopulation& l : p.populations)
        rows.push_back({l.name, count(l.neurons), count(l.fan_in), count(l.cores),
                        count(l.neurons_of_a_core), count(l.bits_of_a_core),
                        std::to_string(l.delay)});
    rows.push_back({"all", count(p.neurons), "", count(p.cores), "", "", ""});
    std::string text =
        fmt::format("on {} (modelled, from published limits):\n{}", p.chip.name, text_table(rows));
    if (p.chips > 0)
        text += fmt::format("{} chip{} of {} cores, {} bits of synapses in all\n", p.chips,
                            p.chips > 1 ? "s" : "", p.chip.cores->value, count(p.bits));
    if (p.chip.bits_per_core)
        text += fmt::format(
            "  memory of a core: {} bits ({}); weights only, without addresses, "
            "routes and neuron states\n",
            count(uint64_t(p.chip.bits_per_core->value)), p.chip.bits_per_core->source);
    if (p.chip.neurons_per_core)
        text += fmt::format("  neurons of a core: {} ({})\n", p.chip.neurons_per_core->value,
                            p.chip.neurons_per_core->source);
    if (!p.chip.fan_in) text += "  fan-in: no limit is published\n";
    return text;
}

}  // namespace

int info_command(int argc, char** argv) {
    Common common;
    ReadOptions read;
    std::string path, target;
    CLI::App app(
        "What a model file holds; with --target, where a quantised network goes on a chip.",
        "nc_convert info");
    app.add_option("model", path, "model file (.safetensors, .onnx, .nir)")->required();
    add_nir_options(app, read);
    app.add_option("--target", target, "loihi2: cores, memory and limits, from published figures");
    add_common_options(app, common);
    return run(app, argc, argv, [&] {
        const std::optional<Chip> chip =
            target.empty() ? std::nullopt : std::optional(chip_named(target));
        const Model model = read_model(path, read, common);
        const Graph& g = model.graph;
        std::optional<Placement> placement;
        if (chip) placement = place(integer_network(g), *chip);
        const auto shapes = infer_shapes(g);
        Json json;
        json["model"] = path;
        json["spiking"] = is_spiking(g);
        json["residual"] = is_residual(g);
        json["weight_layers"] = weight_layers(g);
        json["parameters"] = parameter_count(g);
        json["dataset"] = model.info.dataset.empty() ? Json(nullptr) : Json(model.info.dataset);
        json["T"] = model.info.T > 0 ? Json(model.info.T) : Json(nullptr);
        json["classes"] = model.info.classes > 0 ? Json(model.info.classes) : Json(nullptr);
        json["mean"] = model.info.mean;
        json["std"] = model.info.std;
        json["checkpoint"] = !model.state.empty();
        json["provenance"] = model.info.provenance;
        json["nodes"] = Json::array();
        std::vector<std::vector<std::string>> rows;
        for (const size_t i : topological_order(g)) {
            const Node& node = g.nodes[i];
            std::string from;
            for (const size_t e : inputs_of(g, i))
                from += (from.empty() ? "" : " + ") + g.nodes[g.edges[e].from].name;
            const std::string kind(operation_name(node.op));
            json["nodes"].push_back({{"name", node.name},
                                     {"operation", kind},
                                     {"shape", shapes[i].to_vector()},
                                     {"from", from}});
            rows.push_back({fmt::format("  {:<20} {:<20} {:<16} {}", node.name, kind,
                                        shapes[i].str(), detail(node.op))});
        }
        const auto known = [](const std::string& text) { return text.empty() ? "unknown" : text; };
        std::string text = fmt::format(
            "{}: {}, {} parameters, {} weight layers{}\ndata set {}, T {}\n", path,
            is_spiking(g) ? "spiking" : "not spiking", count(parameter_count(g)), weight_layers(g),
            is_residual(g) ? ", residual" : "", known(model.info.dataset),
            model.info.T > 0 ? std::to_string(model.info.T) : "not set");
        text += text_table(rows);
        if (placement) {
            json["placement"] = to_json(*placement);
            text += placement_text(*placement);
        }
        print_result(common, text, json);
        return int(success);
    });
}

namespace {

// The cards of this machine, as JSON and in a line each.
Json cards(std::vector<std::string>& lines) {
    Json out = Json::array();
    const kernels::Backend* backend = kernels::cuda_backend();
    int count = 0;
    if (backend == nullptr || backend->count(&count) != 0) return out;
    for (int i = 0; i < count; ++i) {
        kernels::DeviceProperties card = {};
        if (backend->properties(i, &card) != 0) continue;
        const std::string device = Device{DeviceKind::cuda, i}.str();
        const std::string capability = fmt::format("{}.{}", card.major, card.minor);
        out.push_back({{"device", device},
                       {"name", card.name},
                       {"memory_bytes", card.memory},
                       {"compute_capability", capability},
                       {"processors", card.processors}});
        lines.push_back(fmt::format("{:<11} {}, {:.1f} GB, compute capability {}", device,
                                    card.name, double(card.memory) / 1e9, capability));
    }
    return out;
}

}  // namespace

int backends_command(int argc, char** argv) {
    Common common;
    CLI::App app("Where networks can run: each backend, its kind, and whether it is usable here.",
                 "nc_convert backends");
    add_common_options(app, common);
    return run(app, argc, argv, [&] {
        const Compute chosen = make_compute(common);
        Json json = Json::array();
        std::vector<std::vector<std::string>> rows;
        for (const char* name : {"reference", "sse2", "avx2", "avx512", "cuda", "cuda-vendor"}) {
            const char* why = kernels::why_unusable(name);
            const bool in_use = name == std::string(chosen.table->name);
            json.push_back({{"name", name},
                            {"kind", "real"},
                            {"usable", why == nullptr},
                            {"in_use", in_use},
                            {"reason", why ? Json(why) : Json(nullptr)}});
            rows.push_back({fmt::format("{:<11} real  {}{}", name, why ? why : "usable",
                                        in_use ? ", in use" : "")});
        }
        std::vector<std::string> lines;
        const Json found = cards(lines);
        for (const std::string& line : lines) rows.push_back({line});
        for (Json& entry : json)
            if (entry["name"].get<std::string>().starts_with("cuda")) entry["cards"] = found;
        print_result(common, text_table(rows), json);
        return int(success);
    });
}

}  // namespace nc::program
