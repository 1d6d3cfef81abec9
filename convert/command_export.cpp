// nc_convert export: a model in the forms that other tools and chips read.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "convert/commands.h"
#include "convert/integer_run.h"
#include "convert/nir.h"
#include "hw/hls.h"
#include "hw/loihi_export.h"
#include "hw/rtl.h"
#include "hw/target.h"
#include "io/bytes.h"
#include "io/onnx.h"

namespace nc::program {

namespace fs = std::filesystem;

void add_emit_options(CLI::App& app, EmitOptions& o) {
    const std::string group = "Other forms";
    app.add_option("--emit", o.words,
                   "FORM=FILE, several by commas: nir=FILE.nir, onnx=FILE.onnx, "
                   "loihi=FILE.json, lava=FILE.py, rtl=DIR, hls=DIR")
        ->type_name("FORM=FILE")
        ->delimiter(',')
        ->group(group);
    app.add_option("--lanes", o.lanes, "rtl, hls: weights a cycle, a power of 2 up to 64")
        ->capture_default_str()
        ->check(CLI::IsMember({1, 2, 4, 8, 16, 32, 64}))
        ->group(group);
    app.add_flag("--pipelined", o.pipelined,
                 "rtl, hls: layers work at the same time, each a step behind those it hears")
        ->group(group);
    app.add_option("--nir-vinit", o.nir_vinit,
                   "nir: v(0) in the metadata, or bias: v(0) / T more at every step")
        ->capture_default_str()
        ->group(group);
    app.add_option("--nir-pool", o.nir_pool, "nir: avg, or sum with 1 / k^2 in the next weights")
        ->capture_default_str()
        ->group(group);
    app.add_option("--nir-compat", o.nir_compat,
                   "nir: strict, what the reference reader's type check takes; or full")
        ->capture_default_str()
        ->group(group);
}

EmitFiles emit_files(const EmitOptions& o, const Common& common) {
    const std::vector<std::string> known = {"nir", "onnx", "loihi", "lava", "rtl", "hls"};
    EmitFiles out;
    for (const std::string& word : o.words) {
        const size_t equals = word.find('=');
        const std::string form = word.substr(0, equals);
        if (std::find(known.begin(), known.end(), form) == known.end())
            throw Error("[emit] unknown form '" + form + "'", ErrorKind::usage,
                        suggestion(form, known));
        if (equals == std::string::npos || equals + 1 == word.size())
            throw Error("[emit] no file: '" + word + "'", ErrorKind::usage,
                        "as in --emit loihi=net.json,rtl=rtl/");
        if (!out.emplace(form, word.substr(equals + 1)).second)
            throw Error("[emit] " + form + " is asked for twice", ErrorKind::usage);
    }
    for (const auto& [form, file] : out)
        if (form == "rtl" || form == "hls")
            check_output_folder(file, common.force);
        else
            check_output(file, common.force);
    parse_nir_options(o.nir_vinit, o.nir_pool, o.nir_compat);  // before anything else is done
    const auto loihi = out.find("loihi"), lava = out.find("lava");
    if (lava != out.end() && (loihi == out.end() || fs::path(loihi->second).parent_path() !=
                                                        fs::path(lava->second).parent_path()))
        throw Error("[emit] the script for Lava loads the network from its own folder",
                    ErrorKind::usage, "give loihi=FILE.json in the same folder too");
    return out;
}

bool needs_stimulus(const EmitFiles& files) {
    return files.count("rtl") + files.count("hls") > 0;
}

namespace {

// Generated hardware in its folder, with the samples as stimulus and their trace.
std::string emit_hardware(const std::string& form, const std::string& folder, const EmitOptions& o,
                          const IntegerNetwork& net, int T, const Dataset& data, bool force) {
    if (data.steps() > 0 && data.steps() != T)
        throw Error("[emit] T is " + std::to_string(T) + ", the recordings have " +
                    std::to_string(data.steps()) + " frames");
    Compute compute(Device{}, 1);
    const IntegerBatch batch = integer_batch(compute, net, data, 0, data.size());
    const FpgaPlan plan = fpga_plan(net, T, o.lanes, o.pipelined);
    const auto write = form == "rtl" ? write_rtl : write_hls;
    const RtlReport report = write(net, plan, batch.events, batch.N, T, folder,
                                   {.temporal = batch.floats.temporal, .force = force});
    return fmt::format(
        "{}: {} files, {} samples of stimulus with every u, v and s; a step takes at most {} "
        "cycles\n",
        folder, report.files.size(), batch.N, count(report.step_bound));
}

}  // namespace

std::string emit_floats(EmitFiles& files, const EmitOptions& o, const Model& model, Json& json) {
    std::string text;
    if (const auto nir = files.find("nir"); nir != files.end()) {
        to_nir(nir->second, model, parse_nir_options(o.nir_vinit, o.nir_pool, o.nir_compat));
        json["files"]["nir"] = nir->second;
        text += nir->second + ": for every reader of NIR\n";
        files.erase(nir);
    }
    if (const auto onnx = files.find("onnx"); onnx != files.end()) {
        save_onnx_step(onnx->second, model.graph);
        json["files"]["onnx"] = onnx->second;
        text += onnx->second + ": one time step in ONNX operations\n";
        files.erase(onnx);
    }
    return text;
}

std::string emit_integers(const EmitOptions& o, const EmitFiles& files, const Graph& g, int T,
                          const Dataset* stimulus, bool force, Json& json) {
    const IntegerNetwork net = integer_network(g);
    const auto loihi = files.find("loihi"), lava = files.find("lava");
    if (lava != files.end()) lava_script(net, "");  // refuses before anything is written
    std::string text;
    if (loihi != files.end()) {
        const Json document = to_loihi(net, T);
        write_json(loihi->second, document);
        const Placement placed = place(net, loihi2());
        text += fmt::format("{}: {} populations, {} neurons, T = {}, {} steps a run\n",
                            loihi->second, placed.populations.size(), count(placed.neurons), T,
                            document["steps"].get<int>());
    }
    if (lava != files.end()) {
        write_file(lava->second, lava_script(net, fs::path(loihi->second).filename().string()));
        json["lava"] = "not run here";
        text += lava->second + ": for Lava; not run here\n";
    }
    for (const char* form : {"rtl", "hls"})
        if (const auto folder = files.find(form); folder != files.end())
            text += emit_hardware(form, folder->second, o, net, T, *stimulus, force);
    for (const auto& [form, file] : files) json["files"][form] = file;
    return text;
}

int export_command(int argc, char** argv) {
    Common common;
    DataOptions data_options;
    EmitOptions emit;
    ReadOptions read;
    std::string path;
    int T = 0;
    CLI::App app(
        "Writes a network as other tools take it: nir=FILE.nir; onnx=FILE.onnx, one time "
        "step, (x, v..) to (logits, v..). Of a quantised network: "
        "loihi=FILE.json, all it takes to program a Loihi 2; lava=FILE.py beside it, a script for "
        "Lava's stock processes, which "
        "reset to zero and have one threshold a layer; rtl=DIR, SystemVerilog with a testbench; "
        "hls=DIR, C++ for high-level synthesis with a main that checks itself.",
        "nc_convert export");
    app.add_option("model", path, "model file (.safetensors, .onnx, .nir)")->required();
    add_nir_options(app, read);
    app.add_option("--T", T, "time steps (default: the model's)")->check(CLI::Range(1, 65536));
    add_emit_options(app, emit);
    app.get_option("--emit")->required();
    add_data_options(app, data_options);
    add_common_options(app, common);
    return run(app, argc, argv, [&] {
        EmitFiles files = emit_files(emit, common);
        Model model = read_model(path, read, common);
        const int steps = model.info.T = T > 0 ? T : model.info.T;
        Json json = {{"model", path}, {"command", typed_command}};
        std::string text = emit_floats(files, emit, model, json);
        if (files.empty()) {
            print_result(common, text, json);
            return int(success);
        }
        integer_network(model.graph);  // refuses by name what is not quantised
        if (steps < 1)
            throw Error("[export] the model has no T", ErrorKind::usage, "give one with --T");
        LoadedData data;
        if (needs_stimulus(files)) {
            Common few = common;
            if (few.samples == 0) few.samples = stimulus_samples;
            data = load(few, data_options, model.info, model.graph, steps);
        }
        json["T"] = steps;
        text += emit_integers(emit, files, model.graph, steps, data.test.get(), common.force, json);
        print_result(common, text, json);
        return int(success);
    });
}

}  // namespace nc::program
