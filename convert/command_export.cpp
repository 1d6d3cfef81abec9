// nc_convert export: a model in the forms that other tools and chips read.
#include <fmt/format.h>

#include <filesystem>
#include <map>

#include "convert/commands.h"
#include "hw/hls.h"
#include "hw/loihi_export.h"
#include "hw/rtl.h"
#include "hw/target.h"
#include "io/bytes.h"

namespace nc::program {

namespace {

// "loihi=net.json" to its two sides.
std::map<std::string, std::string> parse_emit(const std::vector<std::string>& words) {
    std::map<std::string, std::string> out;
    for (const std::string& word : words) {
        const size_t equals = word.find('=');
        const std::string kind = word.substr(0, equals);
        if (kind != "loihi" && kind != "lava" && kind != "rtl" && kind != "hls")
            throw Error("[export] unknown form '" + kind + "'", ErrorKind::usage,
                        suggestion(kind, {"loihi", "lava", "rtl", "hls"}));
        if (equals == std::string::npos || equals + 1 == word.size())
            throw Error("[export] no file: '" + word + "'", ErrorKind::usage,
                        "as in --emit loihi=net.json,rtl=rtl/");
        if (!out.emplace(kind, word.substr(equals + 1)).second)
            throw Error("[export] " + kind + " is asked for twice");
    }
    return out;
}

// What RTL and HLS are made of besides the network.
struct Hardware {
    size_t lanes = 8;
    bool pipelined = false;
    DataOptions data;
};

// Generated hardware in its folder, with the first test samples as stimulus and their trace.
std::string emit_hardware(const std::string& kind, const std::string& folder,
                          const Hardware& hardware, const Common& common, const Model& model,
                          const IntegerNetwork& net, int T) {
    constexpr size_t most_samples = 10;  // unless --samples asks for more
    Common few = common;
    if (few.samples == 0) few.samples = most_samples;
    const LoadedData data = load(few, hardware.data, model.info, model.graph, T);
    if (data.test->steps() > 0 && data.test->steps() != T)
        throw Error("[export] T is " + std::to_string(T) + ", the recordings have " +
                    std::to_string(data.test->steps()) + " frames");
    Compute compute(Device{}, 1);
    std::vector<uint32_t> indices(data.test->size());
    for (size_t i = 0; i < indices.size(); ++i) indices[i] = uint32_t(i);
    Random random(0);
    const Batch batch = data.test->batch(compute, indices, {}, random);
    const FpgaPlan plan = fpga_plan(net, T, hardware.lanes, hardware.pipelined);
    const auto events = input_events(net, batch.x.data<float>(), batch.x.elements());
    const auto write = kind == "rtl" ? write_rtl : write_hls;
    const RtlReport report =
        write(net, plan, events, indices.size(), T, folder, {batch.temporal, common.force});
    return fmt::format(
        "{}: {} files, {} samples of stimulus with every u, v and s; a step takes at most {} "
        "cycles\n",
        folder, report.files.size(), indices.size(), count(report.step_bound));
}

}  // namespace

int export_command(int argc, char** argv) {
    Common common;
    std::string path;
    std::vector<std::string> emit;
    int T = 0;
    CLI::App app(
        "Writes a quantised network as other tools take it: loihi=FILE.json, all it takes to "
        "program a Loihi 2; lava=FILE.py beside it, a script for Lava's stock processes, which "
        "reset to zero and have one threshold a layer; rtl=DIR, SystemVerilog with a testbench; "
        "hls=DIR, C++ for high-level synthesis with a main that checks itself.",
        "nc_convert export");
    app.add_option("model", path, "a quantised model file (.safetensors)")->required();
    app.add_option("--emit", emit, "FORM=FILE, several by commas")
        ->type_name("FORM=FILE")
        ->delimiter(',')
        ->required();
    app.add_option("--T", T, "time steps (default: the model's)")->check(CLI::Range(1, 65536));
    Hardware hardware;
    app.add_option("--lanes", hardware.lanes, "rtl, hls: weights a cycle, a power of 2 up to 64")
        ->capture_default_str();
    app.add_flag("--pipelined", hardware.pipelined,
                 "rtl, hls: layers work at the same time, each a step behind those it hears");
    add_data_options(app, hardware.data);
    add_common_options(app, common);
    return run(app, argc, argv, [&] {
        const auto wanted = parse_emit(emit);
        for (const auto& [kind, file] : wanted)
            if (kind == "loihi" || kind == "lava") check_output(file, common.force);
        const Model model = read_model(path);
        const int steps = T > 0 ? T : model.info.T;
        if (steps < 1)
            throw Error("[export] the model has no T", ErrorKind::usage, "give one with --T");
        const IntegerNetwork net = integer_network(model.graph);
        const auto loihi = wanted.find("loihi"), lava = wanted.find("lava");
        namespace fs = std::filesystem;
        if (lava != wanted.end()) {
            if (loihi == wanted.end() ||
                fs::path(loihi->second).parent_path() != fs::path(lava->second).parent_path())
                throw Error("[export] the script for Lava loads the network from its own folder",
                            ErrorKind::usage, "give loihi=FILE.json in the same folder too");
            lava_script(net, "");  // refuses before anything is written
        }
        Json json = {{"model", path}, {"T", steps}, {"files", Json::object()}};
        std::string text;
        if (loihi != wanted.end()) {
            const Json document = to_loihi(net, steps);
            write_json(loihi->second, document);
            const Placement placed = place(net, loihi2());
            json["files"]["loihi"] = loihi->second;
            text += fmt::format("{}: {} populations, {} neurons, T = {}, {} steps a run\n",
                                loihi->second, placed.populations.size(), count(placed.neurons),
                                steps, document["steps"].get<int>());
        }
        if (lava != wanted.end()) {
            write_file(lava->second, lava_script(net, fs::path(loihi->second).filename().string()));
            json["files"]["lava"] = lava->second;
            json["lava"] = "not run here";
            text += lava->second + ": for Lava; not run here\n";
        }
        for (const char* kind : {"rtl", "hls"})
            if (const auto folder = wanted.find(kind); folder != wanted.end()) {
                text += emit_hardware(kind, folder->second, hardware, common, model, net, steps);
                json["files"][kind] = folder->second;
            }
        json["command"] = typed_command;
        print_result(common, text, json);
        return int(success);
    });
}

}  // namespace nc::program
